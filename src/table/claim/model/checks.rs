//! What must hold after every step, and at the end of a walk.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::fences::LEAD;
use super::super::kept::{KeptClaim, SOON};
use super::store::LastEnd;
use super::world::{Process, World, hash};
use super::{KEYS, Plan, key_at};
use crate::claim_reuse::{ClaimReuse, KeptIdle};
use crate::clock::Moment;
use crate::key::{Token, Ttl};
use crate::table::claim::{Attempts, ClaimEnd, ClaimRequest, Told};
use crate::table::{GrantState, Table};

/// How often a walk came to what is worth checking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) grants: usize,
    pub(super) handed_on: usize,
    pub(super) from_idle: usize,
    pub(super) idle: usize,
    pub(super) wanted: usize,
    pub(super) doubted: usize,
    pub(super) pauses: usize,
    pub(super) unknown: usize,
    pub(super) too_late: usize,
    pub(super) orphans: usize,
    pub(super) exchanged: usize,
}

impl Reached {
    pub(super) fn add(&mut self, other: Self) {
        self.grants += other.grants;
        self.handed_on += other.handed_on;
        self.from_idle += other.from_idle;
        self.idle += other.idle;
        self.wanted += other.wanted;
        self.doubted += other.doubted;
        self.pauses += other.pauses;
        self.unknown += other.unknown;
        self.too_late += other.too_late;
        self.orphans += other.orphans;
        self.exchanged += other.exchanged;
    }

    /// Whether there was some of everything.
    pub(super) fn is_everything(&self, steps_back: bool) -> bool {
        let all = [self.grants, self.handed_on, self.from_idle, self.idle, self.wanted, self.doubted, self.pauses];
        all.into_iter().chain([self.unknown, self.too_late, self.exchanged]).min() > Some(0)
            && (steps_back || self.orphans > 0)
    }
}

/// A grant that a table has made and not ended.
#[derive(Clone, Copy, Debug)]
struct Live {
    key: usize,
    /// What the store keeps the key under.
    token: Token,
    deadline: Moment,
    ttl: Ttl,
    granted_at: Moment,
    proof: Option<u64>,
    is_kept: bool,
    /// A client was told its deadline.
    is_for_client: bool,
}

/// What is known of a claim.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Until when the store keeps it, as it has told.
    told: Option<Moment>,
    first_at: Option<Moment>,
    /// Which grant of the store's it is.
    mint: usize,
    last_fence: u64,
    reused: u32,
    /// The last grant under it.
    last: Option<Live>,
    idle_until: Option<Moment>,
    /// Another process asks for it, as this one was told, since then; `Moment::ZERO`: since before it was granted.
    wanted_at: Option<Moment>,
    reused_since: u32,
    is_doubted: bool,
    is_extended: bool,
}

pub(super) struct Checks {
    pub(super) reached: Reached,
    /// A holder lets its lock go: it may be handed on.
    pub(super) is_letting_go: bool,
    reuse: ClaimReuse,
    has_fences: bool,
    steps_back: bool,
    claims: HashMap<Token, Seen>,
    /// Of each process, by the numbers that its table gives its grants.
    live: BTreeMap<usize, BTreeMap<u64, Live>>,
    /// The claim that each process asks for, by key.
    asked: BTreeMap<(usize, usize), Token>,
    /// No process asks for a key before then, by its own clock.
    pauses: BTreeMap<(usize, usize), Moment>,
    /// The highest fence of each key.
    highest: [u64; KEYS],
}

impl Checks {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            reached: Reached::default(),
            is_letting_go: false,
            reuse: plan.reuse,
            has_fences: plan.has_fences(),
            steps_back: plan.steps_back,
            claims: HashMap::new(),
            live: BTreeMap::new(),
            asked: BTreeMap::new(),
            pauses: BTreeMap::new(),
            highest: [0; KEYS],
        }
    }

    /// The store has told that it keeps a claim until then.
    pub(super) fn tell(&mut self, token: Token, deadline: Moment) {
        let seen = self.claims.entry(token).or_default();
        seen.told = seen.told.max(Some(deadline));
    }

    /// The store is asked to keep it for a lock.
    pub(super) fn extending(&mut self, token: Token) {
        self.claims.entry(token).or_default().is_extended = true;
    }

    /// How far a claim under which nothing was granted yet could be reused, were it idle from then on.
    fn longest_idle(&self, seen: &Seen, now: Moment) -> Moment {
        let ClaimReuse::Linger { idle, max_time } = self.reuse else { return Moment::ZERO };
        let first = seen.first_at.unwrap_or(now);
        now.saturating_add(idle).min(first.saturating_add(max_time)).min(seen.told.unwrap_or(Moment::ZERO))
    }

    fn is_spent(&self, seen: &Seen, now: Moment) -> bool {
        let time = now.saturating_since(seen.first_at.unwrap_or(now));
        seen.reused > 0 && (time >= self.reuse.max_time() || seen.reused >= self.reuse.max_count())
    }
}

