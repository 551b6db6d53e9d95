//! What a server says of itself (`INFO`), and whether it can be used.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use crate::store::redis::fault::Fault;
use crate::store::{StoreError, Warning};

/// The scripts use what came with this version.
const OLDEST: (u32, u32) = (6, 2);

/// What a server says of itself: a section of `INFO`, or all. A user may have no right to that (`-@dangerous`); then it is
/// as much of the same as `HELLO` says.
pub(in crate::store) async fn about(
    connection: &mut MultiplexedConnection,
    section: Option<&str>,
) -> RedisResult<String> {
    let mut info = redis::cmd("INFO");
    info.arg(section);
    let refused = match info.query_async(connection).await {
        Err(error) if matches!(Fault::of(&error).error, StoreError::Denied(_)) => error,
        answer => return answer,
    };
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    let answer: HashMap<String, Value> = hello.query_async(connection).await.map_err(|_| refused)?;
    let text = |name: &str| match answer.get(name) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::SimpleString(text)) => text.clone(),
        _ => String::new(),
    };
    let role = if text("role") == "replica" { "slave".to_owned() } else { text("role") };
    Ok(format!("redis_version:{}\r\nrole:{role}\r\n", text("version")))
}

/// One field of it; empty if it is not there.
pub(in crate::store) fn field<'a>(about: &'a str, name: &str) -> &'a str {
    about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// Whether a server that says this of itself can be used. One that hides its version has to be tried.
pub(super) fn check(role: &str, loading: &str, version: &str) -> Result<(), StoreError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    if let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        let why = format!("the server is Redis {version}, and 6.2 or later is needed");
        return Err(StoreError::Config(why.into()));
    }
    match (role, loading) {
        (_, "1") => Err(StoreError::Loading),
        ("slave", _) => Err(StoreError::ReadOnly),
        _ => Ok(()),
    }
}

/// The server's run id. One that hides it gets another on each connection: it is taken neither for another server (L1) nor
/// for one that has not been started anew (L4).
pub(super) fn run_id(answer: &str) -> Box<str> {
    if answer.is_empty() { format!("unknown-{}", uuid::Uuid::new_v4().simple()).into() } else { answer.into() }
}

/// A warning if the server may evict locks (R22). A server that does not say is taken for one that does not.
pub(super) fn eviction(policy: &str) -> Option<Warning> {
    let harmless = policy.is_empty() || policy == "noeviction";
    (!harmless).then(|| Warning::Eviction { policy: policy.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_do_not_say_who_they_are_are_not_one() {
        assert_eq!(&*run_id("a1"), "a1");
        assert_ne!(run_id(""), run_id(""));
        assert!(!run_id("").contains(char::is_whitespace), "the marker of a quarantine is split there");
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_when_it_is_connected_to() {
        for (version, is_fit) in
            [("6.0.16", false), ("5.0.7", false), ("6.2.0", true), ("7.0.15", true), ("10.1", true)]
        {
            let answer = check("master", "0", version);
            assert_eq!(answer.is_ok(), is_fit, "{version}: {answer:?}");
        }
        assert!(matches!(check("master", "0", "6.0.16"), Err(StoreError::Config(why)) if why.contains("6.0.16")));
        for hidden in ["", "unstable", "7"] {
            assert_eq!(check("master", "0", hidden), Ok(()), "{hidden}");
        }
        assert_eq!(check("slave", "0", "7.0.0"), Err(StoreError::ReadOnly));
        assert_eq!(check("slave", "1", "7.0.0"), Err(StoreError::Loading));
    }
}
