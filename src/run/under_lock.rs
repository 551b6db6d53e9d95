//! Work under a lock: the future that waits for the lock, does the work, and releases. What `run` and `singleflight`
//! have in common.
//!
//! | stage       | the future                                    | dropped there                         |
//! |-------------|-----------------------------------------------|---------------------------------------|
//! | `Locking`   | waits for the lock                            | it leaves the queue                   |
//! | `Running`   | polls the work, whose lock refreshes itself   | the work is dropped, then the lock    |
//! | `Releasing` | waits for what a store says of the release    | the lock is released all the same     |
//! | `Ended`     | over                                          |                                       |

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::Ran;
use crate::current_owner;
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::lock::{Held, Lock, Unlocking};
use crate::request::LockFuture;
use crate::store::ValueToLeave;
use crate::table::{Owner, Release};

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
        // The owner of the lock and of all that the work locks: set when this is first polled, unless it was given.
        caller: Option<Arc<Owner>>,
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
    /// `owner`: whose work it is, where that is not to be found out by the first poll.
    pub(crate) fn new(
        manager: &'a LockManager,
        owner: Option<Arc<Owner>>,
        lock: LockFuture<'a>,
        call: C,
        on_loss: OnLoss,
    ) -> Self {
        Self { manager, caller: owner, on_loss, parting: None, stage: Stage::Locking { lock, call: Some(call) } }
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
        let caller = this.caller.get_or_insert_with(|| {
            current_owner::current(this.manager.id()).unwrap_or_else(|| this.manager.new_call())
        });
        let on_its_behalf = current_owner::enter(this.manager.id(), caller);
        if matches!(*stage, Stage::Locking { .. }) {
            ready!(stage.as_mut().poll_lock(*this.on_loss, cx))?;
        }
        let (value, lock) = ready!(stage.as_mut().poll_work(cx))?;
        drop(on_its_behalf);
        stage.release(value, lock, this.parting.as_ref().and_then(Parting::take), cx).map(Ok)
    }
}

impl<C, W> Stage<'_, C, W>
where
    C: Callback<Work = W>,
    W: Future,
{
    /// Waits for the lock, and begins the work under it.
    #[inline]
    fn poll_lock(mut self: Pin<&mut Self>, on_loss: OnLoss, cx: &mut Context<'_>) -> Poll<Result<(), LockError>> {
        let Staged::Locking { lock, call } = self.as_mut().project() else {
            unreachable!("only what waits for its lock is polled so")
        };
        let lock = ready!(Pin::new(lock).poll(cx))?;
        let call = call.take().expect("the lock is granted once");
        // Granted just now; were it over already, the release would say so.
        let _ = lock.keep_refreshed();
        let lost = (on_loss == OnLoss::Cancel).then(|| lock.lost().boxed());
        let work = call.begin(lock.held());
        self.set(Stage::Running { work, lost, lock: Some(lock) });
        Poll::Ready(Ok(()))
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