/// What holds the keys in a table.
fn grants_of(table: &Table) -> Vec<(u64, Live)> {
    let slots = (0..table.slots.bound()).filter_map(|index| table.slots.get(index));
    let held = slots.filter(|slot| !slot.is_pending());
    let live = held.filter_map(|slot| {
        let (holder, extras) = (slot.holder.as_ref()?, slot.extras.as_ref());
        let claim = extras.and_then(|extras| extras.claim.as_ref());
        let live = Live {
            key: super::world::number_of(&slot.key),
            token: claim.map_or_else(|| slot.kept_token().expect("the store was given one"), |claim| claim.token),
            deadline: holder.deadline,
            ttl: holder.ttl,
            granted_at: holder.granted_at,
            proof: extras.and_then(|extras| extras.proof).map(|proof| proof.get()),
            is_kept: claim.is_some(),
            is_for_client: match holder.grant_state {
                GrantState::Unseen(waiter) => table.waiters[waiter].is_for_ticket,
                state => state == GrantState::Ticket,
            },
        };
        Some((holder.fence().get(), live))
    });
    live.collect()
}

impl World {
    /// Takes note of what a table has done in one step.
    pub(super) fn observe(&mut self, of: usize) {
        let found = grants_of(self.processes[of].table());
        let before = self.checks.live.remove(&of).unwrap_or_default();
        for (number, live) in &found {
            if !before.contains_key(number) {
                self.check_grant(*live);
            }
            let seen = self.checks.claims.entry(live.token).or_default();
            assert!(Some(live.deadline) <= seen.told, "K1: no lock outlives its claim: {live:?} {seen:?}");
            seen.last = Some(*live);
        }
        self.checks.live.insert(of, found.into_iter().collect());
        (0..KEYS).for_each(|key| self.observe_idle(of, key));
    }

    fn observe_idle(&mut self, of: usize, key: usize) {
        let process = &self.processes[of];
        let table = process.table();
        let Some(idle) = table.idle_keys.as_ref() else { return };
        let Some(id) = idle.find(hash(), &key_at(key)) else { return };
        let Some(token) = idle.token(id) else { return };
        let until = idle.claim(id).and_then(KeptClaim::idle_until).expect("what is idle ends");
        let now = process.clock(self.now).max(table.now);
        let seen = self.checks.claims[&token];
        if seen.idle_until != Some(until) {
            let longest = self.checks.longest_idle(&seen, table.now);
            assert!(until <= longest, "an idle claim is no older than the settings allow: {until:?} {longest:?}");
            assert!(!seen.is_extended, "what was extended for a lock is not kept: {seen:?}");
            assert!(!seen.is_doubted && seen.wanted_at.is_none(), "K4: what another wants is not kept: {seen:?}");
            let left = seen.told.unwrap_or(Moment::ZERO).saturating_since(table.now);
            assert!(left <= Duration::from_mins(1), "no idle claim would outlive its process by more than a minute");
            self.checks.reached.idle += 1;
            self.checks.claims.entry(token).or_default().idle_until = Some(until);
        }
        self.check_others_can_tell(key, token);
        let late = now.saturating_since(until);
        assert!(!self.is_punctual() || late < Duration::from_millis(10), "an idle claim is given up in time: {late:?}");
    }

    /// An idle claim has no more time left than its token says to other processes.
    fn check_others_can_tell(&mut self, key: usize, idle: Token) {
        let clock = self.store_clock();
        let Some((_, ends)) = self.store.holder(key, clock).filter(|(token, _)| *token == idle) else { return };
        let left = Duration::from_micros(ends.saturating_sub(clock));
        let said = KeptIdle::of_digit(idle.as_uuid().as_bytes()[6] & 15);
        assert!(said.allows(Some(left)) || self.checks.steps_back, "{said:?}, {left:?}");
    }

    /// A table has made a grant.
    fn check_grant(&mut self, live: Live) {
        self.checks.reached.grants += 1;
        let seen = *self.checks.claims.entry(live.token).or_default();
        if let (Some(_), true) = (seen.first_at, seen.last.is_some_and(|last| last.token == live.token && live.is_kept))
        {
            self.check_reuse(&seen, live);
        } else {
            let mint = self.store.keys[live.key].mints.iter().rposition(|mint| {
                mint.token == live.token && (!self.checks.has_fences || Some(mint.fence) == live.proof)
            });
            let seen = self.checks.claims.entry(live.token).or_default();
            seen.first_at = Some(live.granted_at);
            seen.mint = mint.unwrap_or_else(|| panic!("the store has made no such grant: {live:?}"));
            if seen.wanted_at.is_some() {
                seen.wanted_at = Some(live.granted_at);
            }
        }
        self.check_fence(live);
    }

