//! On whose behalf code runs: inside the callback of a [`run`](crate::LockManager::run), its owner.
//!
//! A callback's future is polled within [`enter`]; a request that is first polled there belongs to the callback's
//! owner, so that the deadlock check sees a nested lock and the outer one in the same hands. It follows the poll, not
//! the task: what a callback spawns runs on its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::table::{Grant, Owner};

/// A manager, while it lives: an owner means nothing to a manager other than its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ManagerId(pub(crate) usize);

/// On whose behalf a callback's requests are.
#[derive(Clone)]
pub(crate) enum Caller {
    Owner(Arc<Owner>),
    /// The callback of this grant, in this shard. It is no owner yet: most callbacks ask for nothing, and then there is
    /// nobody who has to know whose their lock is.
    Holder {
        shard: u32,
        grant: Grant,
        /// Who else is to know when it becomes one.
        watch: Option<Arc<dyn OwnerWatch>>,
    },
}

/// Who is told that a callback has become an owner, before anything is asked for on its behalf.
pub(crate) trait OwnerWatch: Send + Sync {
    fn becomes(&self, owner: &Arc<Owner>);
}

/// A caller, and of which manager; `None`: nobody, whatever the manager.
type Entry = Option<(ManagerId, Caller)>;

thread_local! {
    /// How many callers there are: as many as `CALLERS` has. Every request reads it, and it is nearly always 0.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static CALLERS: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Whether there is any caller.
#[inline]
pub(crate) fn is_there() -> bool {
    DEPTH.get() != 0
}

/// The innermost caller of this manager, if there is one. `make` makes an owner of the holder of a grant.
pub(crate) fn current(manager: ManagerId, make: impl FnOnce(u32, &Grant) -> Arc<Owner>) -> Option<Arc<Owner>> {
    let (at, caller) = CALLERS.with_borrow(|callers| {
        let at = callers.iter().rposition(|entry| entry.as_ref().is_none_or(|(of, _)| *of == manager))?;
        callers[at].clone().map(|(_, caller)| (at, caller))
    })?;
    match caller {
        Caller::Owner(owner) => Some(owner),
        Caller::Holder { shard, grant, watch } => {
            let owner = make(shard, &grant);
            watch.iter().for_each(|watch| watch.becomes(&owner));
            CALLERS.with_borrow_mut(|callers| callers[at] = Some((manager, Caller::Owner(Arc::clone(&owner)))));
            Some(owner)
        }
    }
}

/// Makes every request of this manager in this thread this caller's, until the answer is dropped or gives the caller back.
pub(crate) fn enter(manager: ManagerId, caller: Caller) -> Entered {
    push(Some((manager, caller)))
}

/// Makes every request in this thread nobody's, until the answer is dropped: what several share is not the first one's.
pub(crate) fn enter_nobody() -> Entered {
    push(None)
}

fn push(entry: Entry) -> Entered {
    CALLERS.with_borrow_mut(|callers| callers.push(entry));
    DEPTH.set(DEPTH.get() + 1);
    Entered { is_in: true, _not_send: std::marker::PhantomData }
}

/// Leaves again when dropped, also by a panic.
#[must_use]
pub(crate) struct Entered {
    is_in: bool,
    /// It belongs to its thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Entered {
    /// Leaves, and gives the caller back, who may be an owner now.
    #[inline]
    pub(crate) fn leave(mut self) -> Option<Caller> {
        self.is_in = false;
        pop().map(|(_, caller)| caller)
    }
}

#[inline]
fn pop() -> Entry {
    DEPTH.set(DEPTH.get() - 1);
    CALLERS.try_with(|callers| callers.borrow_mut().pop()).ok().flatten().flatten()
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.is_in {
            // What is dropped here is no lock, so that nothing runs that would come back.
            drop(pop());
        }
    }
}
