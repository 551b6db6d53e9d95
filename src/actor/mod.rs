//! The public messages, and how the actor of a shard answers them: by the manager's own methods.
//!
//! The actor itself is the engine's, which starts one for each shard.

pub mod messages;

use actix::{Handler, ResponseFuture};

use crate::engine::ShardActor;
use crate::error::LockError;
use crate::lock::{Lock, Refreshed};
use crate::manager::{LockInfo, Stats};
use messages::{Acquire, GetStats, Inspect, Refresh, Release, TryLock};

// Every answer is a future, which actix runs in a task of its own: what a caller brought along, such as an iterator of
// pauses whose drop panics, must not take the actor with it.

impl Handler<TryLock> for ShardActor {
    type Result = ResponseFuture<Result<Lock, LockError>>;

    fn handle(&mut self, message: TryLock, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.try_lock(message.key).options(message.options).await })
    }
}

impl Handler<Acquire> for ShardActor {
    type Result = ResponseFuture<Result<Lock, LockError>>;

    fn handle(&mut self, message: Acquire, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        // The reply travels as a guard: if its sender has gone, dropping it releases the lock.
        Box::pin(async move { manager?.lock(message.key).options(message.options).await })
    }
}

impl Handler<Release> for ShardActor {
    type Result = ResponseFuture<Result<crate::table::Release, LockError>>;

    fn handle(&mut self, message: Release, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.release(message.key, message.token).await })
    }
}

impl Handler<Refresh> for ShardActor {
    type Result = ResponseFuture<Result<Refreshed, LockError>>;

    fn handle(&mut self, message: Refresh, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.refresh(message.key, message.token, message.ttl).await })
    }
}

impl Handler<Inspect> for ShardActor {
    type Result = ResponseFuture<Result<Option<LockInfo>, LockError>>;

    fn handle(&mut self, message: Inspect, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { manager?.inspect(message.key).await })
    }
}

impl Handler<GetStats> for ShardActor {
    type Result = ResponseFuture<Result<Stats, LockError>>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        let manager = self.manager();
        Box::pin(async move { Ok(manager?.stats()) })
    }
}

#[cfg(feature = "test-util")]
impl Handler<messages::Panic> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: messages::Panic, ctx: &mut Self::Context) {
        self.panic_at_next_turn();
        self.turn(ctx);
    }
}
