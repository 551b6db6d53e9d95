//! Which locks a store keeps, with any holder: `SCAN` over its servers one after the other, some keys at a time.
//!
//! What `SCAN` promises holds for the whole: a key that is there from the first page to the last is in one of them, and
//! may be in two. A cluster that is rearranged meanwhile may hide some. Of a value no more than two letters leave the
//! server (R25).

use std::sync::Arc;
use std::time::Duration;

use super::{health, look};
use crate::key::Key;
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::inner::Inner;
use crate::store::{Holder, ScanPage, Scanned, StoreError};

/// How many keys of any kind the server looks at in one step: some hundred microseconds of its time.
const STEP: usize = 1000;
/// Steps of one page; a page of a server that has mostly other keys may be short, or empty.
const STEPS: usize = 20;

pub(in crate::store) async fn scan(
    inner: &Arc<Inner>,
    prefix: &str,
    cursor: Option<&str>,
    limit: usize,
) -> Result<ScanPage, StoreError> {
    let (mut server, mut from) = cursor.map_or(Ok((0, 0)), position)?;
    let pattern = pattern(inner, prefix);
    let mut links = inner.servers.links();
    if links.is_empty() {
        return Err(StoreError::Unreachable("no server of the cluster is known yet".into()));
    }
    links.sort_unstable_by_key(|link| link.name());
    let mut locks = Vec::new();
    for _ in 0..STEPS {
        let Some(link) = links.get(server) else { return Ok(ScanPage::new(locks, None)) };
        if locks.len() >= limit {
            break;
        }
        let step = async {
            let wire = link.wire().await?;
            step(inner, &wire, &pattern, from).await
        };
        let answered = inner.ticks.within(inner.now(), inner.config.operation_timeout, step).await;
        let (next, found) = answered.and_then(|answered| answered)?;
        locks.extend(found);
        from = next;
        server += usize::from(next == 0);
    }
    let next = (server < links.len()).then(|| format!("{server}:{from}"));
    Ok(ScanPage::new(locks, next))
}

fn position(cursor: &str) -> Result<(usize, u64), StoreError> {
    let read = || {
        let (server, from) = cursor.split_once(':')?;
        Some((server.parse().ok()?, from.parse().ok()?))
    };
    read().ok_or_else(|| StoreError::Config("the cursor is none of this store's".into()))
}

/// What names the locks have whose keys begin so.
fn pattern(inner: &Inner, prefix: &str) -> String {
    let template = &inner.config.template;
    let (before, after) = template.ends();
    let mut pattern = String::new();
    // A key that is spelt as a whole name is one.
    if before.is_empty() || !prefix.starts_with(before) {
        push_literal(&mut pattern, before);
    }
    push_literal(&mut pattern, prefix);
    pattern.push('*');
    push_literal(&mut pattern, after);
    pattern
}

fn push_literal(pattern: &mut String, text: &str) {
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
}

async fn step(inner: &Inner, wire: &Wire, pattern: &str, from: u64) -> Result<(u64, Vec<Scanned>), StoreError> {
    let mut command = redis::cmd("SCAN");
    command.arg(from).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP).arg("TYPE").arg("string");
    let (next, names): (u64, Vec<Vec<u8>>) = wire.query(&command).await?;
    let key_of = |name: Vec<u8>| {
        let name = String::from_utf8(name).ok().filter(|name| !name.starts_with(&*inner.config.side_keys))?;
        let key = inner.config.template.key_of(&name).filter(|key| *key != health::KEY)?;
        Some((Key::new(key).ok()?, name))
    };
    let found: Vec<(Key, String)> = names.into_iter().filter_map(key_of).collect();
    if found.is_empty() {
        return Ok((next, Vec::new()));
    }
    let mut asking = redis::pipe();
    for (_, name) in &found {
        asking.cmd("PTTL").arg(name);
        asking.cmd("STRLEN").arg(name);
        asking.cmd("GETRANGE").arg(name).arg(VERSION_AT).arg(VERSION_AT + 1);
    }
    let seen: Vec<redis::Value> = wire.query_all(&asking).await?;
    let scanned = found.into_iter().zip(seen.chunks(3)).filter_map(|((key, _), seen)| scanned(key, seen));
    Ok((next, scanned.collect()))
}

/// Where the digit of its version stands in a UUID.
const VERSION_AT: usize = 14;
/// What the value of a lock begins with that is shared (`marker.lua`).
const SHARED: &[u8] = b"leasehold-share:";
/// A UUID as text.
const UUID_LENGTH: i64 = 36;

/// One of the keys, of which the server has said its time, the length of its value and two letters of it. `None`: it
/// has ended meanwhile.
fn scanned(key: Key, seen: &[redis::Value]) -> Option<Scanned> {
    let [redis::Value::Int(left_ms), redis::Value::Int(length), redis::Value::BulkString(letters)] = seen else {
        return None;
    };
    let ends_in = match left_ms {
        -2 => return None,
        left_ms => u64::try_from(*left_ms).ok().map(Duration::from_millis),
    };
    let by = match letters[..] {
        // Two letters of the mark: whoever lists those who share it sees whether it is one.
        _ if letters[..] == SHARED[VERSION_AT..=VERSION_AT + 1] => Holder::Sharing,
        [b'8', digit] if *length == UUID_LENGTH => {
            look::claimed(char::from(digit).to_digit(16).map_or(-1, i64::from), ends_in)
        }
        _ => Holder::Other,
    };
    Some(Scanned::new(key, ends_in).held_by(by))
}
