//! `--store`: where the locks of the server live.

use leasehold::store::redis::RedisStore;

use crate::exit::Failure;

/// What the `--store` of the command line names.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This process: its locks end with it.
    Memory,
    /// A Redis server, which other processes share.
    Redis(RedisStore),
}

/// Reads a choice. A URL may hold a password, so no refusal repeats it.
///
/// # Errors
/// `Usage` if it names no store, or one whose URL makes no sense.
pub(crate) fn choose(name: &str) -> Result<Choice, Failure> {
    match name {
        "memory" => Ok(Choice::Memory),
        "redis" => match std::env::var("REDIS_URL") {
            Ok(url) => redis(&url),
            Err(_) => Err(Failure::Usage("--store redis (LOCK_STORE): REDIS_URL must name the server".to_owned())),
        },
        url if url.contains("://") => redis(url),
        _ => Err(Failure::Usage(
            "--store (LOCK_STORE) must be `memory`, `redis://host:port`, or `redis` with REDIS_URL".to_owned(),
        )),
    }
}

fn redis(url: &str) -> Result<Choice, Failure> {
    let store = RedisStore::new(url).map_err(|why| Failure::Usage(format!("--store (LOCK_STORE): {why}")))?;
    Ok(Choice::Redis(store))
}
