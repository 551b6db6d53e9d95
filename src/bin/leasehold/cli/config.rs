//! Settings of the server: flags over the environment over a file over defaults. And `leasehold config print`.
//!
//! The flags that a file stands for come before those that were given, for every setting that the environment does not
//! name.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use super::args::Cli;
use crate::environment;
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
    let cli = Cli::from_arg_matches(&command().try_get_matches_from(&words)?)?;
    if cli.heeds_environment()
        && let Some(why) = environment::unknown(&Cli::command(), std::env::vars_os())
    {
        return Err(Unread::File(Failure::Usage(why)));
    }
    let Some(file) = cli.settings().and_then(|args| args.config.clone()) else { return Ok(cli) };
    let matches = with_file(words, &file)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The command line, as the environment lets it be read, and with its texts in lines that are as long as the terminal's.
fn command() -> Command {
    whole_paragraphs(environment::heeding(Cli::command()))
}

fn whole_paragraphs(command: Command) -> Command {
    let text = command.get_after_help().map(|text| unwrapped(&text.to_string()));
    let command = match text {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.mut_subcommands(whole_paragraphs)
}

/// A text without its line breaks within paragraphs: they are made anew for each terminal. What is indented stays.
fn unwrapped(text: &str) -> String {
    let mut whole = String::new();
    for line in text.lines() {
        let goes_on = !whole.is_empty() && !whole.ends_with(['\n', ':']) && !line.is_empty() && !line.starts_with(' ');
        let follows_example = whole.rsplit('\n').next().is_some_and(|last| last.starts_with(' '));
        match (whole.is_empty(), goes_on && !follows_example) {
            (true, _) => {}
            (false, true) => whole.push(' '),
            (false, false) => whole.push('\n'),
        }
        whole.push_str(line);
    }
    whole
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
    let command = again(command()).mut_subcommand("serve", again);
    let command = command.mut_subcommand("config", |config| config.mut_subcommand("print", again));
    command.try_get_matches_from(words).map_err(|why| match why.kind() {
        // The words alone were in order.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Unread::Clap(why),
        _ => Unread::File(Failure::Usage(format!("{}: {}", path.display(), file::refusal(&why)))),
    })
}

fn serve_command() -> Command {
    command().find_subcommand("serve").expect("there is a verb of this name").clone()
}

fn read(path: &Path) -> Result<Vec<OsString>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
    file::flags(&text, &serve_command(), |variable| environment::value(variable).is_some()).map_err(wrong)
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
    let matches = command().try_get_matches_from(&words).map_err(|why| Failure::Usage(why.to_string()))?;
    let given = matches.subcommand_matches("config").and_then(|config| config.subcommand_matches("print"));
    let given = given.ok_or_else(|| Failure::Usage("config print".to_owned()))?;
    output::print(&printed(&serve_command(), given, &from_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_by_the_terminal_alone() {
        let text = "One line\nand its rest.\n\nNext:\n  an example\n  another\nAfter it\nmore.";
        assert_eq!(unwrapped(text), "One line and its rest.\n\nNext:\n  an example\n  another\nAfter it more.");
        let help = command().find_subcommand("run").unwrap().get_after_help().unwrap().to_string();
        assert!(help.lines().any(|line| line.len() > 130), "{help}");
    }
}