    /// One under a claim that was there before.
    fn check_reuse(&mut self, seen: &Seen, live: Live) {
        let reuse = self.checks.reuse;
        let last = seen.last.expect("a claim that is reused had a lock before");
        match seen.idle_until {
            Some(until) => assert!(live.granted_at < until, "an idle claim is over at its end"),
            None => {
                assert!(self.checks.is_letting_go, "K3: only a release hands a claim on: {live:?}");
                assert!(live.granted_at < last.deadline, "K3: nothing is handed on by what has run out: {last:?}");
            }
        }
        let left = seen.told.unwrap_or(Moment::ZERO).saturating_since(live.granted_at);
        let half = live.ttl.as_duration() / 2;
        let least = if live.is_for_client { half } else { half.min(SOON) };
        assert!(left >= least, "K1: half of the TTL is left, or time to extend it: {live:?}, {left:?}");
        assert!(!seen.is_doubted, "nothing is granted under a claim in doubt: {live:?}");
        let age = live.granted_at.saturating_since(seen.first_at.unwrap_or(live.granted_at));
        assert!(age < reuse.max_time(), "a claim is reused within its time: {age:?}");
        assert!(seen.reused < reuse.max_count(), "a claim is reused so often at most");
        if let Some(wanted_at) = seen.wanted_at {
            let (left, time) = ClaimReuse::WANTED;
            assert!(seen.idle_until.is_none(), "K4: an idle claim that another wants is given up");
            assert!(seen.reused_since < left, "K4: at most so many locks");
            assert!(live.granted_at.saturating_since(wanted_at) < time, "K4: at most for so long: {live:?} {seen:?}");
        }
        let is_from_idle = seen.idle_until.is_some();
        let counted = &mut self.checks.reached;
        (counted.from_idle, counted.handed_on) =
            (counted.from_idle + usize::from(is_from_idle), counted.handed_on + usize::from(!is_from_idle));
        let seen = self.checks.claims.entry(live.token).or_default();
        (seen.reused, seen.idle_until) = (seen.reused + 1, None);
        seen.reused_since += u32::from(seen.wanted_at.is_some());
    }

    /// K2.
    fn check_fence(&mut self, live: Live) {
        assert_eq!(live.proof.is_some(), self.checks.has_fences, "a fence where the store gives some");
        let Some(fence) = live.proof else { return };
        let clock = self.store_clock();
        let mints = &self.store.keys[live.key].mints;
        let seen = self.checks.claims.entry(live.token).or_default();
        assert!(fence > seen.last_fence || seen.reused == 0, "K2: fences rise under a claim: {live:?}");
        if seen.reused > 0 && !self.checks.steps_back {
            assert!(fence <= clock + LEAD, "K2: a fence is ahead of the store's clock by {}", fence - clock);
        }
        seen.last_fence = fence;
        if mints[seen.mint].is_forced {
            // Its holder learns that only now. Until then it is no better than one that has slept.
            self.checks.reached.orphans += 1;
            return;
        }
        if let Some(next) = mints.get(seen.mint + 1) {
            let ran_out = self.checks.steps_back && self.store.keys[live.key].last_end == LastEnd::RanOut;
            assert!(fence < next.fence || ran_out, "K2: {live:?} is above a later claim, {next:?}");
        }
        let highest = &mut self.checks.highest[live.key];
        *highest = fence.max(*highest);
    }

    /// The store has made a grant.
    pub(super) fn check_mint(&mut self, at: usize) {
        let key = &self.store.keys[at];
        let fence = key.mints.last().expect("it has just been made").fence;
        if self.checks.steps_back && key.last_end == LastEnd::RanOut {
            // What was extended by a clock that went back had fences beyond its own end.
            self.checks.highest[at] = 0;
        }
        let highest = self.checks.highest[at];
        assert!(fence > highest || !self.checks.has_fences, "K2: {fence} is not above {highest}, given out before");
    }

    /// A command ends a claim: its last fence goes with it.
    pub(super) fn check_claim_end(&mut self, of: usize, key: usize, claim: ClaimEnd) {
        let Some(seen) = self.checks.claims.get(&claim.token) else { return };
        let last = claim.last_fence.map_or(0, |last| last.get());
        let is_told = seen.reused == 0 || last == seen.last_fence || !self.checks.has_fences;
        assert!(is_told, "K2: process {of} lets the store know the last fence of key {key}: {seen:?}");
    }

