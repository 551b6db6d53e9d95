//! Work on its way to the manager's runtime: [`Inbox`].
//!
//! A runtime of one thread is woken by a system call for each task that is spawned from another thread. Callers come in
//! crowds: all that one batch of answers wakes ask anew at once. So they put their work here, and wake one task of the
//! runtime, which does it all. Those who wait for the answers it wakes in crowds again ([`wakes`]).
//!
//! | state | [`Inbox::put`] |
//! |---|---|
//! | empty | keeps the work, and wakes the task |
//! | not empty | keeps the work: the task was woken |
//! | held, by who puts work for many at once | keeps the work: the task is woken when the last [`Hold`] ends |
//! | closed, since the runtime has ended | drops the work, and with it whatever waits for its answer ends |

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::coop;

use crate::store::BoxFuture;
use crate::wakes;

/// So many pieces of work end before those are woken that wait for them: enough to be worth a wake, and few enough that
/// who waits for the first does not wait for long.
const CROWD: usize = 16;

/// Work that is not begun yet.
pub(super) struct Inbox {
    /// `None`: closed.
    work: Mutex<Option<Vec<Work>>>,
    filled: Notify,
    /// How many callers have more to put: the task is not woken before the last of them has put it all.
    holds: AtomicUsize,
}

type Work = BoxFuture<'static, ()>;

impl Default for Inbox {
    fn default() -> Self {
        Self { work: Mutex::new(Some(Vec::new())), filled: Notify::new(), holds: AtomicUsize::new(0) }
    }
}

impl Inbox {
    /// Has the work done soon.
    pub(super) fn put(&self, work: Work) {
        let is_first = match &mut *self.work.lock() {
            Some(waiting) => {
                waiting.push(work);
                waiting.len() == 1
            }
            None => false,
        };
        if is_first && self.holds.load(Ordering::SeqCst) == 0 {
            self.filled.notify_one();
        }
    }

    /// Has what is put until this is dropped begin together. To be held for as long as it takes to put it.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.holds.fetch_add(1, Ordering::SeqCst);
        Hold(self)
    }

    /// Does what is put here, for as long as the runtime that it is polled on lives.
    pub(super) fn pump(this: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Made here: a runtime may end before it has polled the future once.
        let open = Open(this);
        // The fair share of one task is not that of many calls.
        coop::unconstrained(async move {
            let mut running = FuturesUnordered::new();
            let mut filled = pin!(open.0.filled.notified());
            poll_fn(|cx| {
                while filled.as_mut().poll(cx).is_ready() {
                    filled.set(open.0.filled.notified());
                    running.extend(open.0.take());
                }
                let mut ended = CROWD;
                while ended == CROWD {
                    ended = 0;
                    wakes::together(|| {
                        while ended < CROWD && matches!(running.poll_next_unpin(cx), Poll::Ready(Some(()))) {
                            ended += 1;
                        }
                    });
                }
                Poll::Pending
            })
            .await
        })
    }

    fn take(&self) -> Vec<Work> {
        self.work.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// Keeps the task from being woken.
pub(super) struct Hold<'a>(&'a Inbox);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // Who puts work while this is read finds the hold gone, or is found here.
        let is_last = self.0.holds.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last && self.0.work.lock().as_ref().is_some_and(|work| !work.is_empty()) {
            self.0.filled.notify_one();
        }
    }
}

/// Closes the inbox when its task is dropped: else work would lie in it for ever.
struct Open(Arc<Inbox>);

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.work.lock().take();
        // What is dropped may wake others, who may put more.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use tokio::sync::oneshot;

    use super::*;

    fn work(inbox: &Inbox) -> oneshot::Receiver<()> {
        let (sender, done) = oneshot::channel();
        inbox.put(Box::pin(async move { sender.send(()).unwrap_or_default() }));
        done
    }

    #[tokio::test]
    async fn what_is_put_before_and_after_the_task_began_is_done() {
        let inbox = Arc::new(Inbox::default());
        let before = [work(&inbox), work(&inbox)];
        let pump = tokio::spawn(Inbox::pump(Arc::clone(&inbox)));
        for done in before {
            done.await.unwrap();
        }
        work(&inbox).await.unwrap();
        pump.abort();
    }

    #[tokio::test]
    async fn who_waits_for_work_that_ends_at_once_is_woken_when_all_of_it_has_ended() {
        struct Waiting(Arc<Mutex<Vec<&'static str>>>);
        impl Wake for Waiting {
            fn wake(self: Arc<Self>) {
                self.0.lock().push("woken");
            }
        }
        let (inbox, log) = (Arc::new(Inbox::default()), Arc::new(Mutex::new(Vec::new())));
        for _ in 0..2 {
            let (log, waiting) = (Arc::clone(&log), Arc::new(Waiting(Arc::clone(&log))));
            inbox.put(Box::pin(async move {
                log.lock().push("done");
                wakes::wake(waiting.into());
            }));
        }
        let done = work(&inbox);
        let pump = tokio::spawn(Inbox::pump(Arc::clone(&inbox)));
        done.await.unwrap();
        assert_eq!(*log.lock(), ["done", "done", "woken", "woken"]);
        pump.abort();
    }

    #[tokio::test]
    async fn what_is_put_under_a_hold_begins_when_the_last_hold_has_ended() {
        let inbox = Arc::new(Inbox::default());
        let pump = tokio::spawn(Inbox::pump(Arc::clone(&inbox)));
        tokio::task::yield_now().await;
        let holds = [inbox.hold(), inbox.hold()];
        let mut done = [work(&inbox), work(&inbox)];
        for hold in holds {
            assert!(done.iter_mut().all(|done| done.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
            drop(hold);
            tokio::task::yield_now().await;
        }
        for done in done {
            done.await.unwrap();
        }
        drop(inbox.hold());
        work(&inbox).await.unwrap();
        pump.abort();
    }

    #[test]
    fn whoever_waits_for_work_whose_runtime_has_ended_waits_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let inbox = Arc::new(Inbox::default());
        runtime.spawn(Inbox::pump(Arc::clone(&inbox)));
        let mut before = work(&inbox);
        drop(runtime);
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let mut after = work(&inbox);
        assert_eq!(after.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
