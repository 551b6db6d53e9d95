//! Settings of the server: flags over the environment over a file over defaults. And `leasehold config print`.
//!
//! A file is read by making flags of it, before those that were given, for every setting that the environment does not
//! name. So a file is checked like the command line, and there is one list of settings.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::args::{Cli, ServeArgs};
use crate::exit::Failure;
use crate::shape::say;

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

fn with_file(mut words: Vec<OsString>, file: &Path) -> Result<ArgMatches, Unread> {
    let flags = read(file).map_err(Unread::File)?;
    let place = place(&words);
    words.splice(place..place, flags);
    let again = |command: Command| command.args_override_self(true);
    let command = again(Cli::command()).mut_subcommand("serve", again);
    let command = command.mut_subcommand("config", |config| config.mut_subcommand("print", again));
    command.try_get_matches_from(words).map_err(|why| match why.kind() {
        // The words alone were in order.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Unread::Clap(why),
        _ => {
            let said = why.render().to_string();
            let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Unread::File(Failure::Usage(format!("{}: {said}", file.display())))
        }
    })
}

/// The settings of `serve`, each with a flag.
fn settings(serve: &Command) -> impl Iterator<Item = &Arg> {
    serve
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| !["help", "version", "config"].contains(&long)))
}

fn serve_command() -> Command {
    Cli::command().find_subcommand("serve").expect("there is a verb of this name").clone()
}

/// The flags that a file stands for, those apart that the environment names.
fn read(file: &Path) -> Result<Vec<OsString>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|why| wrong(why.to_string()))?;
    // The error's own text would quote the line, which may hold a password.
    let table: Table = text.parse().map_err(|why: toml::de::Error| wrong(why.message().to_owned()))?;
    let serve = serve_command();
    let mut flags = Vec::new();
    for (name, value) in &table {
        let arg = settings(&serve).find(|arg| arg.get_long() == Some(name));
        let arg = arg.ok_or_else(|| wrong(format!("there is no setting `{name}`")))?;
        if arg.get_env().is_some_and(|variable| std::env::var_os(variable).is_some()) {
            continue;
        }
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let text = match value {
            Value::Boolean(on) if switch => {
                if *on {
                    flags.push(format!("--{name}").into());
                }
                continue;
            }
            Value::String(text) if !switch => text.clone(),
            Value::Integer(number) if !switch => number.to_string(),
            _ if switch => return Err(wrong(format!("`{name}` must be true or false"))),
            _ => return Err(wrong(format!("`{name}` must be a text or a whole number"))),
        };
        flags.push(format!("--{name}={text}").into());
    }
    Ok(flags)
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
    let mut text = String::new();
    for arg in settings(&serve_command()) {
        let name = arg.get_long().unwrap_or_default();
        let (value, source) = effective(arg, given, &from_file);
        let line = match (value, name) {
            (None, _) => format!("# {name} =  # not set\n"),
            // A URL may hold a password; what is printed is read by others.
            (Some(store), "store") if store.contains('@') => {
                format!("# {name} =  # {source}; not shown: it has a password\n")
            }
            (Some(value), _) => format!("{name} = {}  # {source}\n", literal(arg, &value)),
        };
        text.push_str(&line);
    }
    Ok(say(&text)?)
}

/// The value of a setting as it was written, and where.
fn effective(arg: &Arg, given: &ArgMatches, from_file: &[OsString]) -> (Option<String>, String) {
    let name = arg.get_long().unwrap_or_default();
    let id = arg.get_id().as_str();
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let value = if switch {
        Some(given.get_flag(id).to_string())
    } else {
        let raw = given.get_raw(id).and_then(|mut values| values.next_back());
        raw.map(|value| value.to_string_lossy().into_owned())
    };
    match given.value_source(id) {
        Some(ValueSource::CommandLine) => return (value, format!("--{name}")),
        Some(ValueSource::EnvVariable) => {
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            return (value, variable.unwrap_or_default());
        }
        _ => {}
    }
    let prefix = format!("--{name}");
    let filed = from_file.iter().filter_map(|flag| flag.to_str()?.strip_prefix(&prefix)).find_map(|rest| match rest {
        "" => Some("true".to_owned()),
        rest => rest.strip_prefix('=').map(str::to_owned),
    });
    match filed {
        Some(value) => (Some(value), "file".to_owned()),
        None => (value, "default".to_owned()),
    }
}

/// As TOML writes it.
fn literal(arg: &Arg, value: &str) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return value.to_owned();
    }
    match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => Value::String(value.to_owned()).to_string(),
    }
}
