//! What can be seen of a lock from outside: who holds it, who waits, and how the last ones ended. Never a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::inspect::SHOWN;
use super::stats::Stats;
use crate::clock::Moment;
use crate::error::Loss;
use crate::key::{FencingToken, Key};
use crate::readable::readable;
use crate::store::{self, HoldInfo, NodeVote};
use crate::table::{Awaiting, End, EndRecord, HolderInfo, Mode, Row, WaiterInfo};

/// A held lock, as others may see it: everything but its token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LockInfo {
    /// The key.
    pub key: Key,
    /// Who knows of it.
    pub location: Location,
    /// How it is held.
    pub mode: Mode,
    /// Who said that they hold it. Where several do, this and what follows is of the first of
    /// [`holders`](Self::holders).
    pub owner: Option<Arc<str>>,
    /// The fencing token of the grant; `None` where its store promises none.
    pub fencing_token: Option<FencingToken>,
    /// For how long it has been held.
    pub age: Duration,
    /// The time until its deadline.
    pub remaining: Duration,
    /// The TTL it was asked for with.
    pub ttl: Duration,
    /// How often it was refreshed.
    pub refreshes: u32,
    /// How many hold it.
    pub held_by: usize,
    /// The first of those who hold it, in the order of their fencing tokens; [`list`](crate::LockManager::list) names
    /// one. Over a store [`inspect`](crate::LockManager::inspect) and [`explain`](crate::LockManager::explain) name those
    /// too who share it in other processes, without owner, age and TTL.
    pub holders: Vec<HolderInfo>,
    /// How many wait for it.
    pub waiting: usize,
    /// For how long the first of them has waited.
    pub longest_wait: Option<Duration>,
    /// The first of those who wait, in order; only [`inspect`](crate::LockManager::inspect) and
    /// [`explain`](crate::LockManager::explain) fill it.
    pub queue: Vec<WaiterInfo>,
    /// The key's own totals, once somebody had to wait for it or was refused, for as long as it stays in the table.
    pub stats: Option<Stats>,
    /// Over a store of several nodes, for whom each of them stands; only [`inspect`](crate::LockManager::inspect) and
    /// [`explain`](crate::LockManager::explain) fill it.
    pub votes: Vec<NodeVote>,
}

/// Who knows of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// This process holds it.
    Here,
    /// The store says that another process holds it, or another client of the store. All that is known of it is for how
    /// long (a key that has no end there: [`Duration::MAX`]) and perhaps its fencing token: it has no owner, age and
    /// TTL are zero, and those who wait are those of this process.
    Elsewhere,
    /// The same, and another process of this kind has a claim on it: it holds the key, or keeps it between two of its
    /// locks ([`ClaimReuse::Linger`](crate::store::ClaimReuse::Linger)). Which, only that process knows. A key that is
    /// held for sure is [`Elsewhere`](Self::Elsewhere): one with more than three seconds left, or, if it was taken for a
    /// [ticket](crate::LockRequest::ticket), one with a TTL of more than a minute.
    Claimed,
}

impl LockInfo {
    /// A lock that the store knows of, and those who wait for it here.
    pub(crate) fn elsewhere(
        (key, by): (Key, store::Holder),
        ends_in: Option<Duration>,
        fence: Option<u64>,
        awaiting: Awaiting,
    ) -> Self {
        let Awaiting { waiting, contended, queue } = awaiting;
        let first = HolderInfo::elsewhere(&HoldInfo::new(by, Mode::Exclusive, ends_in, fence));
        let longest_wait = queue.first().map(|waiter| waiter.waited);
        let row = Row { key, holders: vec![first], held_by: 1, waiting, longest_wait, contended, queue };
        let location = if by == store::Holder::Claim { Location::Claimed } else { Location::Elsewhere };
        Self { location, ..Self::from(row) }
    }

    /// The same lock with those who share it in the store, in this process and in others.
    pub(crate) fn shared_by(mut self, holds: &[HoldInfo]) -> Self {
        if self.location != Location::Here && !holds.is_empty() {
            self.holders.clear();
        }
        let known: Vec<_> = self.holders.iter().map(|holder| holder.fencing_token).collect();
        let all_known = known.len() >= self.held_by;
        let elsewhere = holds.iter().map(HolderInfo::elsewhere);
        let elsewhere: Vec<_> = elsewhere.filter(|holder| !known.contains(&holder.fencing_token)).collect();
        self.held_by = match self.location {
            // One share of the store may be several holders here.
            Location::Here if all_known => self.held_by + elsewhere.len(),
            Location::Here => self.held_by.max(holds.len()),
            _ => holds.len().max(1),
        };
        self.holders.extend(elsewhere);
        self.holders.sort_by_key(|holder| holder.fencing_token);
        self.holders.truncate(SHOWN);
        if let Some(first) = self.holders.first().filter(|_| self.location != Location::Here) {
            (self.mode, self.fencing_token, self.remaining) = (first.mode, first.fencing_token, first.remaining);
        }
        self
    }
}

