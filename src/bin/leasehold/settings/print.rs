//! The settings as a file that says the same: what `leasehold config print` prints.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Value;

use super::file::settings;

/// One line for each setting of `command`, with where it comes from. A store with a password is not shown.
pub(crate) fn printed(command: &Command, given: &ArgMatches, from_file: &[OsString]) -> String {
    let mut text = String::new();
    for arg in settings(command) {
        let name = arg.get_long().unwrap_or_default();
        let (value, source) = effective(arg, given, from_file);
        let line = match (value, name) {
            (None, _) => format!("# {name} =  # not set\n"),
            // A URL may hold a password; what is printed is read by others.
            (Some(store), "store" | "store-listen-url") if store.contains('@') => {
                format!("# {name} =  # {source}; not shown: it has a password\n")
            }
            (Some(_), name) if name.ends_with("password") => format!("# {name} =  # {source}; not shown\n"),
            (Some(value), _) => format!("{name} = {}  # {source}\n", literal(arg, &value)),
        };
        text.push_str(&line);
    }
    text
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
        // A text may look like a number that would be written in another way: `007`.
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => Value::String(value.to_owned()).to_string(),
    }
}
