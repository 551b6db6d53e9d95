//! Grants that replicas have confirmed (`WAIT`, R24).
//!
//! `WAIT` blocks its connection and counts the writes of that connection only. So the script and the `WAIT` go out in
//! one piece, on a wire that carries nothing else meanwhile; it comes from a small stock that belongs to the shared
//! wire, and is thrown away when the call is dropped.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;

use super::Inner;
use super::conn::wire::{Asking, Wire, one};
use super::fault::Fault;
use super::millis;
use super::script::{Form, Reply, Script, ScriptArgs, read};
use crate::store::StoreError;

/// So many idle connections are kept.
const STOCK: usize = 16;

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
    parts: ScriptArgs,
) -> Result<(Reply, Confirmed), Fault> {
    let mut connection = exclusive(inner, wire).await.map_err(Fault::unsent)?;
    // Inside a pipeline a script goes out whole (R7): what comes after it would not wait for a second try.
    let mut pipe = redis::pipe();
    if asking == Asking::Yes {
        pipe.cmd("ASKING");
    }
    let before = pipe.len();
    pipe.add_command(script.command(Form::Body, std::iter::once(&parts)))
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
    if let Some(connection) = wire.stock.lock().pop() {
        return Ok(connection);
    }
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (opener, info) = (inner.opener.clone(), wire.info.clone());
    // It lives on the store's runtime, whoever waits for it; if nobody does any more, it is for the next.
    let (tell, opened) = oneshot::channel();
    let wire = Arc::downgrade(wire);
    runtime.spawn(async move {
        if let Err(Ok(connection)) = tell.send(opener.plain(&info).await)
            && let Some(wire) = wire.upgrade()
        {
            keep(&wire, connection);
        }
    });
    opened.await.unwrap_or(Err(StoreError::NotRunning))
}

fn keep(wire: &Wire, connection: MultiplexedConnection) {
    let mut stock = wire.stock.lock();
    if stock.len() < STOCK {
        stock.push(connection);
    }
}
