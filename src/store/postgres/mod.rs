//! Locks in a table of PostgreSQL: [`PostgresStore`]. For those who have PostgreSQL and no Redis.
//!
//! ```no_run
//! use leasehold::LockManager;
//! use leasehold::store::postgres::PostgresStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::new("postgres://app:password@db.example/shop?sslmode=verify-full")?;
//! store.init().await?; // once; or by a migration, with the text of `ddl`
//! let locks = LockManager::builder().store(store).build()?;
//! # Ok(()) }
//! ```
//!
//! Each call is one statement, a transaction of its own: it locks the row of its key, decides by the server's clock, and
//! commits. No session holds anything between two calls, and no session-level advisory lock is used: a proxy that pools
//! transactions would leave such a lock with whoever has the connection next.
//!
//! # The table
//!
//! [`init`](PostgresStore::init) or `leasehold postgres init` creates it, with some functions in PL/pgSQL that work on it;
//! [`ddl`](PostgresStore::ddl) is the text for a migration tool. A row is a key: its highest fence, who holds it, in
//! which mode and until when, and which processes wait. The functions have a version in their names, so that processes of
//! two versions work side by side.
//!
//! A release leaves the row, because that remembers the fence: the next one is the higher of that plus 1 and the clock in
//! microseconds. A row that was idle for the [retention](PostgresBuilder::fence_retention) is deleted, by one process at a
//! time: the fence of the next grant comes from the clock alone then, and is higher unless the clock was set back by more
//! than the retention.
//!
//! A lock and its release update the row twice, without touching an index (HOT), and half of each page is left free for
//! that. So the table grows with the keys, not with the locks.
//!
//! # Rights
//!
//! Who creates the table needs `CREATE` on the schema. Who locks needs no more than
//!
//! ```sql
//! GRANT USAGE ON SCHEMA public TO app;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON public.leasehold_locks TO app;
//! ```
//!
//! and to execute the functions, which all may unless that was revoked. Without `DELETE` rows of idle keys stay.
//!
//! # Proxies
//!
//! Nothing is prepared on a connection, and nothing set in a session: so the calls may go through PgBouncer in transaction
//! mode. No message (`LISTEN`) comes through it: give [`listen_url`](PostgresBuilder::listen_url) a way around it, or switch
//! [`listen`](PostgresBuilder::listen) off. Otherwise a [`Warning::Unheard`](super::Warning::Unheard) says so. Without
//! messages waiters learn within about a third of a second that it is their turn, and holders that they lost a forced
//! lock when they refresh it.
//!
//! # Durability
//!
//! A grant is answered when its transaction is committed. A server that was killed and is started again has all of them,
//! unless `synchronous_commit` or `fsync` is `off`: then the last fraction of a second of grants may be forgotten, and
//! [health](super::Store::health) has a [`Warning::Volatile`](super::Warning::Volatile). A standby that is promoted has what
//! was replicated: with asynchronous replication the last grants may be missing, and their keys be granted anew while their
//! holders work on, until the next refresh or [`Event::Resumed`](super::Event::Resumed) finds out; fences are higher still, as
//! long as the clocks of the servers agree. With `synchronous_standby_names` set nothing is missing. Name all servers in the
//! URL (`host1,host2`): the one that takes writes is used.
//!
//! `statement_timeout` and `idle_in_transaction_session_timeout` harm nothing: no transaction is left open, and what was
//! cancelled was not carried out. No statement waits for a row for longer than the operation timeout.
//!
//! # What is not promised
//!
//! * Servers other than PostgreSQL 15 are not tried by the tests. Nothing is used that 12 has not.
//! * The server's clock decides: set forward, it frees held locks early. Fences protect then.
//! * A key is held by 4096 at most who share it; one more is [`Denial::OutOfMemory`](super::Denial::OutOfMemory). Each costs
//!   the next some hundred nanoseconds, since they stand in one row.
//! * Values that a release leaves, the board for deadlocks through several processes, and claims that are reused are not
//!   kept.

mod acquire;
mod builder;
mod call;
mod cleanup;
mod ears;
mod fault;
mod health;
mod hold;
mod init;
mod inner;
mod listen;
mod look;
mod names;
mod places;
mod renew;
mod statements;
mod tls;
mod wires;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use self::builder::PostgresBuilder;
use self::hold::GuardedRelease;
use self::inner::Inner;
use super::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Events, Exchange, Extended, Forced, Health, Hints, HoldInfo,
    KeyState, Modes, Noticed, Released, ScanPage, Store, StoreError, Watch,
};
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::supervise::supervise;

/// A [`Store`] over a table of PostgreSQL.
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

