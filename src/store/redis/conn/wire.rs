//! One connection to one server, and how it is opened: [`Wire`], [`Opener`].
//!
//! A wire carries many commands at once, and its server answers them in order. It is never repaired: when it is in
//! doubt, its link opens another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::{Notify, mpsc};

use super::batch::{Batches, Batching};
use super::time::ServerClock;
use crate::clock::Clock;
use crate::store::redis::builder::RedisBuilder;
use crate::store::redis::fault::{Fault, Ran, Then};
use crate::store::redis::script::{Form, Reply, Script, ScriptArgs, read};
use crate::store::{StoreError, Warning};

/// The scripts use what came with this version.
const OLDEST: (u32, u32) = (6, 2);
/// So many commands may stand before the writing task.
const PIPELINE: usize = 1024;

/// A connection that is there to be used.
pub(in crate::store) struct Wire {
    /// Tells it from every other wire of the process.
    pub(in crate::store) id: u64,
    connection: MultiplexedConnection,
    pub(in crate::store) info: ConnectionInfo,
    /// Connections for those who must be alone on theirs (R24).
    pub(in crate::store) stock: Mutex<Vec<MultiplexedConnection>>,
    pub(in crate::store) clock: ServerClock,
    pub(in crate::store) warnings: Vec<Warning>,
    pub(in crate::store) doubt: Arc<Notify>,
    pub(in crate::store) process: Process,
    /// Calls that wait to go out together.
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

    /// Teaches the server a script before it is needed (R7).
    pub(in crate::store) async fn load(&self, script: &Script) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let teaching = script.teaching();
        teaching.exec_async(&mut connection).await.map_err(|error| Fault::of(&error).error)
    }

    /// Asks for another connection in the place of this one.
    pub(in crate::store) fn mark_broken(&self) {
        self.doubt.notify_one();
    }

    /// Runs a script for all of these at once, or for one if it takes no more.
    pub(in crate::store) async fn run(&self, script: &Script, asking: Asking, parts: &[ScriptArgs]) -> Replies {
        let mut connection = self.connection.clone();
        let mut form = Form::Hash;
        loop {
            let command = script.command(form, parts.iter());
            let answer = match asking {
                Asking::No => read(connection.send_packed_command(&command).await),
                Asking::Yes => ask(&mut connection, &command).await,
            };
            match answer {
                Ok(value) => return script.replies(value, parts.len()),
                Err(error) => match Fault::of(&error) {
                    // R7: it was not carried out.
                    fault if fault.then == Then::SendBody && form == Form::Hash => form = Form::Body,
                    fault => return Err(fault),
                },
            }
        }
    }

    /// Sends a script once, and hears its answer.
    pub(in crate::store) async fn send<'a>(
        &self,
        script: &Script,
        form: Form,
        parts: impl Iterator<Item = &'a ScriptArgs> + Clone,
    ) -> Result<Value, Fault> {
        let command = script.command(form, parts);
        let mut connection = self.connection.clone();
        read(connection.send_packed_command(&command).await).map_err(|error| Fault::of(&error))
    }

    /// Runs a script for one lock.
    pub(in crate::store) async fn run_one(
        &self,
        script: &Script,
        asking: Asking,
        parts: ScriptArgs,
    ) -> Result<Reply, Fault> {
        one(self.run(script, asking, &[parts]).await)
    }
}

/// What a script answers for each lock that it was run for, or why it does not.
pub(in crate::store) type Replies = Result<Vec<Result<Reply, Fault>>, Fault>;

/// The reply to the only one.
pub(in crate::store) fn one(replies: Replies) -> Result<Reply, Fault> {
    replies?.pop().ok_or_else(Fault::protocol_error)?
}

/// Whether the node has to be told that it is asked for a slot that is still moving to it.
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

/// What is needed to open wires.
#[derive(Clone)]
pub(in crate::store) struct Opener {
    connect_timeout: Duration,
    pub(in crate::store) operation_timeout: Duration,
    clock: Clock,
    batching: Batching,
}

impl Opener {
    pub(in crate::store) fn new(config: &RedisBuilder, batching: Batching) -> Self {
        let RedisBuilder { connect_timeout, operation_timeout, .. } = *config;
        Self { connect_timeout, operation_timeout, clock: Clock::system(), batching }
    }

    /// Connects to a server that may be written to.
    pub(in crate::store) async fn master(&self, info: &ConnectionInfo) -> Result<Wire, StoreError> {
        self.bounded(self.open_master(info)).await
    }