    /// A claim is given up: a pause follows if it was reused for its whole time (K5).
    pub(super) fn check_pause(&mut self, of: usize, key: usize, token: Token) {
        let Some(seen) = self.checks.claims.get(&token) else { return };
        let now = self.processes[of].table().now;
        // A claim that is given up late was used no longer for that.
        let now = seen.idle_until.map_or(now, |until| until.min(now));
        let first_at = seen.first_at.unwrap_or(Moment::FAR);
        if self.checks.is_spent(seen, now) && seen.wanted_at.is_none() && !seen.is_doubted {
            self.checks.reached.pauses += 1;
            let pause = now.saturating_since(first_at).min(self.checks.reuse.max_time()) / 8;
            self.checks.pauses.insert((of, key), self.processes[of].table().now.saturating_add(pause));
        }
    }

    /// A command has a key taken.
    pub(super) fn check_acquire(&mut self, of: usize, key: usize, ask: &ClaimRequest) {
        self.checks.asked.insert((of, key), ask.token);
        let pause = self.checks.pauses.get(&(of, key)).copied();
        if ask.tries == Attempts::Many && pause > Some(self.processes[of].table().now) {
            assert!(Some(ask.not_before) >= pause, "K5: others come first until {pause:?}: {ask:?}");
        }
    }

    /// The claims of a process on a key: what it holds it under, keeps idle, and asks for.
    fn claims_of(&self, of: usize, key: usize) -> Vec<Token> {
        let table = self.processes[of].table();
        let held = grants_of(table).into_iter().filter(|(_, live)| live.key == key && live.is_kept);
        let idle = table.idle_token(&key_at(key), hash());
        let is_asked = self.processes[of].ops.values().any(|op| op.is_for(key));
        let asked = self.checks.asked.get(&(of, key)).copied().filter(|_| is_asked);
        held.map(|(_, live)| live.token).chain(idle).chain(asked).collect()
    }

    /// A process is told something about its claim on a key.
    pub(super) fn check_told(&mut self, of: usize, key: usize, told: Told) {
        let now = self.processes[of].clock(self.now).max(self.processes[of].table().now);
        for token in self.claims_of(of, key) {
            let seen = self.checks.claims.entry(token).or_default();
            match told {
                Told::Doubted => {
                    seen.is_doubted = true;
                    self.checks.reached.doubted += 1;
                }
                Told::Wanted if seen.wanted_at.is_none() => {
                    seen.wanted_at = Some(now);
                    self.checks.reached.wanted += 1;
                }
                Told::Wanted => {}
            }
        }
    }

    pub(super) fn check_doubt_of_all(&mut self, of: usize) {
        (0..KEYS).for_each(|key| self.check_told(of, key, Told::Doubted));
    }

    /// After every event.
    pub(super) fn check(&mut self) {
        for key in 0..KEYS {
            let stored = self.store.holder(key, self.store_clock());
            let mut holders = Vec::new();
            for (of, grants) in &self.checks.live {
                let process = &self.processes[*of];
                if process.table.is_none() {
                    continue;
                }
                let now = process.clock(self.now);
                for live in grants.values().filter(|live| live.key == key && live.deadline > now) {
                    let mint = self.store.keys[key].mints[self.checks.claims[&live.token].mint];
                    if mint.is_forced {
                        continue;
                    }
                    holders.push((*of, *live));
                    let ends = stored.filter(|(token, _)| *token == live.token).map(|(_, ends)| ends * 1_000);
                    let lives_on =
                        ends.is_some_and(|ends| self.checks.steps_back || ends >= process.real(live.deadline));
                    assert!(lives_on, "the store keeps the key for whoever holds it: {live:?}, {stored:?}");
                }
            }
            assert!(holders.len() <= 1, "one holds the key: {holders:?}");
        }
    }

    /// Once faults have ended and nothing more happens.
    pub(super) fn check_end(&mut self) {
        for (number, process) in self.processes.iter().enumerate() {
            let Some(table) = process.table.as_ref() else { continue };
            assert!(process.requests.is_empty(), "somebody waits for ever in process {number}");
            assert_eq!((table.slots.len(), table.waiting()), (0, 0), "a key is left in process {number}");
            assert_eq!(table.idle_keys.as_ref().map_or(0, |idle| idle.len()), 0, "claims or pauses are left");
            assert!(process.ops.is_empty() && process.calls.is_empty(), "{:?} {:?}", process.ops, process.calls);
        }
        for key in 0..KEYS {
            if let Some((token, _)) = self.store.holder(key, self.store_clock()) {
                // A lock that outlives a shutdown runs out.
                let lives = |process: &&Process| process.table.is_some() && !process.is_closed;
                let is_left = self.processes.iter().filter(lives).any(|process| process.is_of(token));
                // A try that a clean-up has found over may arrive after all if the clock goes back.
                assert!(!is_left || self.checks.steps_back, "the store keeps a key for a process that holds nothing");
            }
        }
    }
}
