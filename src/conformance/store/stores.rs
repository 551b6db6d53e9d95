//! Two instances of a store, as the checks have them.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::wait;
use crate::store::Store;

/// Two instances of a store, started on a runtime of their own.
#[derive(Debug)]
pub struct Stores {
    /// The store of one process.
    pub one: Arc<dyn Store>,
    /// The store of another process.
    pub other: Arc<dyn Store>,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Stores {
    /// Makes and starts them.
    ///
    /// # Panics
    /// If they do not start.
    #[must_use]
    pub fn start(make: &impl Fn() -> Arc<dyn Store>) -> Self {
        let (one, other, end) = (make(), make(), CancellationToken::new());
        let (started, start) = mpsc::channel();
        let (here, there, ended) = (Arc::clone(&one), Arc::clone(&other), end.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a thread can have a runtime").block_on(async move {
                let both = (here.start().await, there.start().await);
                // The receiver waits for it, or has panicked.
                let _ = started.send(both);
                ended.cancelled().await;
            });
        });
        let both = start.recv().expect("the thread sends the results");
        assert_eq!(both, (Ok(()), Ok(())), "the stores start");
        Self { one, other, end, thread: Some(thread) }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        wait(self.one.stop());
        wait(self.other.stop());
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported there.
            let _ = thread.join();
        }
    }
}
