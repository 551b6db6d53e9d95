//! The actor of one shard: it owns the shard's time. The public messages that it answers are in the room `actor`.
//!
//! It is never in the lane's way: it sleeps until the table's next deadline, at most a second while anything is due
//! at all, and takes a turn when a timer fires or a handle nudges it. A turn is short: when there is more to be done,
//! the actors beside it on the thread come first. Every turn runs under `catch_unwind`, because
//! actix's own Supervisor does not survive a panic; the table is behind its mutex and outlives the turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};

use super::{Engine, LockManager};
use crate::error::LockError;
use crate::shard::Shard;

/// How long a turn that panicked waits before it is tried again.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// A handle's nudge: something falls due before the actor would look.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// The actor around one shard's table. Get its address from [`LockManager::shard`].
#[derive(Debug)]
pub struct ShardActor {
    shard: Weak<Shard>,
    engine: Weak<Engine>,
    timer: Option<SpawnHandle>,
}

impl ShardActor {
    pub(crate) fn new(shard: &Arc<Shard>, engine: Weak<Engine>) -> Self {
        Self { shard: Arc::downgrade(shard), engine, timer: None }
    }

    /// Does what is due and sets the timer for the next time.
    pub(crate) fn turn(&mut self, ctx: &mut Context<Self>) {
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

    #[cfg(feature = "test-util")]
    pub(crate) fn panic_at_next_turn(&self) {
        if let Some(shard) = self.shard.upgrade() {
            shard.panic_at_next_turn();
        }
    }

    /// The manager that the shard is one of, while anybody has a handle to it.
    pub(crate) fn manager(&self) -> Result<LockManager, LockError> {
        self.engine.upgrade().map(LockManager::from_engine).ok_or(LockError::ShuttingDown)
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
