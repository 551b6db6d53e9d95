//! Lists of the held locks, page by page: [`LockManager::list`], [`list_by`](LockManager::list_by),
//! [`list_page`](LockManager::list_page), and of those that a store keeps:
//! [`list_store`](LockManager::list_store).
//!
//! There is no index: it would cost every grant and release. A list is one walk over the shards, in slices, that copies
//! nothing but what it shows, and several lists share one walk.

use std::collections::BinaryHeap;

use futures_util::StreamExt;

use super::info::LockInfo;
use super::list_order::{ListOrder, Ranked, candidate};
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::store::{Holder, Scanned, StoreError};
use crate::table::Candidate;

/// So many keys that several share are asked for at a time.
const SHARED_AT_ONCE: usize = 32;

/// Which locks to list.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold::{ListQuery, LockManager};
/// let locks = LockManager::builder().build()?;
/// let mut query = ListQuery::new().prefix("order:").limit(100);
/// loop {
///     let page = locks.list_page(&query);
///     for lock in &page.locks {
///         println!("{}", lock.key);
///     }
///     let Some(next) = page.next else { break };
///     query = query.after(next);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct ListQuery {
    /// Any of them.
    prefixes: Vec<String>,
    order: ListOrder,
    limit: usize,
    after: Option<Key>,
}

/// Some of the held locks.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct ListPage {
    /// The locks, in the order that was asked for.
    pub locks: Vec<LockInfo>,
    /// Whether there are more than these.
    pub truncated: bool,
    /// Where the next page begins: give it to [`ListQuery::after`]. `None` at the end, and in orders that are not by
    /// key.
    pub next: Option<Key>,
}

/// Some of the locks that a store keeps.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct StorePage {
    /// The locks, in no order.
    pub locks: Vec<LockInfo>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { prefixes: vec![String::new()], order: ListOrder::Key, limit: 100, after: None }
    }
}

impl ListQuery {
    /// The first 100 locks by their keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only keys that begin so, as the manager [keeps](LockManager::canonical_prefix) them.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.prefixes([prefix.into()])
    }

    /// Only keys that begin with one of these; none of them: no key at all.
    pub fn prefixes(mut self, prefixes: impl IntoIterator<Item = String>) -> Self {
        self.prefixes = prefixes.into_iter().collect();
        self
    }

    /// In which order; by their keys, unless it is set.
    pub fn order(mut self, order: ListOrder) -> Self {
        self.order = order;
        self
    }

    /// How many at most; 100 unless it is set.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Only what comes behind this key, in the order by key: pages are complete for all locks that live throughout. In
    /// an order that is not by key: only keys above it.
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }

    fn admits(&self, key: &Key) -> bool {
        let begins = |prefix: &String| key.as_bytes().starts_with(prefix.as_bytes());
        self.after.as_ref().is_none_or(|after| self.order.is_behind(key, after)) && self.prefixes.iter().any(begins)
    }
}

/// The first locks of one query, as far as the walk has come, and one more: its heap's top is the last of them.
struct Gathered<'a> {
    query: &'a ListQuery,
    first: BinaryHeap<Ranked>,
}

impl Gathered<'_> {
    fn wants(&self, seen: &Candidate<'_>) -> bool {
        let room = self.first.len() <= self.query.limit;
        let last = || {
            self.first.peek().is_none_or(|Ranked(last, order)| order.compare_candidates(seen, &candidate(last)).is_lt())
        };
        self.query.admits(seen.key) && (room || last())
    }

    fn take(&mut self, info: LockInfo) {
        self.first.push(Ranked(info, self.query.order));
        if self.first.len() > self.query.limit + 1 {
            self.first.pop();
        }
    }

    fn page(self) -> ListPage {
        let query = self.query;
        let mut locks: Vec<LockInfo> = self.first.into_sorted_vec().into_iter().map(|Ranked(info, _)| info).collect();
        let truncated = locks.len() > query.limit;
        locks.truncate(query.limit);
        let by_key = matches!(query.order, ListOrder::Key | ListOrder::KeyDescending);
        let next = locks.last().filter(|_| truncated && by_key).map(|last| last.key.clone());
        ListPage { locks, truncated, next }
    }
}

impl LockManager {
    /// The held locks whose keys, as this manager [keeps](Self::canonical_prefix) them, begin with `prefix`: the first
    /// `limit` in the order of their keys.
    ///
    /// Looked at in slices while others go on locking: a lock that comes or goes meanwhile may be in it or not.
    #[must_use]
    pub fn list(&self, prefix: &str, limit: usize) -> Vec<LockInfo> {
        self.list_by(prefix, ListOrder::Key, limit)
    }

    /// The same in another order: the first `limit` of it.
    #[must_use]
    pub fn list_by(&self, prefix: &str, order: ListOrder, limit: usize) -> Vec<LockInfo> {
        self.list_page(&ListQuery::new().prefix(prefix).order(order).limit(limit)).locks
    }

