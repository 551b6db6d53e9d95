//! `leasehold completions`: a script with which a shell completes verbs and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use crate::exit::Failure;
use crate::output::print;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  leasehold completions bash > ~/.local/share/bash-completion/completions/leasehold
  leasehold completions zsh > \"${fpath[1]}/_leasehold\"
  leasehold completions fish > ~/.config/fish/completions/leasehold.fish";

/// Prints the script.
///
/// # Errors
/// Nobody reads it.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "leasehold", &mut script);
    print(&String::from_utf8_lossy(&script))
}