    /// Connects to anything, and passes on what it says by itself.
    pub(in crate::store) async fn listening(
        &self,
        info: &ConnectionInfo,
        pushes: mpsc::UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, StoreError> {
        self.bounded(self.connect(info, move |push| pushes.send(push))).await
    }

    /// Asks one Sentinel for the address of a master.
    pub(in crate::store) async fn master_of(
        &self,
        sentinel: &ConnectionInfo,
        name: &str,
    ) -> Result<(String, u16), StoreError> {
        let asking = async {
            let mut connection = self.connect(sentinel, |_| Ok::<_, ()>(())).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(name);
            let found: Option<(String, u16)> =
                command.query_async(&mut connection).await.map_err(|error| Fault::of(&error).error)?;
            found.ok_or_else(|| StoreError::Unreachable("the Sentinel does not know the master".into()))
        };
        self.bounded(asking).await
    }

    /// A plain connection, for a question or two.
    pub(in crate::store) async fn plain(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, StoreError> {
        self.bounded(self.connect(info, |_| Ok::<_, ()>(()))).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match tokio::time::timeout(self.connect_timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unreachable("no connection came about in time".into())),
        }
    }

    async fn connect<E>(
        &self,
        info: &ConnectionInfo,
        on_push: impl Fn(PushInfo) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, StoreError> {
        // No timeout of the library's (R23): it would need the caller's runtime, and ours bounds the whole call.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(PIPELINE)
            .set_push_sender(on_push);
        let client = Client::open(info.clone()).map_err(|error| Fault::of(&error).error)?;
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| match Fault::of(&error).error {
            StoreError::Io(text) => StoreError::Unreachable(text),
            other => other,
        })
    }

    async fn open_master(&self, info: &ConnectionInfo) -> Result<Wire, StoreError> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let doubt = Arc::new(Notify::new());
        let on_push = {
            let doubt = Arc::clone(&doubt);
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    doubt.notify_one();
                }
                Ok::<_, ()>(())
            }
        };
        let mut connection = self.connect(info, on_push).await?;
        let fail = |error| Fault::of(&error).error;
        let about = about(&mut connection, None).await.map_err(fail)?;
        let field = |name: &str| field(&about, name);
        fit(field("role"), field("loading"), field("redis_version"))?;
        let sent = self.clock.now();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.map_err(fail)?;
        let clock = ServerClock::new(sent, seconds.saturating_mul(1_000_000).saturating_add(micros));
        Ok(Wire {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            connection,
            info: info.clone(),
            stock: Mutex::default(),
            clock,
            warnings: eviction(field("maxmemory_policy")).into_iter().collect(),
            doubt,
            process: Process {
                run_id: run_id(field("run_id")),
                uptime: Duration::from_secs(field("uptime_in_seconds").parse().unwrap_or(0)),
            },
            batches: Batches::new(self.batching, self.operation_timeout),
        })
    }
}

/// What a server says of itself: a section of `INFO`, or all. A user may have no right to that (`-@dangerous`); then it is
/// as much of the same as `HELLO` tells.
pub(in crate::store) async fn about(
    connection: &mut MultiplexedConnection,
    section: Option<&str>,
) -> RedisResult<String> {
    let mut info = redis::cmd("INFO");
    info.arg(section);
    let refused = match info.query_async(connection).await {
        Err(error) if matches!(Fault::of(&error).error, StoreError::Denied(_)) => error,
        answer => return answer,
    };
    let mut hello = redis::cmd("HELLO");
    hello.arg(3);
    let answer: HashMap<String, Value> = hello.query_async(connection).await.map_err(|_| refused)?;
    let text = |name: &str| match answer.get(name) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::SimpleString(text)) => text.clone(),
        _ => String::new(),
    };
    let role = if text("role") == "replica" { "slave".to_owned() } else { text("role") };
    Ok(format!("redis_version:{}\r\nrole:{role}\r\n", text("version")))
}

/// One field of it; empty if it is not there.
pub(in crate::store) fn field<'a>(about: &'a str, name: &str) -> &'a str {
    about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// Whether a server can be used that says this of itself. One that hides its version has to be tried.
fn fit(role: &str, loading: &str, version: &str) -> Result<(), StoreError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    if let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        let why = format!("the server is Redis {version}, and 6.2 or later is needed");
        return Err(StoreError::Config(why.into()));
    }
    match (role, loading) {
        (_, "1") => Err(StoreError::Loading),
        ("slave", _) => Err(StoreError::ReadOnly),
        _ => Ok(()),
    }
}

/// A server that does not say is another one on each connection: it is taken neither for another server (L1) nor for one
/// that has not been started anew (L4).
fn run_id(said: &str) -> Box<str> {
    if said.is_empty() { format!("unknown-{}", uuid::Uuid::new_v4().simple()).into() } else { said.into() }
}

/// R22. A server that does not say has no such policy.
fn eviction(policy: &str) -> Option<Warning> {
    let harmless = policy.is_empty() || policy == "noeviction";
    (!harmless).then(|| Warning::Eviction { policy: policy.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_do_not_say_who_they_are_are_not_one() {
        assert_eq!(&*run_id("a1"), "a1");
        assert_ne!(run_id(""), run_id(""));
        assert!(!run_id("").contains(char::is_whitespace), "the marker of a quarantine is split there");
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_when_it_is_connected_to() {
        for (version, is_fit) in
            [("6.0.16", false), ("5.0.7", false), ("6.2.0", true), ("7.0.15", true), ("10.1", true)]
        {
            let answer = fit("master", "0", version);
            assert_eq!(answer.is_ok(), is_fit, "{version}: {answer:?}");
        }
        assert!(matches!(fit("master", "0", "6.0.16"), Err(StoreError::Config(why)) if why.contains("6.0.16")));
        for hidden in ["", "unstable", "7"] {
            assert_eq!(fit("master", "0", hidden), Ok(()), "{hidden}");
        }
        assert_eq!(fit("slave", "0", "7.0.0"), Err(StoreError::ReadOnly));
        assert_eq!(fit("slave", "1", "7.0.0"), Err(StoreError::Loading));
    }
}