    /// One page of the held locks. It looks at the whole table, some tens of nanoseconds for each lock in it; the
    /// routes of `http` share one look between all who ask at the same time.
    #[must_use]
    pub fn list_page(&self, query: &ListQuery) -> ListPage {
        self.list_pages(std::slice::from_ref(query)).pop().unwrap_or_default()
    }

    /// Whether the locks are in a store too: then [`list`](Self::list) shows those that are held through this manager,
    /// and others may hold more.
    #[must_use]
    pub fn has_store(&self) -> bool {
        self.client().is_some()
    }

    /// Some of the locks that the store keeps, whoever holds them: about `limit` of those that begin with `prefix`, in
    /// no order, and perhaps none though there are more. `cursor` is where the page before said that it goes on. What
    /// this manager holds is shown as [`inspect`](Self::inspect) shows it, and what it only keeps is not; so is what several
    /// share, whoever they are, each of which is asked for by itself. Of the others it is known for how long they last, and
    /// whether another process may only keep them ([`Location::Claimed`](crate::Location::Claimed)).
    ///
    /// `None` if there is no store, or if it cannot list its keys (Redlock's nodes cannot).
    ///
    /// # Errors
    /// [`LockError::StoreUnavailable`]; [`LockError::InvalidOption`] for a cursor that is none.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn list_store(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Option<StorePage>, LockError> {
        let Some(client) = self.client() else { return Ok(None) };
        let answer = client.scan(prefix.to_owned(), cursor.map(str::to_owned), limit).await;
        let page = match answer.unwrap_or(Err(StoreError::NotRunning)) {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(None),
            Err(StoreError::Config(_)) => {
                return Err(LockError::InvalidOption { option: "cursor", why: "it is none of this store's" });
            }
            Err(_) => return Err(LockError::StoreUnavailable),
        };
        let scanned = page.locks.into_iter().filter(|lock| lock.key.as_bytes().starts_with(prefix.as_bytes()));
        let seen = futures_util::stream::iter(scanned).map(|lock| self.seen(lock)).buffered(SHARED_AT_ONCE);
        let locks = seen.filter_map(std::future::ready).collect().await;
        Ok(Some(StorePage { locks, next: page.next }))
    }

    /// What a list shows of a key that the store keeps.
    async fn seen(&self, Scanned { key, ends_in, by, .. }: Scanned) -> Option<LockInfo> {
        let (shard, hash) = self.place(&key);
        let shard = self.shard_at(shard);
        if by == Holder::Sharing
            && let Ok(found) = self.look(key.clone()).await
        {
            // `None`: it has come free meanwhile.
            return found;
        }
        match shard.look(&key, hash, 1) {
            Some(row) => Some(row.into()),
            // What this process only keeps is no lock.
            None if shard.idle_token(&key, hash).is_some() => None,
            None => {
                let awaiting = shard.awaiting(&key, hash, 1);
                Some(LockInfo::elsewhere((key, by), ends_in, None, awaiting))
            }
        }
    }

    /// Several lists by one walk.
    pub(crate) fn list_pages(&self, queries: &[ListQuery]) -> Vec<ListPage> {
        let mut all: Vec<Gathered<'_>> =
            queries.iter().map(|query| Gathered { query, first: BinaryHeap::new() }).collect();
        for shard in self.shards() {
            shard.scan(
                &mut all,
                |all, seen| all.iter().any(|gathered| gathered.wants(seen)),
                |all, row| {
                    let info = LockInfo::from(row);
                    let seen = candidate(&info);
                    let wanting: Vec<usize> = (0..all.len()).filter(|at| all[*at].wants(&seen)).collect();
                    wanting.into_iter().for_each(|at| all[at].take(info.clone()));
                },
            );
        }
        all.into_iter().map(Gathered::page).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_one_after_the_other_and_leave_nothing_out() {
        let locks = LockManager::builder().build().unwrap();
        let held: Vec<_> = (0..250).map(|n| locks.try_lock_now(format!("a:{n:03}")).unwrap()).collect();
        let _other = locks.try_lock_now("b").unwrap();
        for (order, first) in [(ListOrder::Key, "a:000"), (ListOrder::KeyDescending, "a:249")] {
            let mut query = ListQuery::new().prefix("a:").order(order).limit(100);
            let (mut pages, mut keys) = (0, Vec::new());
            loop {
                let page = locks.list_page(&query);
                assert_eq!(page.next.is_some(), page.truncated);
                keys.extend(page.locks.into_iter().map(|lock| lock.key));
                pages += 1;
                let Some(next) = page.next else { break };
                query = query.after(next);
            }
            assert_eq!((pages, keys.len(), keys[0].as_str()), (3, 250, first));
            keys.dedup();
            assert_eq!(keys.len(), 250);
        }
        let by_age = locks.list_page(&ListQuery::new().order(ListOrder::LongestHeld).limit(5));
        assert!(by_age.truncated && by_age.next.is_none() && by_age.locks.len() == 5);
        let several = ListQuery::new().prefixes(["b".to_owned(), "a:24".to_owned()]);
        assert_eq!(locks.list_page(&several).locks.len(), 11);
        assert!(locks.list_page(&ListQuery::new().prefixes([])).locks.is_empty());
        drop(held);
    }
}
