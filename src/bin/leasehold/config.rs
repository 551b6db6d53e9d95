//! Settings of the server: flags over the environment over a file over defaults. And `leasehold config print`.
//!
//! The flags that a file stands for come before those that were given, for every setting that the environment does not
//! name.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::exit::Failure;
use crate::output;
use crate::settings::print::printed;
use crate::settings::{ServeArgs, file};

/// What makes no sense.
pub(crate) enum Unread {
    /// The words, or nothing was wrong and help was asked for.
    Clap(clap::Error),
    /// The file.
    File(Failure),
}

impl From<clap::Error> for Unread {
    fn from(why: clap::Error) -> Self {
        Self::Clap(why)
    }
}

/// Reads the command line, and the file that it names.
///
/// # Errors
/// Either makes no sense.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Cli, Unread> {
    let cli = Cli::from_arg_matches(&Cli::command().try_get_matches_from(&words)?)?;
    let Some(file) = cli.settings().and_then(|args| args.config.clone()) else { return Ok(cli) };
    let matches = with_file(words, &file)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The verb that the settings belong to, and how many words come before its flags.
fn place(words: &[OsString]) -> usize {
    match words.get(1).and_then(|word| word.to_str()) {
        Some("serve") => 2,
        Some("config") => 3,
        _ => 1,
    }
}

fn with_file(mut words: Vec<OsString>, path: &Path) -> Result<ArgMatches, Unread> {
    let flags = read(path).map_err(Unread::File)?;
    let place = place(&words);
    words.splice(place..place, flags);
    let again = |command: Command| command.args_override_self(true);
    let command = again(Cli::command()).mut_subcommand("serve", again);
    let command = command.mut_subcommand("config", |config| config.mut_subcommand("print", again));
    command.try_get_matches_from(words).map_err(|why| match why.kind() {
        // The words alone were in order.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Unread::Clap(why),
        _ => Unread::File(Failure::Usage(format!("{}: {}", path.display(), file::refusal(&why)))),
    })
}

fn serve_command() -> Command {
    Cli::command().find_subcommand("serve").expect("there is a verb of this name").clone()
}

fn read(path: &Path) -> Result<Vec<OsString>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
    file::flags(&text, &serve_command(), |variable| std::env::var_os(variable).is_some()).map_err(wrong)
}

/// Prints the settings that `serve` would work with.
///
/// # Errors
/// Nobody reads them.
pub(crate) fn print(args: &ServeArgs) -> Result<(), Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let from_file = match &args.config {
        Some(file) => read(file)?,
        None => Vec::new(),
    };
    // They were read before: nothing is wrong with them.
    let matches = Cli::command().try_get_matches_from(&words).map_err(|why| Failure::Usage(why.to_string()))?;
    let given = matches.subcommand_matches("config").and_then(|config| config.subcommand_matches("print"));
    let given = given.ok_or_else(|| Failure::Usage("config print".to_owned()))?;
    output::print(&printed(&serve_command(), given, &from_file))
}
