//! Locks on one Redis server: [`RedisStore`].
//!
//! A lock is a plain string key with a TTL, as other lock libraries keep it, so that they and we exclude each other.
//! Each operation is one Lua script, in a file of its own beside the code that calls it. Calls share one multiplexed
//! connection, which the manager's runtime drives; another one listens. Sentinel, Cluster, TLS and `WAIT` are not
//! there. Redis ends keys by its wall clock (R11): a clock set on frees held locks, and the fence is what protects.

mod acquire;
mod call;
mod config;
mod ears;
mod extend;
mod fault;
mod force;
mod line;
mod look;
mod names;
mod release;
mod script;
mod tickets;
mod time;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use redis::Client;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::RedisBuilder;

use self::config::Settings;
use self::ears::{EarKeeper, Ears};
use self::line::{Line, LineKeeper, News};
use self::names::Names;
use self::release::Marks;
use self::tickets::Tickets;
use self::time::Ticks;
use super::{
    Acquired, Ask, BoxFuture, Events, Extended, Forced, Health, Lapsed, Released, Seen, Store, StoreError, Terms,
    Warning, Watch,
};
use crate::key::{Key, Token, Ttl};

/// Locks that hold across processes, on one Redis server.
///
/// ```no_run
/// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold::LockManager;
/// use leasehold::store::redis::RedisStore;
///
/// let store = RedisStore::new("redis://127.0.0.1:6379")?;
/// let locks = LockManager::builder().store(store).build_and_connect().await?;
/// # Ok(()) }
/// ```
pub struct RedisStore {
    shared: Arc<Shared>,
    /// Taken by the start.
    keepers: Mutex<Option<(LineKeeper, EarKeeper)>>,
}

/// What the store's calls and tasks share.
struct Shared {
    settings: Settings,
    terms: Terms,
    ticks: Arc<Ticks>,
    line: Line,
    ears: Arc<Ears>,
    marks: Marks,
    tickets: Tickets,
    highest_fence: AtomicU64,
    warning: Mutex<Option<Warning>>,
    runtime: OnceLock<Handle>,
    /// Releases and clean-ups, which a stop waits for.
    works: TaskTracker,
    stopped: CancellationToken,
}

impl RedisStore {
    /// A store on the server that a URL names, `redis://user:password@host:6379/0`, with default settings.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong with the URL.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build()
    }

    /// Starts to describe a store; see [`RedisBuilder`].
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }

    fn over(settings: Settings) -> Self {
        let (line, line_keeper) = Line::new();
        let (ears, ear_keeper) = Ears::new(settings.server.redis_settings().db());
        let mut terms = Terms::new(settings.operation_timeout);
        if !settings.lock_delay.is_zero() {
            terms.lapsed = Lapsed::Leave;
        }
        let shared = Shared {
            terms,
            ticks: Ticks::new(settings.operation_timeout),
            settings,
            line,
            ears,
            marks: Marks::default(),
            tickets: Tickets::default(),
            highest_fence: AtomicU64::new(0),
            warning: Mutex::default(),
            runtime: OnceLock::new(),
            works: TaskTracker::new(),
            stopped: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), keepers: Mutex::new(Some((line_keeper, ear_keeper))) }
    }
}

impl Shared {
    /// Has a piece of work done on the store's runtime. Without one, nothing was ever sent.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            self.works.spawn_on(work, runtime);
        }
    }

    fn warned(&self, warning: Option<Warning>) {
        if let (Some(warning), Some(hook)) = (&warning, &self.settings.on_warning) {
            hook(warning);
        }
        *self.warning.lock() = warning;
    }

    /// Keeps the connections until the store is stopped.
    async fn run(&self, client: Client, line: LineKeeper, ears: EarKeeper) {
        let limit = self.settings.operation_timeout;
        let news = News { resumed: &|| self.ears.resumed(), warned: &|warning| self.warned(warning) };
        let never_ending = async {
            tokio::join!(
                self.ticks.run(),
                self.line.keep(line, &client, &self.ticks, limit, news),
                self.ears.listen(ears, &client, limit),
                self.renew_tickets(),
            )
        };
        tokio::select! {
            () = self.stopped.cancelled() => {}
            _ = never_ending => {}
        }
        self.line.close();
        self.ears.close();
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.shared.settings.server.addr().to_string())
            .finish_non_exhaustive()
    }
}

impl Store for RedisStore {
    fn terms(&self) -> Terms {
        self.shared.terms
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        let invalid = |why| StoreError::InvalidKey { key: key.clone(), why };
        let whole = self.shared.settings.template.canonical(key).ok_or_else(|| invalid("its name is too long"))?;
        Names::refuse_reserved(whole.as_str()).map_err(invalid)?;
        Ok(whole)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            let shared = Arc::clone(&self.shared);
            let client = Client::open(shared.settings.server.clone());
            let client = client.map_err(|_| StoreError::Config("the server's address cannot be used".into()))?;
            let Some((line, ears)) = self.keepers.lock().take() else {
                return Err(StoreError::Config("a store is started once".into()));
            };
            let runtime = Handle::current();
            // Set once: the keepers are there once.
            let _ = shared.runtime.set(runtime.clone());
            shared.line.open();
            runtime.spawn(async move { shared.run(client, line, ears).await });
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Also when the wait is given up.
            let _stops = self.shared.stopped.clone().drop_guard();
            self.shared.works.close();
            self.shared.works.wait().await;
        })
    }

    fn acquire<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(self.shared.acquire(ask))
    }

    fn leave(&self, key: &Key) {
        self.shared.leave(key);
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(self.shared.extend(key, token, ttl))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        self.shared.release(key, token)
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(self.shared.force_release(key))
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Seen, StoreError>> {
        Box::pin(self.shared.look(key, token))
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(self.shared.watch(key))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(std::future::ready(self.shared.ears.events()))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(self.shared.health())
    }
}
