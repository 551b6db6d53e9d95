//! The store in a directory of the server's own: `--store file:DIR`, or `--data DIR`.

use std::time::Duration;

use leasehold::store::file::{Durability, FileStore};

use super::{Choice, StoreArgs, given, refusal};

/// What the name of a directory begins with.
pub(super) const SCHEME: &str = "file:";

/// How often a relaxed store commits when nobody says.
const RELAXED: Duration = Duration::from_millis(50);

pub(super) fn choose(name: &str, _: Duration, args: &StoreArgs) -> Result<Choice, String> {
    let dir = name.strip_prefix(SCHEME).filter(|dir| !dir.is_empty()).ok_or("--store file: it names no directory")?;
    if args.reuses_claims() {
        return Err("--claim-reuse: locks in a directory are this server's anyway; it goes with `redis`".to_owned());
    }
    let builder =
        FileStore::builder(dir).durability(args.durability.map_or(Durability::Synced, |durability| durability.0));
    given!(builder; operation_timeout(args.store_timeout))
        .build()
        .map(|store| Choice::Own(Box::new(store)))
        .map_err(refusal)
}

/// The value of `--durability`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurabilityName(Durability);

impl DurabilityName {
    /// Reads `synced`, `relaxed` or `relaxed:TIME`.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let every = match text.split_once(':') {
            None if text == "synced" => return Ok(Self(Durability::Synced)),
            None if text == "relaxed" => RELAXED,
            Some(("relaxed", time)) => super::super::time(time)?,
            _ => return Err("it is `synced`, `relaxed` or `relaxed:TIME`, as in relaxed:20ms".to_owned()),
        };
        Ok(Self(Durability::Relaxed { every }))
    }
}
