//! The manager's own thread: an actix `System` with one actor per shard, in every kind of host.
//!
//! It does not depend on the caller's runtime, so a static manager outlives the runtime that built it. It stops when
//! the manager is shut down, or when the manager and its last lock are gone: the shards keep it alive.

use std::sync::{Arc, mpsc};

use actix::{Actor, Addr};
use actix_rt::{Arbiter, System};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::actor::ShardActor;
use super::message::Wake;
use crate::error::BuildError;
use crate::manager::Inner;

pub(crate) struct Runtime {
    system: System,
    tokio: Handle,
    /// Cancelled when the thread has ended.
    ended: CancellationToken,
}

impl Runtime {
    /// Starts the thread and its actors, and waits until they run (well under a millisecond).
    pub(crate) fn start(
        manager: &Arc<Inner>,
        arbiters: usize,
    ) -> Result<(Arc<Self>, Vec<Addr<ShardActor>>), BuildError> {
        let (started, start) = mpsc::sync_channel(1);
        let ended = CancellationToken::new();
        let last_words = ended.clone().drop_guard();
        let actors: Vec<_> =
            manager.shards().iter().map(|shard| ShardActor::new(shard, Arc::downgrade(manager))).collect();
        std::thread::Builder::new()
            .name("leasehold".into())
            .spawn(move || {
                let _last_words = last_words;
                run(actors, arbiters, &started);
            })
            .map_err(|error| BuildError::Thread(Arc::new(error)))?;
        let (system, tokio, addresses) = start.recv().map_err(|_| {
            BuildError::Thread(Arc::new(std::io::Error::other("the thread ended before its actors ran")))
        })?;
        let runtime = Arc::new(Self { system, tokio, ended });
        for (shard, address) in manager.shards().iter().zip(&addresses) {
            let (address, keep) = (address.clone(), Arc::clone(&runtime));
            shard.set_nudge(move || {
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

    /// Waits until the thread has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

type Started = (System, Handle, Vec<Addr<ShardActor>>);

fn run(actors: Vec<ShardActor>, arbiters: usize, started: &mpsc::SyncSender<Started>) {
    let runner = System::new();
    let others: Arc<Mutex<Vec<Arbiter>>> = Arc::default();
    let arbiters_here = Arc::clone(&others);
    let addresses = runner.block_on(async move {
        let mut arbiters_here = arbiters_here.lock();
        arbiters_here.extend((1..arbiters).map(|_| Arbiter::new()));
        let mut handles = vec![System::current().arbiter().clone()];
        handles.extend(arbiters_here.iter().map(Arbiter::handle));
        let spread = actors.into_iter().zip(handles.iter().cycle());
        spread.map(|(actor, arbiter)| ShardActor::start_in_arbiter(arbiter, |_| actor)).collect::<Vec<_>>()
    });
    let (system, tokio) = runner.block_on(async { (System::current(), Handle::current()) });
    if started.send((system, tokio, addresses)).is_err() {
        return;
    }
    // An error here is the exit code of `stop`, which is always zero.
    let _ = runner.run();
    for arbiter in others.lock().drain(..) {
        arbiter.stop();
        // A panic there has been reported by its own thread.
        let _ = arbiter.join();
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("ended", &self.ended.is_cancelled()).finish_non_exhaustive()
    }
}
