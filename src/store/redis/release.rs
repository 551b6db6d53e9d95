//! The end of a lock, asked until it is answered (S5, S7).
//!
//! Redis may carry a command out long after its sender gave up. So what may still be coming is waited for: a clean-up
//! ends when a compare-release was answered after the last moment at which a command of its token could run (R5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::acquire::text;
use super::fault::{Fault, Ran, odd};
use super::names::Names;
use super::script::{RELEASE, Reply};
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::store::{BoxFuture, Intent, Released, StoreError};

/// Between two tries that failed although there is a connection.
const RETRY: Duration = Duration::from_millis(50);
/// A server whose clock was set back is asked this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A lock that may exist, or come to exist until `until` (the server's microseconds).
pub(super) struct Uncertain {
    pub(super) names: Names,
    pub(super) token: Token,
    pub(super) until: i64,
}

/// The locks that are being let go, by name and token: their tokens are not granted anew (S5).
#[derive(Default)]
pub(super) struct Marks(Mutex<HashMap<(Box<str>, Token), usize>>);

impl Marks {
    pub(super) fn has(&self, lock: &str, token: Token) -> bool {
        let marks = self.0.lock();
        // Most of the time there are none.
        !marks.is_empty() && marks.contains_key(&(lock.into(), token))
    }
}

/// A lock that is being let go, until this is dropped.
struct Mark {
    shared: Arc<Shared>,
    place: (Box<str>, Token),
}

impl Mark {
    fn set(shared: &Arc<Shared>, lock: &str, token: Token) -> Self {
        let place = (Box::from(lock), token);
        *shared.marks.0.lock().entry(place.clone()).or_default() += 1;
        Self { shared: Arc::clone(shared), place }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut marks = self.shared.marks.0.lock();
        if let Some(count) = marks.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                marks.remove(&self.place);
            }
        }
    }
}

impl Shared {
    pub(super) fn release(self: &Arc<Self>, key: &Key, token: Token) -> BoxFuture<'static, Released> {
        let names = match Names::new(&self.settings.template, key) {
            Ok(names) => names,
            Err(error) => return Box::pin(std::future::ready(Released::Unknown(error))),
        };
        let mark = Mark::set(self, names.lock(), token);
        let (tell, hear) = oneshot::channel();
        let shared = Arc::clone(self);
        self.spawn(async move {
            let mut uncertain = Uncertain { names, token, until: 0 };
            match shared.release_once(&mut uncertain).await {
                Ok(reply) => {
                    drop(mark);
                    // The asker may have gone.
                    let _ = tell.send(released(&reply));
                }
                Err(fault) => {
                    let _ = tell.send(Released::Unknown(fault.error));
                    shared.let_go(mark, uncertain).await;
                }
            }
        });
        Box::pin(async move { hear.await.unwrap_or(Released::Unknown(StoreError::NotRunning)) })
    }

    /// Takes back what a try may have taken, and its place in the queue if nobody else here wants it.
    pub(super) fn take_back(self: &Arc<Self>, uncertain: Uncertain, intent: Intent) {
        let mark = Mark::set(self, uncertain.names.lock(), uncertain.token);
        let shared = Arc::clone(self);
        self.spawn(async move {
            let names = uncertain.names.clone();
            shared.let_go(mark, uncertain).await;
            if intent == Intent::Wait && !shared.tickets.has(names.lock()) {
                shared.leave_queue(&names).await;
            }
        });
    }

    /// Asks until nothing of it can come any more.
    async fn let_go(&self, mark: Mark, mut uncertain: Uncertain) {
        while self.line.up().await.is_ok() {
            let pause = match self.release_once(&mut uncertain).await {
                Ok(reply) if reply.server_us() > uncertain.until => break,
                Ok(reply) => {
                    let wait = u64::try_from(uncertain.until - reply.server_us()).unwrap_or(0);
                    Duration::from_micros(wait + 1000).min(LONGEST_PAUSE)
                }
                Err(_) => RETRY,
            };
            tokio::time::sleep(pause).await;
        }
        drop(mark);
    }

    /// One compare-release. If its answer is unknown, it may be carried out later, too.
    async fn release_once(&self, uncertain: &mut Uncertain) -> Result<Reply, Fault> {
        let Uncertain { names, token, until } = uncertain;
        let begun: Moment = self.ticks.now();
        let mut sent = 0;
        let answer = self
            .call(&RELEASE, begun, |command, limit| {
                sent = limit;
                command.arg(1).arg(names.lock()).arg(text(*token, &mut [0; 36])).arg(names.wake()).arg(limit);
            })
            .await;
        match &answer {
            Err(fault) if fault.ran == Ran::Maybe => *until = sent.max(*until),
            _ => {}
        }
        answer
    }
}

fn released(reply: &Reply) -> Released {
    match reply.code() {
        1 => Released::Released,
        2 => Released::AlreadyGone,
        _ => Released::Unknown(odd().error),
    }
}
