//! The manager's own thread: an actix `System` with one actor per shard, in every kind of host.
//!
//! It does not depend on the caller's runtime, so a static manager outlives the runtime that built it. It stops when
//! the manager is shut down, or when the manager and its last lock are gone: the shards keep it alive.

use std::sync::{Arc, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

use actix::{Actor, Addr};
use actix_rt::{Arbiter, System};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::shard_actor::{ShardActor, Wake};
use crate::config::BuildError;
use crate::shard::client::StoreClient;

/// How long the drop of the last handle waits for the last calls to the store.
const LAST_MOMENT: Duration = Duration::from_millis(400);

pub(crate) struct Runtime {
    system: System,
    tokio: Handle,
    /// The first thread, which drives what goes to the store.
    thread: ThreadId,
    /// Asks the store, where there is one.
    client: Option<Arc<StoreClient>>,
    /// Cancelled when the thread has ended.
    ended: CancellationToken,
}

impl Runtime {
    /// Starts the thread and its actors, which so many threads share, and waits until they run (well under a
    /// millisecond).
    pub(crate) fn start(
        engine: &Arc<Engine>,
        threads: usize,
    ) -> Result<(Arc<Self>, Vec<Addr<ShardActor>>), BuildError> {
        let (started, start) = mpsc::sync_channel(1);
        let ended = CancellationToken::new();
        let cancel_at_end = ended.clone().drop_guard();
        let actors: Vec<_> =
            engine.shards().iter().map(|shard| ShardActor::new(shard, Arc::downgrade(engine))).collect();
        let thread = std::thread::Builder::new()
            .name("leasehold".into())
            .spawn(move || {
                // Dropped when the thread ends, by a panic too.
                let _cancel_at_end = cancel_at_end;
                run(actors, threads, &started);
            })
            .map_err(|error| BuildError::Thread(Arc::new(error)))?;
        let (system, tokio, addresses) = start.recv().map_err(|_| {
            BuildError::Thread(Arc::new(std::io::Error::other("the thread ended before its actors ran")))
        })?;
        let (thread, client) = (thread.thread().id(), engine.client().cloned());
        let runtime = Arc::new(Self { system, tokio, thread, client, ended });
        for (shard, address) in engine.shards().iter().zip(&addresses) {
            let (address, keep) = (address.clone(), Arc::clone(&runtime));
            shard.set_nudge(move || {
                // The shard keeps the runtime for as long as it may have to wake its actor.
                let _alive = &keep;
                address.do_send(Wake);
            });
        }
        Ok((runtime, addresses))
    }

    /// The runtime of the first thread.
    pub(crate) fn tokio(&self) -> Handle {
        self.tokio.clone()
    }

    /// Tells the thread to stop. It is safe on that thread itself.
    pub(crate) fn stop(&self) {
        self.system.stop();
    }

    /// Gives what is under way to the store a moment, above all the releases of dropped guards: the caller may be the
    /// last who has anything of the manager's, and the end of the process may follow. There is nothing to wait for in
    /// memory, after a shutdown, or once the store has answered.
    pub(crate) fn finish_calls(&self, then: impl FnOnce(System) + Send + 'static) {
        let system = self.system.clone();
        let Some(client) = self.client.clone().filter(|client| client.has_calls()) else { return then(system) };
        let (finished, wait) = mpsc::channel::<()>();
        self.tokio.spawn(async move {
            client.finish_calls(LAST_MOMENT).await;
            drop(finished);
            then(system);
        });
        // On the thread that drives the calls it would wait in vain.
        if std::thread::current().id() != self.thread {
            // It ends when the other side is dropped, also with the runtime.
            let _ = wait.recv_timeout(LAST_MOMENT + LAST_MOMENT / 2);
        }
    }

    /// Waits until the thread has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Its thread ends when they have ended, or their time is over.
        self.finish_calls(|system| system.stop());
    }
}

type Started = (System, Handle, Vec<Addr<ShardActor>>);

/// The whole life of the thread: spreads the actors over so many threads, this one included, and runs them until the
/// system is stopped.
fn run(actors: Vec<ShardActor>, threads: usize, started: &mpsc::SyncSender<Started>) {
    let runner = System::new();
    let (others, parts) = runner.block_on(async move {
        let system = System::current();
        let others: Vec<Arbiter> = (1..threads).map(|_| Arbiter::new()).collect();
        let mut arbiters = vec![system.arbiter().clone()];
        arbiters.extend(others.iter().map(Arbiter::handle));
        let spread = actors.into_iter().zip(arbiters.iter().cycle());
        let addresses = spread.map(|(actor, arbiter)| ShardActor::start_in_arbiter(arbiter, |_| actor)).collect();
        (others, (system, Handle::current(), addresses))
    });
    if started.send(parts).is_err() {
        return;
    }
    // An error here is the exit code of `stop`, which is always zero.
    let _ = runner.run();
    for arbiter in others {
        arbiter.stop();
        // A panic there has been reported by its own thread.
        let _ = arbiter.join();
    }
}

debug_of!(Runtime, |it| ended: it.ended.is_cancelled());
