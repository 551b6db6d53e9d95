//! What an error of the client library means to a lock: [`Fault`].

use std::error::Error as _;
use std::sync::Arc;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::StoreError;

/// An error, and what to do about the connection that it came from.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) error: StoreError,
    pub(super) ran: Ran,
    pub(super) connection: Connection,
}

/// Whether the statement may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ran {
    No,
    Maybe,
}

/// Whether the connection is of further use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    Good,
    /// Another may lead to another server.
    Useless,
}

impl Fault {
    pub(super) fn of(error: &Error) -> Self {
        if let Some(said) = error.as_db_error() {
            return Self::said(said);
        }
        if error.is_closed() {
            let error = StoreError::Io("the server closed it".into());
            return Self { error, ran: Ran::Maybe, connection: Connection::Useless };
        }
        Self { error: StoreError::Io(text(error)), ran: Ran::Maybe, connection: Connection::Useless }
    }

    /// The server has answered an error. What it says of one statement alone undid that; when it ends the session, the
    /// statement may be committed already.
    fn said(said: &DbError) -> Self {
        let ends_session = !matches!(said.parsed_severity(), Some(Severity::Error));
        let class = said.code().code().get(..2).unwrap_or_default();
        let code = said.code();
        let useless = ends_session || matches!(class, "08" | "57" | "58" | "XX") && !is_of_statement(code);
        let error = meaning(said);
        let connection = match useless || error == StoreError::ReadOnly {
            true => Connection::Useless,
            false => Connection::Good,
        };
        Self { error, ran: if useless { Ran::Maybe } else { Ran::No }, connection }
    }

    /// The answer is not one of the statement's.
    pub(super) fn nonsense() -> Self {
        let error = StoreError::Protocol("not what the statement answers".into());
        Self { error, ran: Ran::Maybe, connection: Connection::Useless }
    }
}

/// It ended the statement, and nothing else: an administrator or a timeout cancelled it.
fn is_of_statement(code: &SqlState) -> bool {
    *code == SqlState::QUERY_CANCELED
}

fn meaning(said: &DbError) -> StoreError {
    let message: Arc<str> = said.message().into();
    match said.code() {
        code if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE => StoreError::Timeout,
        code if *code == SqlState::UNDEFINED_TABLE
            || *code == SqlState::UNDEFINED_FUNCTION
            || *code == SqlState::UNDEFINED_OBJECT
            || *code == SqlState::INVALID_SCHEMA_NAME =>
        {
            StoreError::Config(
                format!("{message}: create the table by `leasehold postgres init`, PostgresStore::init or its DDL")
                    .into(),
            )
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => StoreError::Config(message),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Denied(message),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly,
        code if *code == SqlState::CANNOT_CONNECT_NOW => StoreError::Loading,
        code if *code == SqlState::OUT_OF_MEMORY || *code == SqlState::DISK_FULL => StoreError::OutOfMemory,
        code if *code == SqlState::TOO_MANY_CONNECTIONS => StoreError::Unreachable(message),
        code if code.code().starts_with("28") => StoreError::Unauthenticated(message),
        code if code.code().starts_with("08") || code.code().starts_with("57") => StoreError::Io(message),
        _ => StoreError::Other(message),
    }
}

/// Why no connection came about.
pub(super) fn unconnected(error: &Error) -> StoreError {
    match error.as_db_error().map(meaning) {
        Some(StoreError::Io(why) | StoreError::Other(why)) => StoreError::Unreachable(why),
        Some(said) => said,
        None => StoreError::Unreachable(text(error)),
    }
}

/// The error and what it came from. Neither has a password in it.
fn text(error: &Error) -> Arc<str> {
    match error.source() {
        Some(source) => format!("{error}: {source}").into(),
        None => error.to_string().into(),
    }
}
