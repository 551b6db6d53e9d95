//! What is still under way for a token whose caller has its answer: [`Underway`].
//!
//! A majority decides, and the slower nodes are heard out later. The token's release may begin meanwhile (R6). To a
//! node that has not answered the acquire yet, the release goes when it has: one that overtook it would find nothing,
//! and the key would stay. Whatever else is under way finds out here, and takes back what it may have done.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Inner;
use crate::key::Token;

#[derive(Default)]
pub(super) struct Underway(Mutex<HashMap<Token, (usize, Arc<Shared>)>>);

/// What the operations of one token share.
#[derive(Default)]
pub(super) struct Shared {
    released: AtomicBool,
    /// The nodes that have an acquire to answer; twice, if they have two.
    asked: Mutex<Vec<usize>>,
    /// The nodes whose release waits for that.
    waiting: Mutex<Vec<usize>>,
    answered: Notify,
}

/// A release that waits for a node's answer.
struct Waiting<'a>(&'a Shared, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        take(&self.0.waiting, self.1);
    }
}

fn take(nodes: &Mutex<Vec<usize>>, node: usize) {
    let mut nodes = nodes.lock();
    if let Some(at) = nodes.iter().position(|other| *other == node) {
        nodes.swap_remove(at);
    }
}

/// One operation that is under way.
pub(super) struct Stay {
    inner: Arc<Inner>,
    token: Token,
    shared: Arc<Shared>,
    /// Those of the nodes that this one has asked.
    asked: Vec<usize>,
}

impl Stay {
    /// Goes on in the background; `asked` are the nodes that have an acquire to answer.
    pub(super) fn begin(inner: &Arc<Inner>, token: Token, asked: Vec<usize>) -> Self {
        let mut entries = inner.underway.0.lock();
        let (stays, shared) = entries.entry(token).or_default();
        *stays += 1;
        let shared = Arc::clone(shared);
        shared.asked.lock().extend(&asked);
        drop(entries);
        Self { inner: Arc::clone(inner), token, shared, asked }
    }

    /// Whether the token's release has not begun.
    pub(super) fn goes_on(&self) -> bool {
        !self.shared.released.load(Ordering::SeqCst)
    }

    /// Whether what the node has given is to stay: nobody wants it released, or whoever does waits for it.
    pub(super) fn keeps(&self, node: usize) -> bool {
        self.goes_on() || self.shared.waiting.lock().contains(&node)
    }

    /// The node has answered, or will not.
    pub(super) fn answered(&mut self, node: usize) {
        if let Some(at) = self.asked.iter().position(|asked| *asked == node) {
            self.asked.swap_remove(at);
            self.shared.answer(node);
        }
    }
}

impl Shared {
    fn answer(&self, node: usize) {
        take(&self.asked, node);
        self.answered.notify_waiters();
    }

    /// Waits until the node has no acquire to answer.
    pub(super) async fn until_answered(&self, node: usize) {
        self.waiting.lock().push(node);
        let _waiting = Waiting(self, node);
        loop {
            let answered = self.answered.notified();
            if !self.asked.lock().contains(&node) {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        for node in std::mem::take(&mut self.asked) {
            self.shared.answer(node);
        }
        let mut entries = self.inner.underway.0.lock();
        if let Some((stays, _)) = entries.get_mut(&self.token) {
            *stays -= 1;
            if *stays == 0 {
                entries.remove(&self.token);
            }
        }
    }
}

impl Underway {
    /// The token's release begins; what is under way for it, if anything is.
    pub(super) fn release(&self, token: Token) -> Option<Arc<Shared>> {
        let entries = self.0.lock();
        let (_, shared) = entries.get(&token)?;
        shared.released.store(true, Ordering::SeqCst);
        Some(Arc::clone(shared))
    }
}
