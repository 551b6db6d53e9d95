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

macro_rules! answers {
    ($($message:ident -> $answer:ty: |$manager:ident, $asked:ident| $call:expr;)*) => {$(
        impl Handler<$message> for ShardActor {
            type Result = ResponseFuture<Result<$answer, LockError>>;

            fn handle(&mut self, $asked: $message, _: &mut Self::Context) -> Self::Result {
                let manager = self.manager();
                Box::pin(async move {
                    let $manager = manager?;
                    $call
                })
            }
        }
    )*};
}

// A lock travels as a guard: if the sender of the message has gone, dropping it releases the lock.
answers! {
    TryLock -> Lock: |manager, asked| manager.try_lock(asked.key).options(asked.options).await;
    Acquire -> Lock: |manager, asked| manager.lock(asked.key).options(asked.options).await;
    Release -> crate::table::Release: |manager, asked| manager.release(asked.key, asked.token).await;
    Refresh -> Refreshed: |manager, asked| manager.refresh(asked.key, asked.token, asked.ttl).await;
    Inspect -> Option<LockInfo>: |manager, asked| manager.inspect(asked.key).await;
    GetStats -> Stats: |manager, _asked| Ok(manager.stats());
}

#[cfg(feature = "test-util")]
impl Handler<messages::Panic> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: messages::Panic, ctx: &mut Self::Context) {
        self.panic_at_next_turn();
        self.turn(ctx);
    }
}
