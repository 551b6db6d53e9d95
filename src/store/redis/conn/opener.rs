//! Opens connections, within the connect timeout: [`Opener`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind};
use tokio::sync::{Notify, mpsc};

use super::batch::{Batches, Batching};
use super::server_info::{about, check, eviction, field, run_id};
use super::wire::{Process, Wire};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::redis::builder::RedisBuilder;
use crate::store::redis::fault::Fault;
use crate::store::time::ServerClock;

/// So many commands may wait for the task that writes.
const PIPELINE: usize = 1024;

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

    /// Connects to any server, and passes on what it says without being asked.
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

    /// A plain connection.
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
        let broken = Arc::new(Notify::new());
        let on_push = {
            let broken = Arc::clone(&broken);
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    broken.notify_one();
                }
                Ok::<_, ()>(())
            }
        };
        let mut connection = self.connect(info, on_push).await?;
        let fail = |error| Fault::of(&error).error;
        let about = about(&mut connection, None).await.map_err(fail)?;
        let field = |name: &str| field(&about, name);
        check(field("role"), field("loading"), field("redis_version"))?;
        let sent = self.clock.now();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.map_err(fail)?;
        let clock = ServerClock::new(sent, seconds.saturating_mul(1_000_000).saturating_add(micros));
        Ok(Wire {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            connection,
            info: info.clone(),
            spare: Mutex::default(),
            clock,
            warnings: eviction(field("maxmemory_policy")).into_iter().collect(),
            broken,
            process: Process {
                run_id: run_id(field("run_id")),
                uptime: Duration::from_secs(field("uptime_in_seconds").parse().unwrap_or(0)),
            },
            batches: Batches::new(self.batching, self.operation_timeout),
        })
    }
}
