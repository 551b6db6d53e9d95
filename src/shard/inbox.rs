//! Work on its way to the manager's runtime: [`Inbox`].
//!
//! A runtime of one thread is woken by a system call for each task that is spawned from another thread. Callers come in
//! crowds: all that one batch of answers wakes ask anew at once. So they put their work here, and wake one task of the
//! runtime, which spawns it all.
//!
//! | state | [`Inbox::put`] |
//! |---|---|
//! | empty | keeps the work, and wakes the task |
//! | not empty | keeps the work: the task was woken |
//! | closed, since the runtime has ended | drops the work, and with it whatever waits for its answer ends |

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::BoxFuture;

/// Work that is not spawned yet.
pub(super) struct Inbox {
    /// `None`: closed.
    work: Mutex<Option<Vec<Work>>>,
    filled: Notify,
}

type Work = BoxFuture<'static, ()>;

impl Default for Inbox {
    fn default() -> Self {
        Self { work: Mutex::new(Some(Vec::new())), filled: Notify::new() }
    }
}

impl Inbox {
    /// Has the work spawned soon.
    pub(super) fn put(&self, work: Work) {
        let is_first = match &mut *self.work.lock() {
            Some(waiting) => {
                waiting.push(work);
                waiting.len() == 1
            }
            None => false,
        };
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Spawns what is put here, for as long as the runtime that it is polled on lives.
    pub(super) fn pump(this: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Made here: a runtime may end before it has polled the future once.
        let open = Open(this);
        async move {
            loop {
                open.0.filled.notified().await;
                for work in open.0.take() {
                    tokio::spawn(work);
                }
            }
        }
    }

    fn take(&self) -> Vec<Work> {
        self.work.lock().as_mut().map(std::mem::take).unwrap_or_default()
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
