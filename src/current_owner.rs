//! On whose behalf code runs: inside the callback of a [`run`](crate::LockManager::run), its owner.
//!
//! A callback's future is polled within [`enter`]; a request that is first polled there belongs to the callback's
//! owner, so that the deadlock check sees a nested lock and the outer one in the same hands. It follows the poll, not
//! the task: what a callback spawns runs on its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::table::Owner;

/// A manager, while it lives: an owner means nothing to a manager other than its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ManagerId(pub(crate) usize);

/// An owner, and of which manager; `None`: nobody, whatever the manager.
type Caller = Option<(ManagerId, Arc<Owner>)>;

thread_local! {
    /// How many callers there are: as many as `CALLERS` has. Every request reads it, and it is nearly always 0.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static CALLERS: RefCell<Vec<Caller>> = const { RefCell::new(Vec::new()) };
}

/// Whether there is any caller.
#[inline]
pub(crate) fn is_there() -> bool {
    DEPTH.get() != 0
}

/// The innermost caller that is an owner of this manager, if there is one.
pub(crate) fn current(manager: ManagerId) -> Option<Arc<Owner>> {
    CALLERS.with_borrow(|callers| {
        let mut inner_first = callers.iter().rev();
        let innermost = inner_first.find(|caller| caller.as_ref().is_none_or(|(of, _)| *of == manager))?;
        innermost.as_ref().map(|(_, owner)| Arc::clone(owner))
    })
}

/// Makes every request of this manager in this thread this owner's, until the answer is dropped.
pub(crate) fn enter(manager: ManagerId, owner: &Arc<Owner>) -> Entered {
    push(Some((manager, Arc::clone(owner))))
}

/// Makes every request in this thread nobody's, until the answer is dropped: what several share is not the first one's.
pub(crate) fn enter_nobody() -> Entered {
    push(None)
}

fn push(caller: Caller) -> Entered {
    CALLERS.with_borrow_mut(|callers| callers.push(caller));
    DEPTH.set(DEPTH.get() + 1);
    Entered { _not_send: std::marker::PhantomData }
}

/// Leaves again when dropped, also by a panic.
#[must_use]
pub(crate) struct Entered {
    /// It belongs to its thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // What is dropped here is no lock, so that nothing runs that would come back.
        let _ = CALLERS.with_borrow_mut(Vec::pop);
    }
}
