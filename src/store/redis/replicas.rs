//! Grants that replicas have confirmed (`WAIT`, R24).
//!
//! `WAIT` blocks its connection and counts the writes of that connection only. So the script and the `WAIT` go out in
//! one piece, on a wire that carries nothing else meanwhile; it comes from the spare connections of the
//! shared wire, and is closed when the call is dropped.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;

use super::conn::wire::{Asking, Wire, one};
use super::fault::Fault;
use super::inner::Inner;
use super::script::{Form, Reply, Script, ScriptArgs, millis, read};
use crate::store::StoreError;

/// So many idle connections are kept.
const SPARE: usize = 16;

/// Whether enough replicas have the write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Confirmed {
    /// As many as were asked for; or none was asked for.
    Enough,
    /// The write may be forgotten in a failover.
    TooFew,
}

/// Runs a script and waits for the replicas.
pub(super) async fn run(
    inner: &Inner,
    wire: &Arc<Wire>,
    script: &Script,
    asking: Asking,
    args: ScriptArgs,
) -> Result<(Reply, Confirmed), Fault> {
    let mut connection = exclusive(inner, wire).await.map_err(Fault::unsent)?;
    // Inside a pipeline a script goes out whole (R7): what comes after it would not wait for a second try.
    let mut pipe = redis::pipe();
    if asking == Asking::Yes {
        pipe.cmd("ASKING");
    }
    let before = pipe.len();
    pipe.add_command(script.command(Form::Body, std::iter::once(&args)))
        .cmd("WAIT")
        .arg(inner.config.replicas)
        .arg(millis(inner.config.operation_timeout / 2));
    let values = connection.send_packed_commands(&pipe, before, 2).await.map_err(|error| Fault::of(&error))?;
    let mut values = values.into_iter();
    let answer = read(Ok(values.next().unwrap_or(redis::Value::Nil))).map_err(|error| Fault::of(&error))?;
    let confirmed = match values.next() {
        Some(redis::Value::Int(replicas)) if replicas >= i64::from(inner.config.replicas) => Confirmed::Enough,
        _ => Confirmed::TooFew,
    };
    let reply = one(script.replies(answer, 1))?;
    keep(wire, connection);
    Ok((reply, confirmed))
}

async fn exclusive(inner: &Inner, wire: &Arc<Wire>) -> Result<MultiplexedConnection, StoreError> {
    if let Some(connection) = wire.spare.lock().pop() {
        return Ok(connection);
    }
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (opener, info) = (inner.opener.clone(), wire.info.clone());
    // It is opened on the store's runtime. If its caller is gone by then, it is kept for the next.
    let (sender, opened) = oneshot::channel();
    let wire = Arc::downgrade(wire);
    runtime.spawn(async move {
        if let Err(Ok(connection)) = sender.send(opener.plain(&info).await)
            && let Some(wire) = wire.upgrade()
        {
            keep(&wire, connection);
        }
    });
    opened.await.unwrap_or(Err(StoreError::NotRunning))
}

fn keep(wire: &Wire, connection: MultiplexedConnection) {
    let mut spare = wire.spare.lock();
    if spare.len() < SPARE {
        spare.push(connection);
    }
}