impl PostgresStore {
    /// A store with the usual settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL cannot be read. The error does not repeat it.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build()
    }

    /// Settings for a store behind `url`.
    pub fn builder(url: &str) -> PostgresBuilder {
        PostgresBuilder::new(url)
    }

    /// Creates the schema, the table and its functions, if they are missing; over a connection of its own, on the current
    /// tokio runtime, whether the store was started or not. Several may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Denied`] if the user may not create them, others if the server cannot be reached.
    ///
    /// # Cancel safety
    /// Dropped, it has created all or nothing.
    pub async fn init(&self) -> Result<(), StoreError> {
        init::init(&self.0).await
    }

    /// What [`init`](Self::init) runs, for a migration tool. The schema must be there.
    #[must_use]
    pub fn ddl(&self) -> String {
        statements::ddl(&self.0.settings.names)
    }
}

impl PostgresBuilder {
    /// Checks everything and makes the store. Nothing is connected before it is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong.
    pub fn build(self) -> Result<PostgresStore, StoreError> {
        Ok(PostgresStore(Arc::new(Inner::new(self.checked()?))))
    }
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.0.settings.operation_timeout);
        (capabilities.modes, capabilities.exchange) = (Modes::All, Exchange::OneCall);
        capabilities.hints = if self.0.settings.listens() { Hints::Given } else { Hints::None };
        capabilities
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let inner = &self.0;
            let runtime =
                Handle::try_current().map_err(|_| StoreError::Config("start needs a tokio runtime".into()))?;
            {
                let mut running = inner.runtime.write();
                if running.is_some() {
                    return Err(StoreError::Config("the store was started already".into()));
                }
                *running = Some(runtime.clone());
            }
            let [ticks, renewing, listening, sweeping] = std::array::from_fn(|_| Arc::clone(inner));
            let mut tasks = vec![
                runtime.spawn(supervise("timeouts", move || {
                    let ticks = Arc::clone(&ticks.ticks);
                    async move { ticks.run().await }
                })),
                runtime.spawn(supervise("places in queues", move || renew::run(Arc::clone(&renewing)))),
                runtime.spawn(supervise("listening", move || listen::run(Arc::clone(&listening)))),
                runtime.spawn(supervise("idle rows", move || renew::sweep(Arc::clone(&sweeping)))),
            ];
            for _ in 0..inner.settings.connections {
                let inner = Arc::clone(inner);
                tasks.push(runtime.spawn(supervise("a connection", move || wires::keep(Arc::clone(&inner)))));
            }
            inner.tasks.lock().extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // However it ends, the tasks do.
            let _ended = End(&self.0);
            self.0.cleaning.wait_for_all().await;
        })
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(acquire::acquire(&self.0, ask))
    }

    fn leave(&self, key: &Key) {
        if let Some(ticket) = self.0.places.leave(key) {
            renew::forget(&self.0, key.clone(), ticket);
        }
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        Some(self.0.places.turn(key))
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(hold::extend(&self.0, key, token, ttl))
    }

    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(look::confirm(&self.0, key, token))
    }

    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(hold::downgrade(&self.0, key, token))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        Box::pin(GuardedRelease::new(&self.0, key, token).run())
    }

    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        Box::pin(GuardedRelease::new(&self.0, next.key, token).exchange(next))
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(hold::force(&self.0, key, None))
    }

    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        Box::pin(hold::force(&self.0, key, Some(fence)))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        Box::pin(hold::notice(&self.0, key, within))
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(look::look(&self.0, key, token))
    }

    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        Box::pin(look::holders(&self.0, key, token))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        Box::pin(async move { look::scan(&self.0, prefix, cursor, limit).await.map(Some) })
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(async move {
            let (watch, begun) = (self.0.ears.watch(key), self.0.now());
            self.until_heard(begun).await?;
            renew::mark(&self.0, key, begun).await?;
            Ok(watch)
        })
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(async move {
            let events = self.0.ears.events();
            self.until_heard(self.0.now()).await?;
            Ok(events)
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(health::health(&self.0))
    }
}

impl PostgresStore {
    /// Waits until messages are listened to, if they are to be.
    async fn until_heard(&self, begun: Moment) -> Result<(), StoreError> {
        let inner = &self.0;
        if !inner.is_running() {
            return Err(StoreError::NotRunning);
        }
        if !inner.settings.listens() {
            return Ok(());
        }
        inner.ticks.within(begun, inner.settings.operation_timeout, inner.ears.wait_up()).await
    }
}

/// Ends everything when it is dropped.
struct End<'a>(&'a Inner);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.runtime.write() = None;
        self.0.tasks.lock().drain(..).for_each(|task| task.abort());
        self.0.wires.end();
        self.0.ears.end();
        self.0.places.end();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("server", &self.0.settings.server)
            .field("table", &self.0.settings.names.table())
            .finish_non_exhaustive()
    }
}
