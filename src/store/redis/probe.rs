//! The parsers of this room, for tests that feed them with anything.
//!
//! No part of the crate's face: it is there under `test-util` only, and may change at any time.

use redis::{ConnectionInfo, PushInfo, Value};

use super::RedisBuilder;
use super::RedisStore;
use super::conn::cluster::ranges;
use super::conn::url::Place;
use super::keys::{self, KeyNames};
use super::pubsub::subscription::Push;
use super::script::{self, Reply};
use crate::key::Key;
use crate::store::{KeyTemplate, StoreError};

/// The names of a lock: its own, then those that stand beside it.
///
/// # Errors
/// The lock would have such a name itself.
pub fn names_of(template: &KeyTemplate, key: &Key) -> Result<[String; 5], StoreError> {
    let names = KeyNames::new(template, keys::SIDE_KEYS, key)?;
    Ok([names.lock(), names.fence(), names.queue(), names.tickets(), names.wake()].map(str::to_owned))
}

/// The slot of a name in a Cluster.
#[must_use]
pub fn slot_of(name: &[u8]) -> u16 {
    keys::slot_of(name)
}

/// The numbers that a script answered: for one lock, or for each of several.
///
/// # Errors
/// The answer as a whole, or that for one of the locks, is none of a script's.
pub fn replies(answer: Value, locks: Option<usize>) -> Result<Vec<Result<Vec<i64>, StoreError>>, StoreError> {
    let script = if locks.is_some() { &*script::ACQUIRE } else { &*script::LOOK };
    let numbers = |reply: Reply| [&[reply.code(), reply.server_us()], reply.rest()].concat();
    let replies = script.replies(answer, locks.unwrap_or(1)).map_err(|fault| fault.error)?;
    Ok(replies.into_iter().map(|reply| reply.map(numbers).map_err(|fault| fault.error)).collect())
}

/// Ranges of slots and the addresses of who has them, from the answer to `CLUSTER SLOTS` of a node on this host.
#[must_use]
pub fn slots(answer: &Value, asked: &str) -> Option<Vec<(u16, u16, String)>> {
    let ranges = ranges(answer, asked)?.into_iter();
    Some(ranges.map(|range| (range.from, range.to, range.master.into_string())).collect())
}

/// What is made of something that the server says by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The connection is gone.
    Gone,
    /// Of a channel.
    Message(Box<str>, Box<str>),
    /// Keys that may have changed.
    Changed(Vec<Box<str>>),
    /// All keys may have.
    Flushed,
    /// Nothing.
    Nothing,
}

/// Reads what a server says by itself.
#[must_use]
pub fn heard(push: PushInfo) -> Heard {
    match Push::of(push) {
        Push::Gone => Heard::Gone,
        Push::Message { channel, text } => Heard::Message(channel, text),
        Push::Changed(keys) => Heard::Changed(keys),
        Push::Flushed => Heard::Flushed,
        Push::Nothing => Heard::Nothing,
    }
}

/// The connections that a URL stands for, and the name of the master where Sentinels know it.
///
/// # Errors
/// As for [`RedisBuilder::build`].
pub fn place(url: &str) -> Result<(Vec<ConnectionInfo>, Option<String>), StoreError> {
    let builder: RedisBuilder = RedisStore::builder(url);
    match builder.place? {
        Place::Server(info) => Ok((vec![info], None)),
        Place::Sentinel { mut sentinels, master, like } => {
            sentinels.push(like);
            Ok((sentinels, Some((*master).to_owned())))
        }
        Place::Cluster(nodes) => Ok((nodes, None)),
    }
}
