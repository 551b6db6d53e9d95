//! What the environment says: an empty variable is an unset one, a switch is `1` or `yes` as well as `true`, and what
//! looks like a setting and is none is an error.

use std::ffi::{OsStr, OsString};

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Command};

/// What all settings begin with.
const PREFIX: &str = "LEASEHOLD_";
/// The store's other name, which is asked for when it has none of its own.
const STORE: (&str, &str) = ("LEASEHOLD_STORE", "LOCK_STORE");
/// Read by hand, or given to the command of `run`: nobody's flag.
const WITHOUT_FLAG: [&str; 8] = [
    "LEASEHOLD_TOKENS",
    "LEASEHOLD_SERVER",
    "LEASEHOLD_TOKEN",
    "LEASEHOLD_KEY",
    "LEASEHOLD_KEYS",
    "LEASEHOLD_FENCING_TOKEN",
    "LEASEHOLD_DEADLINE",
    // Of who builds it, where that is done in the same environment.
    "LEASEHOLD_COMMIT",
];

/// What a variable is set to, unless that is nothing.
pub(crate) fn value(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A command that reads the environment so.
pub(crate) fn heeding(command: Command) -> Command {
    command.mut_args(heed).mut_subcommands(heeding)
}

fn heed(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    let Some(name) = arg.get_env().map(OsStr::to_owned) else { return arg };
    match value(&name) {
        Some(_) => arg,
        None if name == STORE.0 && value(STORE.1).is_some() => arg.env(STORE.1),
        // For the help it keeps its name.
        None if std::env::var_os(&name).is_none() => arg,
        None => arg.env(Resettable::Reset),
    }
}

/// What is wrong with a variable that looks like a setting of ours; nothing of its value.
pub(crate) fn unknown(command: &Command, set: impl Iterator<Item = (OsString, OsString)>) -> Option<String> {
    let mut known: Vec<String> = WITHOUT_FLAG.map(str::to_owned).to_vec();
    collect(command, &mut known);
    let set = set.filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok());
    let mut unknown = set.filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_service(name));
    let name = unknown.next()?;
    let alike = |known: &&String| (strsim::jaro_winkler(&name[PREFIX.len()..], &known[PREFIX.len()..]) * 1e6) as u64;
    let nearest = known.iter().filter(|known| known.starts_with(PREFIX)).max_by_key(alike);
    let nearest = nearest.map(|nearest| format!("; the nearest is {nearest}")).unwrap_or_default();
    Some(format!("there is no setting {name}{nearest}. Unset it, or give it another name"))
}

fn collect(command: &Command, known: &mut Vec<String>) {
    known.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// What Kubernetes tells every container of a service whose name begins with ours: `LEASEHOLD_SERVICE_HOST`,
/// `LEASEHOLD_REDIS_PORT_6379_TCP_ADDR`.
fn is_of_a_service(name: &str) -> bool {
    let name = &name[PREFIX.len() - 1..];
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit());
    let is_number = name.match_indices("_PORT").any(|(at, port)| {
        let rest = &name[at + port.len()..];
        is_port(rest.strip_prefix('_').unwrap_or(rest))
    });
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_number
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    fn wrong(name: &str, value: &str) -> Option<String> {
        unknown(&Cli::command(), [(name.into(), value.into())].into_iter())
    }

    #[test]
    fn a_misspelt_setting_is_told_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("LEASEHOLD_MAX_WAITER", "LEASEHOLD_MAX_WAITERS"),
            ("LEASEHOLD_TOKEN_FILES", "LEASEHOLD_TOKEN_FILE"),
            ("LEASEHOLD_LISTEN_ADDRESS", "LEASEHOLD_LISTEN"),
            ("LEASEHOLD_STORES", "LEASEHOLD_STORE"),
        ] {
            let why = wrong(name, "hunter2").unwrap();
            assert!(why.contains(name) && why.contains(&format!("{meant}.")) && !why.contains("hunter2"), "{why}");
            assert_eq!(wrong(name, ""), None, "empty is unset");
        }
        for name in ["LEASEHOLD_TTL", "LEASEHOLD_TOKENS", "LEASEHOLD_SERVER", "LEASEHOLD_DEADLINE", "PATH", "LEASE"] {
            assert_eq!(wrong(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_setting() {
        for name in [
            "LEASEHOLD_SERVICE_HOST",
            "LEASEHOLD_SERVICE_PORT_HTTP",
            "LEASEHOLD_PORT",
            "LEASEHOLD_PORT_7420_TCP",
            "LEASEHOLD_PORT_7420_TCP_ADDR",
            "LEASEHOLD_REDIS_PORT_6379_TCP_PROTO",
        ] {
            assert_eq!(wrong(name, "x"), None, "{name}");
        }
        assert!(wrong("LEASEHOLD_PORTAL", "x").is_some());
    }
}
