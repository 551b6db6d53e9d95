//! What is still under way for a token whose caller has its answer: [`Underway`].
//!
//! A majority decides, and the slower nodes are heard out later. When the token's release begins meanwhile, nothing of
//! that may leave the key behind on a slow node (R6): whoever is still under way finds out here, and releases again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Inner;
use crate::key::Token;

#[derive(Default)]
pub(super) struct Underway(Mutex<HashMap<Token, Entry>>);

struct Entry {
    stays: usize,
    released: Arc<AtomicBool>,
}

/// One operation that is under way.
pub(super) struct Stay {
    inner: Arc<Inner>,
    token: Token,
    released: Arc<AtomicBool>,
}

impl Stay {
    pub(super) fn begin(inner: &Arc<Inner>, token: Token) -> Self {
        let mut entries = inner.underway.0.lock();
        let entry = entries.entry(token).or_insert_with(|| Entry { stays: 0, released: Arc::default() });
        entry.stays += 1;
        let released = Arc::clone(&entry.released);
        drop(entries);
        Self { inner: Arc::clone(inner), token, released }
    }

    /// Whether the token's release has not begun.
    pub(super) fn goes_on(&self) -> bool {
        !self.released.load(Ordering::SeqCst)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut entries = self.inner.underway.0.lock();
        if let Some(entry) = entries.get_mut(&self.token) {
            entry.stays -= 1;
            if entry.stays == 0 {
                entries.remove(&self.token);
            }
        }
    }
}

impl Underway {
    /// The token's release begins.
    pub(super) fn release(&self, token: Token) {
        if let Some(entry) = self.0.lock().get(&token) {
            entry.released.store(true, Ordering::SeqCst);
        }
    }
}
