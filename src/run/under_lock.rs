//! Work under a lock: the future that waits for the lock, does the work, and releases. What `run` and `singleflight`
//! have in common.
//!
//! | stage       | the future                                    | dropped there                         |
//! |-------------|-----------------------------------------------|---------------------------------------|
//! | `Locking`   | waits for the lock                            | it leaves the queue                   |
//! | `Running`   | polls the work, whose lock refreshes itself   | the work is dropped, then the lock    |
//! | `Releasing` | waits for what a store says of the release    | the lock is released all the same     |
//! | `Ended`     | over                                          |                                       |
//!
//! Work that finds its lock free is nobody's at first: it becomes an owner when something is first asked for on its behalf.
//! Until then it has one lock and waits for none, and is in no cycle.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::Ran;
use crate::current_owner::{self, Caller, OwnerWatch};
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::lock::{Held, Lock, Unlocking};
use crate::request::LockFuture;
use crate::store::ValueToLeave;
use crate::table::{GrantState, Owner, Release, TokenOrigin};

/// What to do once the lock is there.
pub(crate) trait Callback {
    type Work: Future;

    fn begin(self, held: Held) -> Self::Work;
}

impl<F, Fut> Callback for F
where
    F: FnOnce(Held) -> Fut,
    Fut: Future,
{
    type Work = Fut;

    fn begin(self, held: Held) -> Fut {
        self(held)
    }
}

/// What happens to the work when its lock is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum OnLoss {
    /// The work goes on to its end, and the release says that the lock was lost.
    #[default]
    GoOn,
    /// The work is dropped, and the answer is [`LockError::Lost`].
    Cancel,
}

/// Whose the work is, and so its lock and all that it locks.
pub(crate) enum Whose {
    /// The callback's in which it is first polled; outside of one, its own.
    Callers,
    /// This owner's.
    Owners(Arc<Owner>),
    /// Its own, wherever it is polled; and who else is to know when it becomes an owner.
    Own(Arc<dyn OwnerWatch>),
}

/// Where the work puts a value that the release of its lock is to leave to other processes.
#[derive(Clone, Default)]
pub(crate) struct Parting(Arc<Mutex<Option<ValueToLeave>>>);

impl Parting {
    pub(crate) fn put(&self, value: ValueToLeave) {
        *self.0.lock() = Some(value);
    }

    fn take(&self) -> Option<ValueToLeave> {
        self.0.lock().take()
    }
}

pin_project! {
    /// Work under a lock, under way.
    pub(crate) struct UnderLock<'a, C, W: Future> {
        manager: &'a LockManager,
        whose: Whose,
        // On whose behalf the work asks: set when this is first polled.
        caller: Option<Caller>,
        on_loss: OnLoss,
        parting: Option<Parting>,
        #[pin]
        stage: Stage<'a, C, W>,
    }
}

pin_project! {
    // While `Running`, the work stands before its lock, and so is dropped before it.
    #[project = Staged]
    enum Stage<'a, C, W: Future> {
        Locking { lock: LockFuture<'a>, call: Option<C> },
        Running { #[pin] work: W, lost: Option<BoxFuture<'static, Option<Loss>>>, lock: Option<Lock> },
        Releasing { value: Option<W::Output>, release: BoxFuture<'static, Release> },
        Ended,
    }
}

impl<'a, C, W: Future> UnderLock<'a, C, W> {
    pub(crate) fn new(manager: &'a LockManager, whose: Whose, lock: LockFuture<'a>, call: C, on_loss: OnLoss) -> Self {
        let stage = Stage::Locking { lock, call: Some(call) };
        Self { manager, whose, caller: None, on_loss, parting: None, stage }
    }

    /// The release leaves what the work has put there by its end.
    pub(crate) fn leaving(self, parting: Option<Parting>) -> Self {
        Self { parting, ..self }
    }

    /// The name of the stage, for `Debug`.
    pub(crate) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Locking { .. } => "locking",
            Stage::Running { .. } => "running",
            Stage::Releasing { .. } => "releasing",
            Stage::Ended => "ended",
        }
    }
}

impl<C, W> Future for UnderLock<'_, C, W>
where
    C: Callback<Work = W>,
    W: Future,
{
    type Output = Result<Ran<W::Output>, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut stage = this.stage;
        if matches!(*stage, Stage::Releasing { .. }) {
            return stage.poll_release(cx).map(Ok);
        }
        // It comes back below, unless the work panics.
        let (caller, at_once) = match this.caller.take() {
            Some(caller) => (caller, None),
            None => stage.as_mut().first_caller(this.manager, this.whose),
        };
        let on_its_behalf = current_owner::enter(this.manager.id(), caller);
        if let Some(lock) = at_once {
            let view = lock.view();
            stage.as_mut().begin(lock, view, *this.on_loss);
        }
        let polled = stage.as_mut().poll_lock_and_work(*this.on_loss, cx);
        *this.caller = on_its_behalf.leave();
        let (value, lock) = ready!(polled)?;
        stage.release(value, lock, this.parting.as_ref().and_then(Parting::take), cx).map(Ok)
    }
}

