//! A thread that writes what others hand to it. It fails, blocks and stops nobody: what comes faster than it can be
//! written is dropped.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// The way to the thread, which ends with the process.
#[derive(Clone)]
pub(crate) struct Writer(SyncSender<Job>);

enum Job {
    Write(Vec<u8>),
    /// Answered when all that came before was written or dropped.
    Flush(SyncSender<()>),
}

/// Why something is not written.
pub(crate) enum Dropped {
    /// As much waits to be written as may.
    Full,
    /// There is no thread.
    Failed,
}

impl Writer {
    /// A thread of this name, for which so many pieces may wait. What writes them is made by `begin`, there.
    pub(crate) fn start<W: FnMut(&[u8])>(
        name: &str,
        waiting: usize,
        begin: impl FnOnce() -> W + Send + 'static,
    ) -> Self {
        let (sender, jobs) = sync_channel(waiting);
        let run = move || {
            let mut write = begin();
            for job in jobs {
                match job {
                    Job::Write(bytes) => write(&bytes),
                    // Whoever waited for it may have gone.
                    Job::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        // Without a thread everything is dropped.
        let _ = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        Self(sender)
    }

    /// Has a piece written.
    pub(crate) fn write(&self, bytes: Vec<u8>) -> Result<(), Dropped> {
        self.0.try_send(Job::Write(bytes)).map_err(|why| match why {
            TrySendError::Full(_) => Dropped::Full,
            TrySendError::Disconnected(_) => Dropped::Failed,
        })
    }

    /// Waits until what came before is written, but not for longer than this.
    pub(crate) fn flush(&self, within: Duration) {
        let (sender, receiver) = sync_channel(1);
        if self.0.try_send(Job::Flush(sender)).is_ok() {
            let _ = receiver.recv_timeout(within);
        }
    }
}
