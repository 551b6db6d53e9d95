//! The actor of one shard: it owns the shard's time, and answers the public messages.
//!
//! It is never in the lane's way: it sleeps until the table's next deadline, at most a second while anything is due
//! at all, and takes a turn when a timer fires or a handle nudges it. A turn is short: when there is more to be done,
//! the actors beside it on the thread come first. Every turn runs under `catch_unwind`, because
//! actix's own Supervisor does not survive a panic; the table is behind its mutex and outlives the turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};

use super::Shard;
use super::message::{Acquire, GetStats, Inspect, Refresh, Release, TryLock, Wake};
use crate::error::LockError;
use crate::lock::Lock;
use crate::manager::LockInfo;
use crate::manager::Stats;
use crate::manager::{Inner, LockManager};

/// How long a turn that panicked waits before it is tried again.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// The actor around one shard's table. Get its address from [`LockManager::shard`].
#[derive(Debug)]
pub struct ShardActor {
    shard: Weak<Shard>,
    manager: Weak<Inner>,
    timer: Option<SpawnHandle>,
}

impl ShardActor {
    pub(crate) fn new(shard: &Arc<Shard>, manager: Weak<Inner>) -> Self {
        Self { shard: Arc::downgrade(shard), manager, timer: None }
    }

    /// Does what is due and sets the timer for the next time.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        // Without its shard there is nothing left to do: manager and locks are gone, the thread is about to stop.
        let Some(shard) = self.shard.upgrade() else { return };
        let turn = catch_unwind(AssertUnwindSafe(|| {
            let wake_at = shard.turn();
            wake_at.saturating_since(shard.now())
        }));
        self.timer = Some(match turn.unwrap_or(AFTER_PANIC) {
            // No timer: it would rest for a millisecond.
            Duration::ZERO => {
                let others = wrap_future::<_, Self>(actix_rt::task::yield_now());
                ctx.spawn(others.map(|(), actor, ctx| actor.turn(ctx)))
            }
            sleep => ctx.run_later(sleep, Self::turn),
        });
    }

    fn manager(&self) -> Result<LockManager, LockError> {
        self.manager.upgrade().map(LockManager::from_inner).ok_or(LockError::ShuttingDown)
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}

impl Handler<Wake> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}

#[cfg(feature = "test-util")]
impl Handler<super::message::Panic> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: super::message::Panic, ctx: &mut Self::Context) {
        if let Some(shard) = self.shard.upgrade() {
            shard.panic_at_next_turn();
        }
        self.turn(ctx);
    }
}

// Every answer is a future, which actix runs in a task of its own: what a caller brought along, such as an iterator of
// pauses whose drop panics, must not take the actor with it.

impl Handler<TryLock> for ShardActor {
    type Result = ResponseFuture<Result<Lock, LockError>>;

    fn handle(&mut self, ask: TryLock, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.try_lock(ask.key).options(ask.options).await })
    }
}

impl Handler<Acquire> for ShardActor {
    type Result = ResponseFuture<Result<Lock, LockError>>;

    fn handle(&mut self, ask: Acquire, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        // The reply travels as a guard: if its asker has gone, dropping it hands the lock on.
        Box::pin(async move { manager?.lock(ask.key).options(ask.options).await })
    }
}

impl Handler<Release> for ShardActor {
    type Result = ResponseFuture<Result<crate::table::Release, LockError>>;

    fn handle(&mut self, ask: Release, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.release(ask.key, ask.token).await })
    }
}

impl Handler<Refresh> for ShardActor {
    type Result = ResponseFuture<Result<crate::lock::Refreshed, LockError>>;

    fn handle(&mut self, ask: Refresh, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.refresh(ask.key, ask.token, ask.ttl).await })
    }
}

impl Handler<Inspect> for ShardActor {
    type Result = ResponseFuture<Result<Option<LockInfo>, LockError>>;

    fn handle(&mut self, ask: Inspect, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.inspect(ask.key).await })
    }
}

impl Handler<GetStats> for ShardActor {
    type Result = ResponseFuture<Result<Stats, LockError>>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { Ok(manager?.stats()) })
    }
}
