//! The connection that calls go through: [`Line`]. One multiplexed connection, made anew when it breaks.
//!
//! A task of the store's runtime keeps it. Calls only look at what is there: they wait while it is being made, and are
//! refused at once while the server cannot be reached. Nothing is sent twice by the connection itself (R5).

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::fault::{Fault, nonsense};
use super::time::{ServerClock, Ticks};
use crate::store::{StoreError, Warning};

/// How long after a failure the next connection is tried, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));
/// So many commands may wait to be written.
const BUFFER: usize = 1024;

/// A connection that works, as far as is known.
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) clock: ServerClock,
    number: u64,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(Arc<Link>),
    Down(StoreError),
    /// Not started, or stopped.
    Stopped,
}

/// What a call says about the connection that it used.
enum Trouble {
    /// It has ended.
    Broken(u64),
    /// A call waited in vain.
    Suspect(u64),
}

/// Where calls find the connection.
pub(super) struct Line {
    state: watch::Sender<State>,
    troubles: mpsc::UnboundedSender<Trouble>,
}

/// The keeping end of a line.
pub(super) struct LineKeeper {
    troubles: mpsc::UnboundedReceiver<Trouble>,
}

/// What a new connection is told about.
pub(super) struct News<'a> {
    pub(super) resumed: &'a (dyn Fn() + Send + Sync),
    pub(super) warned: &'a (dyn Fn(Option<Warning>) + Send + Sync),
}

impl Line {
    pub(super) fn new() -> (Self, LineKeeper) {
        let (sender, troubles) = mpsc::unbounded_channel();
        (Self { state: watch::Sender::new(State::Stopped), troubles: sender }, LineKeeper { troubles })
    }

    /// The connection, when there is one, or why there is none.
    pub(super) async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) => return Ok(Arc::clone(link)),
                State::Down(error) => return Err(error.clone()),
                State::Stopped => return Err(StoreError::NotRunning),
                State::Connecting => {}
            }
            if state.changed().await.is_err() {
                return Err(StoreError::NotRunning);
            }
        }
    }

    /// Waits for a connection, however long that takes.
    pub(super) async fn up(&self) -> Result<Arc<Link>, StoreError> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) => return Ok(Arc::clone(link)),
                State::Stopped => return Err(StoreError::NotRunning),
                State::Connecting | State::Down(_) => {}
            }
            if state.changed().await.is_err() {
                return Err(StoreError::NotRunning);
            }
        }
    }

    pub(super) fn broken(&self, link: &Link) {
        // Without its keeper the line is stopped.
        let _ = self.troubles.send(Trouble::Broken(link.number));
    }

    pub(super) fn suspect(&self, link: &Link) {
        let _ = self.troubles.send(Trouble::Suspect(link.number));
    }

    /// Calls wait for the first connection from here on.
    pub(super) fn open(&self) {
        self.state.send_replace(State::Connecting);
    }

    pub(super) fn close(&self) {
        self.state.send_replace(State::Stopped);
    }

    /// Keeps the line until the future is dropped.
    pub(super) async fn keep(
        &self,
        mut keeper: LineKeeper,
        client: &Client,
        ticks: &Ticks,
        limit: Duration,
        news: News<'_>,
    ) {
        let (mut number, mut pause, mut is_first) = (0, RETRY.0, true);
        loop {
            number += 1;
            let made = timeout(limit, self.connect(client, ticks, number)).await.unwrap_or(Err(StoreError::Timeout));
            match made {
                Ok((link, warning)) => {
                    pause = RETRY.0;
                    let connection = link.connection.clone();
                    self.state.send_replace(State::Up(Arc::new(link)));
                    (news.warned)(warning);
                    if !is_first {
                        (news.resumed)();
                    }
                    is_first = false;
                    keeper.until_broken(number, connection, limit).await;
                    self.state.send_replace(State::Connecting);
                }
                Err(error) => {
                    self.state.send_replace(State::Down(error));
                    sleep(pause.mul_f64(1.0 + fastrand::f64() * 0.25)).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn connect(
        &self,
        client: &Client,
        ticks: &Ticks,
        number: u64,
    ) -> Result<(Link, Option<Warning>), StoreError> {
        let troubles = self.troubles.clone();
        let on_push = move |push: PushInfo| match push.kind {
            PushKind::Disconnection => troubles.send(Trouble::Broken(number)),
            _ => Ok(()),
        };
        // No timeouts of its own: they would need the caller's runtime.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(BUFFER)
            .set_push_sender(on_push);
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(|e| unreachable(&e))?;
        let sent = ticks.now();
        let time: RedisResult<(i64, i64)> = redis::cmd("TIME").query_async(&mut connection).await;
        let (seconds, micros) = time.map_err(|e| unreachable(&e))?;
        let clock = ServerClock::new(sent, seconds * 1_000_000 + micros);
        // Servers that hide it are not warned about.
        let info: Option<String> = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.ok();
        let warning = info.and_then(|info| eviction(&info));
        Ok((Link { connection, clock, number }, warning))
    }
}

impl LineKeeper {
    /// Waits until the connection has ended, or does not answer.
    async fn until_broken(&mut self, number: u64, mut connection: MultiplexedConnection, limit: Duration) {
        while let Some(trouble) = self.troubles.recv().await {
            match trouble {
                Trouble::Broken(which) if which == number => return,
                Trouble::Suspect(which) if which == number => {
                    let ping: Result<RedisResult<()>, _> =
                        timeout(limit, redis::cmd("PING").query_async(&mut connection)).await;
                    if !matches!(ping, Ok(Ok(()))) {
                        return;
                    }
                }
                // About an earlier one.
                Trouble::Broken(_) | Trouble::Suspect(_) => {}
            }
        }
    }
}

/// Nothing was sent: whatever went wrong, the server was not reached.
fn unreachable(error: &redis::RedisError) -> StoreError {
    match Fault::of(error).error {
        StoreError::Io(text) | StoreError::Other(text) => StoreError::Unreachable(text),
        other => other,
    }
}

/// R22, as `INFO memory` tells it.
fn eviction(info: &str) -> Option<Warning> {
    let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
    (policy != "noeviction").then(|| Warning::Eviction { policy: policy.to_owned() })
}

/// How long the server takes to answer.
pub(super) async fn ping(link: &Link) -> Result<(), Fault> {
    let answer: RedisResult<String> = redis::cmd("PING").query_async(&mut link.connection.clone()).await;
    match answer {
        Ok(pong) if pong == "PONG" => Ok(()),
        Ok(_) => Err(Fault::unsent(nonsense("PING is answered with something else"))),
        Err(error) => Err(Fault::of(&error)),
    }
}
