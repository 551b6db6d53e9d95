//! The bearer tokens of the server: from a file, or from the environment.

use std::env::VarError;
use std::path::Path;

use leasehold::Key;
use leasehold::http::{Access, Quotas, ReloadableAccess};

use crate::environment;
use crate::exit::Failure;
use crate::settings::ServeArgs;

/// No more can be declared.
const MOST_NAMESPACES: usize = 32;
/// Where the list itself may stand. Not a flag: others could read that in the list of processes.
const VARIABLE: &str = "LEASEHOLD_TOKENS";
/// Of the flag.
const FILE_VARIABLE: &str = "LEASEHOLD_TOKENS_FILE";

/// Who may use the server; open to all if no tokens are given.
///
/// # Errors
/// `Usage` if the file cannot be read or the list makes no sense. It never quotes a token.
pub(crate) fn access(args: &ServeArgs) -> Result<Access, Failure> {
    let wrong = |place: &str, why: String| Failure::Usage(format!("{place}: {why}"));
    let given = match (&args.tokens_file, std::env::var(VARIABLE)) {
        (Some(path), _) => {
            warn_if_others_read(path);
            Some((path.display().to_string(), read(path)?))
        }
        (None, Ok(text)) => Some((VARIABLE.to_owned(), text)),
        (None, Err(VarError::NotPresent)) => {
            none_was_meant()?;
            None
        }
        (None, Err(VarError::NotUnicode(_))) => return Err(wrong(VARIABLE, "it is not UTF-8".to_owned())),
    };
    let mut access = match given {
        Some((place, text)) => Access::from_json(&text).map_err(|why| wrong(&place, why.to_string()))?,
        None => Access::open(),
    };
    if let Some(list) = &args.trusted_proxies {
        access = access.trust_proxies(list).map_err(|why| wrong("--trusted-proxies", why.to_string()))?;
    }
    if let Some(list) = &args.allowed_hosts {
        access = access.allow_hosts(list).map_err(|why| wrong("--allowed-hosts", why.to_string()))?;
    }
    if args.open_stats {
        access = access.open_stats();
    }
    let tokens = access.tokens();
    access = access.quotas(quotas(args, tokens));
    if let Some(rate) = args.rate_limit {
        access = access.rate_limit(rate);
    }
    Ok(access)
}

/// Refuses to let everybody in where somebody has tried to say who may come.
fn none_was_meant() -> Result<(), Failure> {
    let wrong = |why: String| Err(Failure::Usage(format!("{why}; unset it to serve without tokens")));
    if std::env::var_os(FILE_VARIABLE).is_some_and(|value| value.is_empty()) {
        return wrong(format!("{FILE_VARIABLE} is empty"));
    }
    for theirs in ["LEASEHOLD_TOKEN_FILE", "LEASEHOLD_TOKEN"] {
        if environment::value(theirs).is_some() {
            return wrong(format!("{theirs} is for clients, the server's own tokens are in {FILE_VARIABLE}"));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))
}

/// Reads the file again.
///
/// # Errors
/// As for [`access`]; the tokens that there were stay good then.
pub(crate) fn reload(path: &Path, access: &ReloadableAccess) -> Result<(), Failure> {
    let new = access.current().with_tokens(&read(path)?);
    access.replace(new.map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))?);
    Ok(())
}

/// Tells of a file with secrets that everybody on this machine may read.
pub(crate) fn warn_if_others_read(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_or(0, |about| about.permissions().mode());
        if mode & 0o004 != 0 {
            tracing::warn!(file = %path.display(), "everybody on this machine can read this file, which holds secrets");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// What one of so many tokens may have. Where there are several, none of them can take all: a quarter is for the others.
fn quotas(args: &ServeArgs, tokens: usize) -> Quotas {
    let part = |own: Option<u32>, all: usize| {
        let most = if tokens > 1 { all - all / 4 } else { all };
        own.unwrap_or_else(|| u32::try_from(most).unwrap_or(u32::MAX))
    };
    Quotas::new()
        .max_locks(part(args.token_max_locks, args.max_keys))
        .max_sessions(part(args.token_max_sessions, args.max_sessions))
        .max_waiters(part(args.token_max_waiters, args.max_waiters))
        .max_streams(part(args.token_max_streams, args.max_streams))
}

/// The prefixes that are counted apart: those that were asked for, and as there is room those that tokens are bound to.
pub(crate) fn namespaces(args: &ServeArgs, access: &Access) -> Vec<String> {
    let mut all: Vec<String> = args.namespaces.iter().flat_map(|namespaces| &namespaces.0).cloned().collect();
    for namespace in access.namespaces() {
        let is_good = namespace != "other" && Key::try_from(namespace.as_str()).is_ok();
        if all.len() < MOST_NAMESPACES && is_good && !all.contains(&namespace) {
            all.push(namespace);
        }
    }
    all
}
