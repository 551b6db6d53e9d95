//! One connection to one server: [`Wire`].
//!
//! A wire carries many commands at once, and its server answers them in order. It is never repaired: when it may be
//! broken, its link opens another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, FromRedisValue, RedisResult, Value};
use tokio::sync::Notify;

use super::batch::Batches;
use crate::store::redis::fault::{Fault, Ran, Then};
use crate::store::redis::script::{Form, Reply, Script, ScriptArgs, read};
use crate::store::time::ServerClock;
use crate::store::{StoreError, Warning};

/// An open connection.
pub(in crate::store) struct Wire {
    /// Different from that of every other wire of the process.
    pub(in crate::store) id: u64,
    pub(super) connection: MultiplexedConnection,
    pub(in crate::store) info: ConnectionInfo,
    /// Idle connections for calls that have one for themselves (R24).
    pub(in crate::store) spare: Mutex<Vec<MultiplexedConnection>>,
    pub(in crate::store) clock: ServerClock,
    pub(in crate::store) warnings: Vec<Warning>,
    /// Notified when the connection is broken, or may be: the link then opens another wire.
    pub(in crate::store) broken: Arc<Notify>,
    pub(in crate::store) process: Process,
    /// The calls that wait to go out together.
    pub(in crate::store) batches: Batches,
}

/// The server process at the other end.
pub(in crate::store) struct Process {
    /// Another one after every start.
    pub(in crate::store) run_id: Box<str>,
    /// When the wire was opened, in whole seconds.
    pub(in crate::store) uptime: Duration,
}

impl Wire {
    /// The connection itself, for a question or two.
    pub(in crate::store) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Asks whether the server is there.
    pub(in crate::store) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        redis::cmd("PING").exec_async(&mut connection).await.map_err(|error| Fault::of(&error).error)
    }

    /// One setting of the server; empty if it does not say.
    pub(in crate::store) async fn setting(&self, name: &str) -> Result<String, StoreError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let answer: RedisResult<HashMap<String, String>> = command.query_async(&mut connection).await;
        match answer.map_err(|error| Fault::of(&error)) {
            Ok(mut found) => Ok(found.remove(name).unwrap_or_default()),
            // It answered, and keeps its settings to itself.
            Err(Fault { ran: Ran::No, .. }) => Ok(String::new()),
            Err(fault) => Err(fault.error),
        }
    }

    /// Asks a question that changes nothing.
    pub(in crate::store) async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.map_err(|error| Fault::of(&error).error)
    }

    /// Asks several at once.
    pub(in crate::store) async fn query_all<T: FromRedisValue>(
        &self,
        commands: &redis::Pipeline,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        commands.query_async(&mut connection).await.map_err(|error| Fault::of(&error).error)
    }

    /// Loads a script into the server before it is needed (R7).
    pub(in crate::store) async fn load(&self, script: &Script) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        script.load_command().exec_async(&mut connection).await.map_err(|error| Fault::of(&error).error)
    }

    /// Asks for another connection in the place of this one.
    pub(in crate::store) fn mark_broken(&self) {
        self.broken.notify_one();
    }

    /// Runs a script for all of these at once, or for one if it takes no more.
    pub(in crate::store) async fn run(&self, script: &Script, asking: Asking, args: &[ScriptArgs]) -> Replies {
        let mut connection = self.connection.clone();
        let mut form = Form::Hash;
        loop {
            let command = script.command(form, args.iter());
            let answer = match asking {
                Asking::No => read(connection.send_packed_command(&command).await),
                Asking::Yes => ask(&mut connection, &command).await,
            };
            match answer {
                Ok(value) => return script.replies(value, args.len()),
                Err(error) => match Fault::of(&error) {
                    // R7: it was not carried out.
                    fault if fault.then == Then::SendBody && form == Form::Hash => form = Form::Body,
                    fault => return Err(fault),
                },
            }
        }
    }

    /// Sends a script once, and waits for its answer.
    pub(in crate::store) async fn send<'a>(
        &self,
        script: &Script,
        form: Form,
        args: impl Iterator<Item = &'a ScriptArgs> + Clone,
    ) -> Result<Value, Fault> {
        let command = script.command(form, args);
        let mut connection = self.connection.clone();
        read(connection.send_packed_command(&command).await).map_err(|error| Fault::of(&error))
    }

    /// Runs a script for one lock.
    pub(in crate::store) async fn run_one(
        &self,
        script: &Script,
        asking: Asking,
        args: ScriptArgs,
    ) -> Result<Reply, Fault> {
        one(self.run(script, asking, &[args]).await)
    }
}

/// What a script answers for each lock that it was run for, or why it does not.
pub(in crate::store) type Replies = Result<Vec<Result<Reply, Fault>>, Fault>;

/// The reply to the only one.
pub(in crate::store) fn one(replies: Replies) -> Result<Reply, Fault> {
    replies?.pop().ok_or_else(Fault::protocol_error)?
}

/// Whether the command is for a slot that is still moving to the node, which then needs an `ASKING` before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Asking {
    No,
    Yes,
}

async fn ask(connection: &mut MultiplexedConnection, command: &redis::Cmd) -> RedisResult<Value> {
    let mut pipe = redis::pipe();
    pipe.cmd("ASKING").add_command(command.clone());
    let values = connection.send_packed_commands(&pipe, 0, 2).await?;
    read(Ok(values.into_iter().nth(1).unwrap_or(Value::Nil)))
}