impl<C, W> Stage<'_, C, W>
where
    C: Callback<Work = W>,
    W: Future,
{
    /// Finds out whose the work is. Where nobody else's, it is given its lock right here if that is free: then it is nobody's
    /// still.
    #[inline]
    fn first_caller(self: Pin<&mut Self>, manager: &LockManager, whose: &mut Whose) -> (Caller, Option<Lock>) {
        let Staged::Locking { lock, .. } = self.project() else { panic!("a run was polled after it ended") };
        let (given, watch) = match std::mem::replace(whose, Whose::Callers) {
            Whose::Callers => (manager.caller(), None),
            Whose::Owners(owner) => (Some(owner), None),
            Whose::Own(watch) => (None, Some(watch)),
        };
        if let Some(owner) = given {
            return (Caller::Owner(owner), None);
        }
        // A caller's callback is given a view of the lock, which may ask later how that has ended.
        let seen = if watch.is_some() { TokenOrigin::Minted } else { TokenOrigin::ByClient };
        if let Some((lock, shard, grant)) = lock.grant_kept(GrantState::Guard(seen)) {
            return (Caller::Holder { shard, grant, watch }, Some(lock));
        }
        let owner = manager.new_call();
        watch.iter().for_each(|watch| watch.becomes(&owner));
        (Caller::Owner(owner), None)
    }

    /// Waits for the lock if it is not there, and polls the work under it.
    #[inline]
    fn poll_lock_and_work(
        mut self: Pin<&mut Self>,
        on_loss: OnLoss,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(W::Output, Lock), LockError>> {
        if matches!(*self, Stage::Locking { .. }) {
            ready!(self.as_mut().poll_lock(on_loss, cx))?;
        }
        self.poll_work(cx)
    }

    /// Waits for the lock, and begins the work under it.
    #[inline]
    fn poll_lock(mut self: Pin<&mut Self>, on_loss: OnLoss, cx: &mut Context<'_>) -> Poll<Result<(), LockError>> {
        let Staged::Locking { lock, .. } = self.as_mut().project() else {
            unreachable!("only what waits for its lock is polled so")
        };
        let lock = ready!(Pin::new(lock).poll(cx))?;
        // Granted just now; were it over already, the release would say so.
        let _ = lock.keep_refreshed();
        let view = lock.held();
        self.begin(lock, view, on_loss);
        Poll::Ready(Ok(()))
    }

    /// Begins the work under its lock.
    #[inline]
    fn begin(mut self: Pin<&mut Self>, lock: Lock, view: Held, on_loss: OnLoss) {
        let Staged::Locking { call, .. } = self.as_mut().project() else {
            unreachable!("only what waits for its lock is begun")
        };
        let call = call.take().expect("the lock is granted once");
        let lost = (on_loss == OnLoss::Cancel).then(|| lock.lost().boxed());
        let work = call.begin(view);
        self.set(Stage::Running { work, lost, lock: Some(lock) });
    }

    /// Polls the work under its lock; once it is done, answers its value, and the lock for the caller to release.
    #[inline]
    fn poll_work(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(W::Output, Lock), LockError>> {
        let Staged::Running { work, lost, lock } = self.as_mut().project() else {
            panic!("a run was polled after it ended");
        };
        let polled = {
            let _under_it = lock.as_ref().map(|lock| lock.hold().enter());
            work.poll(cx)
        };
        let Poll::Ready(value) = polled else {
            let loss = lost.as_mut().map_or(Poll::Pending, |lost| lost.poll_unpin(cx));
            let Some(loss) = ready!(loss) else { return Poll::Pending };
            // The work is dropped, and then what was its lock.
            self.set(Stage::Ended);
            return Poll::Ready(Err(LockError::Lost(loss)));
        };
        let lock = lock.take().expect("work that runs has its lock");
        // What the work still owns goes before the lock does.
        self.set(Stage::Ended);
        Poll::Ready(Ok((value, lock)))
    }

    /// Releases the lock, the work being over.
    #[inline]
    fn release(
        mut self: Pin<&mut Self>,
        value: W::Output,
        lock: Lock,
        leaves: Option<ValueToLeave>,
        cx: &mut Context<'_>,
    ) -> Poll<Ran<W::Output>> {
        match lock.start_unlock(leaves) {
            Unlocking::Done(release) => Poll::Ready(Ran { value, release }),
            Unlocking::Asking(release) => {
                self.set(Stage::Releasing { value: Some(value), release });
                self.poll_release(cx)
            }
        }
    }

    /// Waits for what the store says of the release.
    fn poll_release(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ran<W::Output>> {
        let Staged::Releasing { value, release } = self.as_mut().project() else {
            unreachable!("only what is being released is polled so")
        };
        let release = ready!(release.poll_unpin(cx));
        let value = value.take().expect("it is released once");
        self.set(Stage::Ended);
        Poll::Ready(Ran { value, release })
    }
}
