//! Which server is behind the name of each node, and on which connection each node votes (L1): [`Roll`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::StoreError;

/// The number of no wire.
const NO_WIRE: u64 = u64::MAX;

/// All nodes by their index.
pub(super) struct Roll {
    names: Vec<Arc<str>>,
    /// The run id of the server that was last found behind each name. Held while a node is admitted, so that two names
    /// of one server are never admitted both.
    run_ids: Mutex<Vec<Option<Box<str>>>>,
    /// The wire on which each node was admitted. A start of the server ends its wires, so what was found out on a wire
    /// is true for as long as the wire is up. Written while `run_ids` is held, read without.
    admitted: Vec<AtomicU64>,
}

impl Roll {
    pub(super) fn new(names: Vec<Arc<str>>) -> Self {
        let run_ids = Mutex::new(vec![None; names.len()]);
        let admitted = names.iter().map(|_| AtomicU64::new(NO_WIRE)).collect();
        Self { names, run_ids, admitted }
    }

    pub(super) fn name(&self, node: usize) -> &Arc<str> {
        &self.names[node]
    }

    pub(super) fn has_admitted(&self, node: usize, wire: u64) -> bool {
        self.admitted[node].load(Ordering::Acquire) == wire
    }

    /// Notes which server is behind the node's name. Of two names of one server the second may not vote, whichever is
    /// connected first.
    ///
    /// # Errors
    /// [`StoreError::Config`] if an earlier name is of the same server.
    pub(super) fn introduce(&self, node: usize, run_id: &str) -> Result<(), StoreError> {
        let mut run_ids = self.run_ids.lock();
        run_ids[node] = Some(run_id.into());
        for later in node + 1..run_ids.len() {
            if run_ids[later].as_deref() == Some(run_id) {
                // It is to be admitted again, and will not be.
                self.admitted[later].store(NO_WIRE, Ordering::Release);
            }
        }
        self.check(&run_ids, node, run_id)
    }

    /// Lets the node vote on this wire.
    ///
    /// # Errors
    /// [`StoreError::Config`] if an earlier name of the same server was introduced meanwhile.
    pub(super) fn admit(&self, node: usize, run_id: &str, wire: u64) -> Result<(), StoreError> {
        let run_ids = self.run_ids.lock();
        self.check(&run_ids, node, run_id)?;
        self.admitted[node].store(wire, Ordering::Release);
        Ok(())
    }

    /// The node does not vote until it is admitted again.
    pub(super) fn dismiss(&self, node: usize) {
        self.admitted[node].store(NO_WIRE, Ordering::Release);
    }

    fn check(&self, run_ids: &[Option<Box<str>>], node: usize, run_id: &str) -> Result<(), StoreError> {
        match run_ids[..node].iter().position(|other| other.as_deref() == Some(run_id)) {
            None => Ok(()),
            Some(other) => {
                let why = format!("redlock: {} and {} are the same server", self.names[other], self.names[node]);
                Err(StoreError::Config(why.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_name_of_a_server_does_not_vote_whichever_is_connected_first() {
        let roll = Roll::new(["a", "b", "c"].map(Arc::from).into());
        assert_eq!((roll.introduce(1, "run"), roll.admit(1, "run", 7)), (Ok(()), Ok(())));
        assert!(roll.has_admitted(1, 7) && !roll.has_admitted(1, 8));
        assert_eq!(roll.introduce(0, "run"), Ok(()));
        assert!(!roll.has_admitted(1, 7), "it was admitted before the first name was known");
        assert!(roll.introduce(1, "run").unwrap_err().to_string().contains("a and b are the same server"));
        assert!(roll.admit(1, "run", 9).is_err() && !roll.has_admitted(1, 9));
        assert_eq!((roll.introduce(2, "other"), roll.admit(2, "other", 3)), (Ok(()), Ok(())));
    }
}
