//! The check for resources of this process: [`FenceGuard`].
//!
//! One mutex per resource, found through a map under a mutex of its own; the first is held while the resource is
//! written, the second for a look-up only. Bounded: of the resources that nobody writes at the moment, those with the
//! lowest fences are forgotten, and what is forgotten raises a floor that every unknown resource is measured by. So
//! forgetting can refuse a holder that was within its rights, and never lets one pass that was not.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::StaleFence;
use crate::key::FencingToken;

/// Remembers, for each resource of this process, the highest fence that it was written under, and refuses lower ones.
///
/// `R` names a resource: a key, a path, the number of an account. Share the guard (an `Arc`, a `static`) between all
/// who write.
///
/// # What it forgets
/// It remembers [`FenceGuard::CAPACITY`] resources unless it was made with another number. Beyond that it forgets
/// those with the lowest fences, an eighth at a time, and from then on refuses to an unknown resource every fence
/// below the highest that it forgot. Fences follow the clock, so a fresh grant passes; refused by mistake is only a
/// holder that writes a resource for the first time, or the first time in long, under a grant that is older than all
/// that is remembered. It takes the lock anew.
///
/// A guard is gone with its process. If the resource outlives it, keep the fence with the resource, or make the new
/// guard with a [floor](FenceGuard::with_floor).
///
/// # Examples
/// ```
/// use leasehold::fence::FenceGuard;
///
/// # #[actix_rt::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let locks = leasehold::LockManager::builder().build()?;
/// let stock = FenceGuard::new();
///
/// let paused = locks.lock("stock:7").await?.fencing_token().expect("memory mode has fences");
/// let awake = locks.lock("stock:7").await?.fencing_token().expect("memory mode has fences");
/// stock.write("stock:7", awake, || println!("written"))?;
/// assert!(stock.write("stock:7", paused, || println!("never")).is_err());
/// # Ok(())
/// # }
/// ```
pub struct FenceGuard<R = String> {
    known: Mutex<Known<R>>,
    capacity: usize,
}

struct Known<R> {
    resources: HashMap<R, Highest>,
    /// No resource that is not known was seen under a higher fence.
    floor: Option<FencingToken>,
}

/// Of one resource. Whoever has a second handle is about to write, or writes.
type Highest = Arc<Mutex<FencingToken>>;

impl<R: Eq + Hash> FenceGuard<R> {
    /// How many resources a guard remembers unless another number is set.
    pub const CAPACITY: usize = 65_536;

    /// A guard that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// A guard that remembers at most `capacity` resources, and those that are being written.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let known = Known { resources: HashMap::new(), floor: None };
        Self { known: Mutex::new(known), capacity: capacity.max(1) }
    }

    /// Refuses every fence below `floor`: the highest fence that the resources had seen when their state was saved.
    #[must_use]
    pub fn with_floor(mut self, floor: FencingToken) -> Self {
        let known = self.known.get_mut();
        known.floor = known.floor.max(Some(floor));
        self
    }

    /// Calls `write` if no higher fence has been seen for `resource`, and remembers the fence. While it runs nobody
    /// else writes this resource through the guard, so that no pause comes between the check and the write.
    ///
    /// Others wait, with their threads: keep it short. Writing the same resource from within deadlocks. If `write`
    /// panics, the fence counts as seen.
    ///
    /// # Errors
    /// [`StaleFence`] if a higher one was seen, or may have been and is forgotten. Nothing was called then.
    pub fn write<Q, T>(&self, resource: &Q, fence: FencingToken, write: impl FnOnce() -> T) -> Result<T, StaleFence>
    where
        R: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = R> + ?Sized,
    {
        let resource = self.find(resource, fence)?;
        let mut highest = resource.lock();
        admit(fence, *highest)?;
        *highest = fence;
        Ok(write())
    }

    /// Checks the fence and remembers it, for a resource whose writes come one after the other anyhow (one thread or
    /// actor owns it) and follow the check at once. Elsewhere use [`FenceGuard::write`].
    ///
    /// # Errors
    /// [`StaleFence`], as for [`FenceGuard::write`].
    pub fn admit<Q>(&self, resource: &Q, fence: FencingToken) -> Result<(), StaleFence>
    where
        R: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = R> + ?Sized,
    {
        self.write(resource, fence, || ())
    }

    /// The highest fence seen for `resource`; where nothing is remembered of it, the floor, if there is one.
    #[must_use]
    pub fn highest<Q>(&self, resource: &Q) -> Option<FencingToken>
    where
        R: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let known = self.known.lock();
        let Some(found) = known.resources.get(resource).map(Arc::clone) else { return known.floor };
        drop(known);
        let highest = *found.lock();
        Some(highest)
    }

    /// The handle of a resource, made if the fence may be its first.
    fn find<Q>(&self, resource: &Q, fence: FencingToken) -> Result<Highest, StaleFence>
    where
        R: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = R> + ?Sized,
    {
        let mut known = self.known.lock();
        if let Some(found) = known.resources.get(resource) {
            return Ok(Arc::clone(found));
        }
        if let Some(floor) = known.floor {
            admit(fence, floor)?;
        }
        if known.resources.len() >= self.capacity {
            let surplus = known.resources.len() - self.capacity;
            known.forget(surplus + self.capacity.div_ceil(8));
        }
        let found = Arc::new(Mutex::new(fence));
        known.resources.insert(resource.to_owned(), Arc::clone(&found));
        Ok(found)
    }
}