impl HolderInfo {
    /// Whether another process holds it so: nothing is known of it then but its mode, its end and its fencing token.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        // No lock of this process has no TTL.
        self.ttl.is_zero()
    }

    /// One whom the store knows of.
    fn elsewhere(hold: &HoldInfo) -> Self {
        Self {
            owner: None,
            mode: hold.mode,
            fencing_token: hold.fence.map(FencingToken::at_least_one),
            age: Duration::ZERO,
            remaining: hold.ends_in.unwrap_or(Duration::MAX),
            ttl: Duration::ZERO,
            refreshes: 0,
            revocation_notice: None,
            upgrading: None,
        }
    }
}

impl From<Row> for LockInfo {
    fn from(row: Row) -> Self {
        let Row { key, holders, held_by, waiting, longest_wait, contended, queue } = row;
        // There is always a first.
        let HolderInfo { owner, mode, fencing_token, age, remaining, ttl, refreshes, .. } = holders[0].clone();
        let stats = contended.map(|counters| Stats::new(&counters, held_by as u64, u64::from(waiting)));
        Self {
            key,
            location: Location::Here,
            mode,
            owner,
            fencing_token,
            age,
            remaining,
            ttl,
            refreshes,
            held_by,
            holders,
            waiting: waiting as usize,
            longest_wait,
            queue,
            stats,
            votes: Vec::new(),
        }
    }
}

/// All that is known of a key: [`explain`](crate::LockManager::explain).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// Who holds it and who waits, if it is held.
    pub lock: Option<LockInfo>,
    /// How its last locks ended, the last one first: what is left of the last 128 ends of its shard, at most 16.
    pub ended: Vec<EndedLock>,
}

/// A lock that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedLock {
    /// Who said that they held it.
    pub owner: Option<Arc<str>>,
    /// The fencing token of the grant; `None` where its store promises none.
    pub fencing_token: Option<FencingToken>,
    /// Why it ended; `None`: its holder let it go, by unlocking it or dropping its guard.
    pub why: Option<Loss>,
    /// For how long it was held.
    pub held: Duration,
    /// How long ago it ended.
    pub ago: Duration,
}

impl EndedLock {
    pub(crate) fn new(trace: EndRecord, owner: Option<Arc<str>>, now: Moment) -> Self {
        let why = match trace.end {
            End::Released | End::Dropped => None,
            other => Some(other.as_loss()),
        };
        let (held, ago) = (trace.held(), now.saturating_since(trace.ended_at));
        Self { owner, fencing_token: trace.proof, why, held, ago }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |owner: &Option<Arc<str>>| readable(owner.as_deref().unwrap_or("anonymous")).into_owned();
        let key = readable(self.key.as_str());
        let fence =
            |fence: &Option<FencingToken>| fence.map_or("no fence".to_owned(), |fence| format!("fence {fence}"));
        match &self.lock {
            None => writeln!(f, "{key} is free")?,
            Some(lock) => {
                writeln!(f, "{key} is held by {}", lock.held_by)?;
                for holder in &lock.holders {
                    let HolderInfo { mode, fencing_token, age, remaining, refreshes, .. } = holder;
                    let owner = name(&holder.owner);
                    match lock.location {
                        Location::Here if !holder.is_elsewhere() => write!(
                            f,
                            "  {owner}, {mode}, {}, for {age:.1?}, refreshed {refreshes} times, ",
                            fence(fencing_token),
                        )?,
                        Location::Here | Location::Elsewhere => {
                            write!(f, "  another process, {mode}, {}, ", fence(fencing_token))?;
                        }
                        Location::Claimed => {
                            write!(f, "  another process, or only kept by it, {}, ", fence(fencing_token))?;
                        }
                    }
                    match *remaining {
                        Duration::MAX => writeln!(f, "without an end")?,
                        remaining => writeln!(f, "ends in {remaining:.1?}")?,
                    }
                }
                for waiter in &lock.queue {
                    let WaiterInfo { position, owner, mode, waited } = waiter;
                    writeln!(f, "  {position}. in the queue: {}, {mode}, for {waited:.1?}", name(owner))?;
                }
                for NodeVote { node, vote } in &lock.votes {
                    writeln!(f, "  node {node}: {}", vote.as_str())?;
                }
            }
        }
        for ended in &self.ended {
            let why = ended.why.map_or("it was let go".to_owned(), |why| why.to_string());
            let EndedLock { owner, fencing_token, held, ago, .. } = ended;
            writeln!(f, "  {ago:.1?} ago: {}, {}, held for {held:.1?}: {why}", name(owner), fence(fencing_token))?;
        }
        Ok(())
    }
}
