//! A file with settings: TOML whose names are those of the flags.
//!
//! It is read by making flags of it, so that a file is checked like the command line, and there is one list of settings.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// The settings of a command, each with a flag.
pub(crate) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| !["help", "version", "config"].contains(&long)))
}

/// The flags that a file stands for, those apart that the environment names.
///
/// # Errors
/// What is wrong with the file, in one line that quotes no value: it may be a password.
pub(crate) fn flags(
    text: &str,
    command: &Command,
    in_environment: impl Fn(&OsStr) -> bool,
) -> Result<Vec<OsString>, String> {
    // The error's own text would quote the line.
    let table: Table = text.parse().map_err(|why: toml::de::Error| one_line(why.message()))?;
    let mut flags = Vec::new();
    for (name, value) in &table {
        let arg = settings(command).find(|arg| arg.get_long() == Some(name));
        let arg = arg.ok_or_else(|| format!("there is no setting `{}`", one_line(name)))?;
        if arg.get_env().is_some_and(&in_environment) {
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
            _ if switch => return Err(format!("`{name}` must be true or false")),
            _ => return Err(format!("`{name}` must be a text or a whole number")),
        };
        flags.push(format!("--{name}={text}").into());
    }
    Ok(flags)
}

/// What a flag out of a file was refused for, in one line, however many the value has.
pub(crate) fn refusal(why: &clap::Error) -> String {
    let said = why.render().to_string();
    let said = said.rsplit_once("\n\nFor more information").map_or(&*said, |(said, _)| said);
    let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
    one_line(&words.join(" "))
}

fn one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