fn admit(shown: FencingToken, seen: FencingToken) -> Result<(), StaleFence> {
    if shown < seen { Err(StaleFence::refused(shown, seen)) } else { Ok(()) }
}

impl<R: Eq + Hash> Known<R> {
    /// Forgets about `count` resources, those with the lowest fences that nobody has a handle of.
    fn forget(&mut self, count: usize) {
        // Nobody gets a handle but through this map, so an only handle stays one.
        let idle = |highest: &Highest| (Arc::strong_count(highest) == 1).then(|| *highest.lock());
        let mut fences: Vec<FencingToken> = self.resources.values().filter_map(idle).collect();
        if fences.is_empty() {
            return;
        }
        let at = count.min(fences.len()) - 1;
        let (_, &mut last, _) = fences.select_nth_unstable(at);
        self.floor = self.floor.max(Some(last));
        self.resources.retain(|_, highest| idle(highest).is_none_or(|fence| fence > last));
    }
}

impl<R: Eq + Hash> Default for FenceGuard<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> fmt::Debug for FenceGuard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.lock();
        let mut shown = f.debug_struct("FenceGuard");
        shown.field("resources", &known.resources.len()).field("floor", &known.floor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn fence(number: u64) -> FencingToken {
        FencingToken::at_least_one(number)
    }

    #[test]
    fn a_lower_fence_is_refused_and_an_equal_one_is_the_same_holder() {
        let guard = FenceGuard::<String>::new();
        assert_eq!(guard.highest("a"), None);
        assert_eq!(guard.write("a", fence(7), || 1), Ok(1));
        assert_eq!(guard.write("a", fence(7), || 2), Ok(2));
        assert_eq!(guard.write("a", fence(9), || 3), Ok(3));
        let refused = guard.write("a", fence(8), || unreachable!("a stale holder writes nothing"));
        let stale = StaleFence { shown: fence(8), seen: fence(9) };
        assert_eq!(refused, Err::<(), _>(stale));
        assert_eq!(stale.to_string(), "the fence 8 is stale: 9 was seen");
        assert_eq!(guard.admit("b", fence(1)), Ok(()), "another resource has its own");
        assert_eq!(guard.highest("a"), Some(fence(9)));
    }

    #[test]
    fn what_is_forgotten_is_never_let_in_again_by_an_older_holder() {
        let guard = FenceGuard::<u64>::with_capacity(16);
        let mut highest = [0; 100];
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..20_000_u64 {
            let resource = random.u64(0..100);
            let shown = 1 + random.u64(round / 10..=round);
            let admitted = guard.admit(&resource, fence(shown));
            let seen = &mut highest[resource as usize];
            assert!(admitted.is_err() || shown >= *seen, "{shown} after {seen}");
            // The newest of all is always let in.
            assert!(admitted.is_ok() || shown <= round, "{shown} in round {round}");
            if admitted.is_ok() {
                *seen = shown;
            }
            assert!(guard.known.lock().resources.len() <= 16);
        }
    }

    #[test]
    fn a_refused_resource_takes_no_room() {
        let guard = FenceGuard::<u64>::new().with_floor(fence(100)).with_floor(fence(50));
        for resource in 0..10 {
            assert_eq!(guard.admit(&resource, fence(99)), Err(StaleFence { shown: fence(99), seen: fence(100) }));
        }
        assert_eq!(guard.known.lock().resources.len(), 0);
        assert_eq!(guard.admit(&1, fence(100)), Ok(()));
    }

    #[test]
    fn a_resource_that_is_being_written_is_not_forgotten() {
        let guard = FenceGuard::<u64>::with_capacity(1);
        guard
            .write(&0, fence(1), || {
                for resource in 1..50 {
                    guard.admit(&resource, fence(resource + 1)).unwrap();
                }
                assert!(guard.known.lock().resources.contains_key(&0));
            })
            .unwrap();
        // The newcomer finds nobody to forget but the one that was written.
        guard.admit(&99, fence(99)).unwrap();
        assert!(!guard.known.lock().resources.contains_key(&0));
        assert!(guard.admit(&0, fence(1)).is_err());
    }

    #[test]
    fn the_check_and_the_write_are_one_step() {
        let guard = FenceGuard::<String>::new();
        let written = AtomicU64::new(0);
        let (paused, go_on) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let write = || {
                    paused.wait();
                    go_on.wait();
                    written.store(1, Ordering::SeqCst);
                };
                guard.write("a", fence(1), write).unwrap();
            });
            paused.wait();
            // Admitted while the older one is between its check and its write: it has to wait.
            let newer = scope.spawn(|| guard.write("a", fence(2), || written.swap(2, Ordering::SeqCst)));
            while Arc::strong_count(&guard.known.lock().resources["a"]) < 3 && !newer.is_finished() {
                std::thread::yield_now();
            }
            go_on.wait();
            assert_eq!(newer.join().unwrap(), Ok(1));
        });
        assert_eq!(written.into_inner(), 2);
    }
}
