//! The bearer tokens of the server: from a file, or from the environment.

use std::env::VarError;

use leasehold::http::Access;

use crate::exit::Failure;
use crate::settings::ServeArgs;

/// Where the list itself may stand. Not a flag: others could read that in the list of processes.
const VARIABLE: &str = "LEASEHOLD_TOKENS";

/// Who may use the server; open to all if no tokens are given.
///
/// # Errors
/// `Usage` if the file cannot be read or the list makes no sense. It never quotes a token.
pub(crate) fn access(args: &ServeArgs) -> Result<Access, Failure> {
    let wrong = |place: &str, why: String| Failure::Usage(format!("{place}: {why}"));
    let given = match (&args.tokens_file, std::env::var(VARIABLE)) {
        (Some(path), _) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|why| wrong(&place, why.to_string()))?;
            Some((place, text))
        }
        (None, Ok(text)) => Some((VARIABLE.to_owned(), text)),
        (None, Err(VarError::NotPresent)) => None,
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
    if let Some(rate) = args.rate_limit {
        access = access.rate_limit(rate);
    }
    Ok(access)
}
