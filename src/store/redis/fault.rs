//! What an error of the client library means to a lock: [`Fault`].

use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// An error, and what to do about the connection that it came from.
#[derive(Clone, Debug)]
pub(in crate::store) struct Fault {
    pub(in crate::store) error: StoreError,
    pub(in crate::store) ran: Ran,
    pub(in crate::store) then: Then,
}

/// Whether the command may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Ran {
    No,
    /// It was not: its slot is moving, and its keys are on two nodes (`moving`).
    Split,
    Maybe,
}

/// What helps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum Then {
    Nothing,
    /// Another connection, perhaps to another server (R21).
    Reconnect,
    /// The whole script: the server does not know it by its hash (R7).
    SendBody,
    /// The node that has the slot now.
    Moved(Arc<str>),
    /// The node that the slot is moving to, once.
    Ask(Arc<str>),
    /// A fresh look at who serves what.
    Rediscover,
}

impl Fault {
    pub(in crate::store) fn of(error: &RedisError) -> Self {
        use ServerErrorKind as Server;
        let text = || -> Arc<str> { error.to_string().into() };
        let address = || error.redirect_node().map(|(address, _)| Arc::from(address));
        let (error, ran, then) = match error.kind() {
            ErrorKind::Server(Server::NoScript) => (StoreError::Other(text()), Ran::No, Then::SendBody),
            ErrorKind::Server(Server::Moved) => {
                (StoreError::Cluster(text()), Ran::No, address().map_or(Then::Rediscover, Then::Moved))
            }
            ErrorKind::Server(Server::Ask) => {
                (StoreError::Cluster(text()), Ran::No, address().map_or(Then::Rediscover, Then::Ask))
            }
            // The map does not change before the slot has moved, and then it is the node that says so.
            ErrorKind::Server(Server::TryAgain) => (StoreError::Cluster(text()), Ran::Split, Then::Nothing),
            ErrorKind::Server(Server::ClusterDown) => (StoreError::Cluster(text()), Ran::No, Then::Rediscover),
            ErrorKind::Server(Server::ReadOnly | Server::MasterDown) => {
                (StoreError::ReadOnly, Ran::No, Then::Reconnect)
            }
            ErrorKind::Server(Server::BusyLoading) => (StoreError::Loading, Ran::No, Then::Reconnect),
            ErrorKind::Server(Server::NoPerm) => (StoreError::Denied(text()), Ran::No, Then::Nothing),
            ErrorKind::AuthenticationFailed => (StoreError::Unauthenticated(text()), Ran::No, Then::Reconnect),
            ErrorKind::Server(_) | ErrorKind::Extension => by_text(error),
            ErrorKind::Io => (StoreError::Io(text()), Ran::Maybe, Then::Reconnect),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                (StoreError::Protocol(text()), Ran::Maybe, Then::Reconnect)
            }
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
                (StoreError::Config(text()), Ran::No, Then::Nothing)
            }
            _ => (StoreError::Other(text()), Ran::Maybe, Then::Nothing),
        };
        Self { error, ran, then }
    }

    /// The answer is not one of the script's.
    pub(in crate::store) fn protocol_error() -> Self {
        Self { error: protocol_error("not what the script answers"), ran: Ran::Maybe, then: Then::Reconnect }
    }

    /// There was nothing to send it to.
    pub(super) fn unsent(error: StoreError) -> Self {
        Self { error, ran: Ran::No, then: Then::Nothing }
    }
}

/// Servers before 7.0 wrap what a command inside a script answered into a text of their own.
fn by_text(error: &RedisError) -> (StoreError, Ran, Then) {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    let is = |name: &str| code == name || detail.contains(&format!("-{name} "));
    if is("OOM") {
        (StoreError::OutOfMemory, Ran::No, Then::Nothing)
    } else if is("READONLY") || is("MASTERDOWN") {
        (StoreError::ReadOnly, Ran::No, Then::Reconnect)
    } else if is("NOREPLICAS") {
        // Behind Sentinels another may be the master by now.
        (StoreError::TooFewReplicas, Ran::No, Then::Rediscover)
    } else if is("MISCONF") {
        (StoreError::CannotSave(error.to_string().into()), Ran::No, Then::Nothing)
    } else if is("BUSY") {
        (StoreError::Busy, Ran::No, Then::Nothing)
    } else if is("LOADING") {
        (StoreError::Loading, Ran::No, Then::Reconnect)
    } else if is("NOAUTH") || is("WRONGPASS") {
        (StoreError::Unauthenticated(error.to_string().into()), Ran::No, Then::Reconnect)
    } else if is("NOPERM") || detail.contains("The user executing the script can't") {
        (StoreError::Denied(error.to_string().into()), Ran::No, Then::Nothing)
    } else {
        (StoreError::Other(error.to_string().into()), Ran::No, Then::Nothing)
    }
}

/// The text of an answer that makes no sense.
pub(in crate::store) fn protocol_error(what: &str) -> StoreError {
    StoreError::Protocol(what.into())
}
