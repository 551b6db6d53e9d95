//! What processes tell each other (S18): `board.lua`, a hash at one name for all locks of a template, so that a name on it
//! means one lock.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use crate::clock::Moment;
use crate::store::redis::call::{TOO_LATE, follow};
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::fault::{Fault, Then, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{BOARD, Form, ScriptArgs, millis};
use crate::store::{Board, Post, StoreError};

/// The longest life of a post; the script forgets the board after twice that.
const LONGEST: Duration = Duration::from_secs(30);
/// The most that one answer holds, in bytes.
const MOST: usize = 256 << 10;

pub(in crate::store) async fn put_up(inner: &Arc<Inner>, post: Post<'_>) -> Result<Board, StoreError> {
    if !inner.is_running() {
        return Err(StoreError::NotRunning);
    }
    let begun = inner.now();
    let asking = ask(inner, post, begun);
    inner.ticks.within(begun, inner.config.operation_timeout, asking).await?
}

async fn ask(inner: &Inner, post: Post<'_>, begun: Moment) -> Result<Board, StoreError> {
    let (before, after) = inner.config.template.ends();
    let names = KeyNames::alone(&format!("{}board:{before}{{key}}{after}", inner.config.side_keys));
    let wire = inner.servers.of(|| names.slot()).await?.wire().await?;
    // A late one would stand in the place of a newer post.
    let not_after = wire.clock.at(begun, inner.config.operation_timeout);
    let args = ScriptArgs::of([names.lock()]).arg(format_args!("{:016x}", post.process)).text(post.text);
    let args = args.arg(millis(post.life.min(LONGEST))).arg(not_after).arg(MOST);
    match run(&wire, &args).await {
        Ok(answer) => read(answer).unwrap_or_else(|| Err(protocol_error("no board"))),
        Err(fault) => {
            // For the next call: this one is not made twice.
            let _ = follow(inner, &wire, &fault);
            Err(fault.error)
        }
    }
}

async fn run(wire: &Wire, args: &ScriptArgs) -> Result<Value, Fault> {
    match wire.send(&BOARD, Form::Hash, std::iter::once(args)).await {
        Err(Fault { then: Then::SendBody, .. }) => wire.send(&BOARD, Form::Body, std::iter::once(args)).await,
        answer => answer,
    }
}

/// The number, how many posts are left out, and two values of each post. What others have written there, and is none, is
/// skipped.
fn read(answer: Value) -> Option<Result<Board, StoreError>> {
    let Value::Array(values) = answer else { return None };
    let (&[Value::Int(code), Value::Int(number)], rest) = values.split_first_chunk()? else { return None };
    if code == TOO_LATE {
        return Some(Err(StoreError::Timeout));
    }
    let (Value::Int(left_out), posts) = rest.split_first()? else { return None };
    let post = |post: &[Value]| {
        let [Value::BulkString(process), Value::BulkString(text)] = post else { return None };
        let process = u64::from_str_radix(str::from_utf8(process).ok()?, 16).ok()?;
        Some((process, String::from_utf8(text.clone()).ok()?))
    };
    let posts = posts.chunks(2).filter_map(post).collect();
    let board = Board::new(u64::try_from(number).ok()?, posts);
    Some(Ok(board.left_out(usize::try_from(*left_out).ok()?)))
}
