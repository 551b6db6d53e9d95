//! The lock of a shared call, watched for those who wait for the call: [`LossWatch`].
//!
//! | the lock is          | nobody has waited       | somebody has waited                      |
//! |----------------------|-------------------------|------------------------------------------|
//! | not there yet, over  | nothing                 | its loss is watched as soon as it is there |
//! | there                | it is kept at hand      | its loss calls `on_loss`, at once if it came before |
//!
//! `on_loss` is called whether the call is polled or not, and under no mutex.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Loss;
use crate::lock::Held;
use crate::shard::loss::LossSignal;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What the loss is told to.
pub(super) type OnLoss = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct LossWatch {
    lock: Mutex<Watched>,
    /// Whether somebody waits, or has waited: set together with `on_loss`.
    is_watched: AtomicBool,
}

#[derive(Default)]
struct Watched {
    held: Option<Held>,
    on_loss: Option<OnLoss>,
    /// In force until it is dropped.
    lost: Option<BoxFuture<'static, Option<Loss>>>,
}

debug_of!(LossWatch);

impl LossWatch {
    /// The call begins, under this lock.
    pub(super) fn begin(&self, held: Held) {
        let mut watched = self.lock.lock();
        watched.held = Some(held);
        let lost = watched.set();
        drop(watched);
        if let Some(on_loss) = lost {
            on_loss();
        }
    }

    /// Somebody waits for the call: if it loses its lock, or the next call does, `on_loss` is called.
    pub(super) fn watch(&self, on_loss: impl FnOnce() -> OnLoss) {
        let mut watched = self.lock.lock();
        if watched.on_loss.is_some() {
            return;
        }
        watched.on_loss = Some(on_loss());
        self.is_watched.store(true, Ordering::Release);
        let lost = watched.set();
        drop(watched);
        if let Some(on_loss) = lost {
            on_loss();
        }
    }

    /// Whether somebody waits, or has waited.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Acquire)
    }

    /// Whether the call has its lock, by the exact clock.
    pub(super) fn is_held(&self) -> bool {
        self.lock.lock().held.as_ref().is_some_and(Held::is_held)
    }

    /// The call is over.
    pub(super) fn end(&self) {
        let mut watched = self.lock.lock();
        let ended = (watched.held.take(), watched.lost.take());
        drop(watched);
        drop(ended);
    }
}

impl Watched {
    /// Watches the lock if it is there and somebody waits. Answers whom to tell if it is lost already.
    fn set(&mut self) -> Option<OnLoss> {
        let (held, on_loss) = (self.held.as_ref()?, self.on_loss.as_ref()?);
        let signal = held.lost_signal();
        let mut lost = Arc::clone(&signal).wait().boxed();
        let waker = Waker::from(Arc::new(Tell { signal, on_loss: Arc::clone(on_loss) }));
        match lost.poll_unpin(&mut Context::from_waker(&waker)) {
            // A future that has answered is not to be kept.
            Poll::Ready(loss) => loss.map(|_| Arc::clone(on_loss)),
            Poll::Pending => {
                self.lost = Some(lost);
                None
            }
        }
    }
}

struct Tell {
    signal: Arc<LossSignal>,
    on_loss: OnLoss,
}

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        // A release is no loss: then the flight has landed, or the next caller has its turn.
        if self.signal.loss().is_some() {
            (self.on_loss)();
        }
    }
}
