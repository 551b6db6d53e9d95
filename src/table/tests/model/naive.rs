//! The naive model of the table: plain lists, scanned.
//!
//! It knows no slots, wheels or links. Two things it knows because they show: which of a key's holders has the key's
//! own slot (a key whose first holder has gone counts against the bound by one more), and what a table does when
//! several things are over at once. It copies the words of sessions and never reads the owners' atomics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::queue::WaiterState;
use super::super::*;
use super::{Answer, Asked, HASHES, LIMITS, MAX_PLACES, START, TICK, Wait};
use crate::error::{LockError, Loss, WaitEdge};
use crate::key::Ttl;
use crate::mode::{Kind, ModeConflict};

/// `GrantState`, with waiters by their sequence number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kept {
    Unseen(u64),
    Guard(TokenOrigin),
    Ticket,
}

impl From<GrantState> for Kept {
    fn from(grant_state: GrantState) -> Self {
        match grant_state {
            GrantState::Claiming(_) | GrantState::Unseen(_) => unreachable!("no request is kept by a waiter"),
            GrantState::Guard(origin) => Self::Guard(origin),
            GrantState::Ticket => Self::Ticket,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) key: usize,
    pub(super) mode: Mode,
    /// Whether it has the key's own slot.
    pub(super) first: bool,
    /// The one that a client chose.
    pub(super) token: Option<u128>,
    /// Whether somebody was told the one that the table made.
    pub(super) is_told: bool,
    pub(super) fence: u64,
    /// What its resource is shown: its fence, or the one that it got when it was upgraded.
    pub(super) proof: u64,
    /// How many requests wait to have it upgraded.
    pub(super) upgrading: usize,
    pub(super) granted_at: u64,
    /// Its own; of a lock of a session, how much of it stands whatever cap came later.
    pub(super) deadline: u64,
    pub(super) terms: Terms,
    pub(super) cap: Option<Duration>,
    pub(super) notice: Option<u64>,
    pub(super) refreshes: u32,
    pub(super) reentries: u32,
    pub(super) grant_state: Kept,
    pub(super) watched: bool,
    /// The order to refresh it that is in force.
    pub(super) auto: Option<Order>,
    /// The manager's own below that: at which depth of reentry it was given, and how often.
    pub(super) own: Option<(u32, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Order {
    /// At which depth of reentry it was given.
    pub(super) depth: u32,
    pub(super) every: Duration,
    /// How late it may be.
    pub(super) timeout: Duration,
    pub(super) due: u64,
    /// Whether it is the manager's.
    pub(super) is_own: bool,
}

impl Held {
    /// What it can be known by.
    fn known_by(&self) -> Option<u128> {
        self.token.or_else(|| self.is_told.then(|| minted(self.fence)))
    }
}

/// What a token is called that the table made.
pub(super) fn minted(fence: u64) -> u128 {
    1_000_000 + u128::from(fence)
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) key: usize,
    pub(super) token: Option<u128>,
    pub(super) terms: Terms,
    queued_at: u64,
    deadline: u64,
    pub(super) state: WaiterState,
    pub(super) seats: Vec<Seat>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seat {
    taken: bool,
    armed: bool,
    pub(super) wakes: usize,
}

/// A request to have the key of a share alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Upgrading {
    pub(super) fence: u64,
    /// Whether it still waits.
    pub(super) open: bool,
    pub(super) wakes: usize,
}

/// The model's own copy of an owner.
#[derive(Clone, Debug)]
pub(super) struct Person {
    id: OwnerId,
    session: bool,
    /// Until when it lives; or how it ended.
    word: Result<u64, Loss>,
    places: u32,
}

/// How much must come free, and whose that is: owners, weights and fences.
pub(super) type Blockers = (u64, Vec<(OwnerId, u32, u64)>);

/// What a watcher hears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Note {
    Ended(End),
    AskedBack(u64),
}

/// An event, but for its sequence number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) key: usize,
    pub(super) fence: Option<u64>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) kind: EventKind,
}

/// One end that the trail shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Past {
    pub(super) hash: u32,
    pub(super) fence: u64,
    pub(super) end: End,
    pub(super) granted_at: u64,
    pub(super) ended_at: u64,
    pub(super) owner: Option<Arc<str>>,
}

#[derive(Clone)]
pub(super) struct Model {
    pub(super) now: u64,
    fence: u64,
    pub(super) closed: bool,
    /// In the order of their grants.
    pub(super) held: Vec<Held>,
    /// By sequence number less one, in the order in which they queued; those that are gone have no seat left.
    pub(super) waits: Vec<Waiting>,
    /// By number less one, every request to upgrade that waited.
    pub(super) upgrades: Vec<Upgrading>,
    /// With the token, if anybody can know it.
    ended: Vec<(Option<u128>, u32, u64, End)>,
    pub(super) end_log: Vec<Past>,
    pub(super) heard: BTreeMap<u64, Vec<Note>>,
    pub(super) listeners: Vec<Interest>,
    pub(super) told: Vec<Told>,
    people: Vec<Person>,
    pub(super) counters: Counters,
}

/// What is compared of a table and its model.
#[derive(Debug, PartialEq)]
pub(super) struct View {
    pub(super) now: u64,
    pub(super) fence: u64,
    pub(super) slots: usize,
    pub(super) waiting: usize,
    pub(super) chosen: usize,
    /// By fence; with the deadline that counts, which for the locks of a session that is over is 0.
    pub(super) held: BTreeMap<u64, (Held, u64)>,
    pub(super) queues: BTreeMap<usize, Vec<u64>>,
    pub(super) waiters: BTreeMap<u64, (WaiterState, u32)>,
    /// Whether, and until when, each owner lives, and how many places it takes.
    pub(super) people: Vec<(Result<u64, Loss>, u32)>,
    pub(super) counters: Counters,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            now: START,
            fence: 1,
            closed: false,
            held: Vec::new(),
            waits: Vec::new(),
            upgrades: Vec::new(),
            ended: Vec::new(),
            end_log: Vec::new(),
            heard: BTreeMap::new(),
            listeners: Vec::new(),
            told: Vec::new(),
            people: Vec::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn view(&self) -> View {
        let live = || self.waits.iter().zip(1_u64..).filter(|(wait, _)| wait.taken() > 0);
        let held = self.held.iter().map(|held| {
            let own = if self.session_of(&held.terms).is_some() { 0 } else { held.deadline };
            let upgrading = self.open_upgrades().filter(|upgrade| upgrade.fence == held.fence).count();
            (held.fence, (Held { deadline: own, upgrading, ..held.clone() }, self.deadline(held)))
        });
        View {
            now: self.now,
            fence: self.fence,
            slots: self.slots(),
            waiting: self.waiting(None),
            chosen: live().filter(|(wait, _)| wait.token.is_some() && wait.state == WaiterState::Queued).count(),
            held: held.collect(),
            queues: self.held.iter().map(|held| (held.key, self.queue(held.key))).collect(),
            waiters: live().map(|(wait, seq)| (seq, (wait.state.clone(), wait.taken()))).collect(),
            people: self.people.iter().map(|person| (self.life(person), person.places)).collect(),
            counters: self.counters,
        }
    }

    // ---- owners ----

    pub(super) fn enter(&mut self, owner: &Owner) {
        let word = owner.ttl().map_or(u64::MAX, |ttl| self.now + ttl.as_nanos());
        self.people.push(Person { id: owner.id, session: owner.is_session(), word: Ok(word), places: 0 });
    }

    /// Until when an owner lives, or how it ended.
    fn life(&self, person: &Person) -> Result<u64, Loss> {
        person.word.and_then(|until| if until > self.now { Ok(until) } else { Err(Loss::Expired) })
    }

    fn person(&mut self, id: OwnerId) -> &mut Person {
        self.people.iter_mut().find(|person| person.id == id).unwrap()
    }

    fn session_of(&self, terms: &Terms) -> Option<Result<u64, Loss>> {
        let id = terms.owner()?.id;
        let person = self.people.iter().find(|person| person.id == id).unwrap();
        person.session.then(|| self.life(person))
    }

    pub(super) fn life_of(&self, id: OwnerId) -> Result<u64, Loss> {
        self.life(self.people.iter().find(|person| person.id == id).unwrap())
    }

    pub(super) fn heartbeat(&mut self, id: OwnerId, ttl: Ttl) -> Result<u64, Loss> {
        let later = self.life_of(id)?.max(self.now + ttl.as_nanos());
        self.person(id).word = Ok(later);
        Ok(later)
    }

    pub(super) fn end_session(&mut self, id: OwnerId) -> Result<(), Loss> {
        self.life_of(id)?;
        self.person(id).word = Err(Loss::SessionEnded);
        Ok(())
    }

    /// All that one step of the end of an owner may lead to; none once there is nothing left.
    pub(super) fn end_steps(&self, id: OwnerId) -> Vec<Self> {
        let is_its = |terms: &Terms| terms.owner().is_some_and(|owner| owner.id == id);
        let step = |does: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            does(&mut next);
            next
        };
        let queued = (0..HASHES.len()).flat_map(|key| self.queue(key));
        let its: Vec<u64> = queued.filter(|seq| is_its(&self.waits[*seq as usize - 1].terms)).collect();
        if !its.is_empty() {
            return its.into_iter().map(|seq| step(&|next| next.outlive_and_let_in(seq))).collect();
        }
        let why = self.life_of(id).err().map_or(End::SessionEnded, End::from);
        let its = self.held.iter().filter(|held| is_its(&held.terms));
        its.map(|held| step(&|next| next.end(held.fence, why))).collect()
    }

    fn reserve_quota(&mut self, terms: &Terms) -> Result<(), LockError> {
        let Some(owner) = terms.owner() else { return Ok(()) };
        let person = self.person(owner.id);
        if person.places >= MAX_PLACES {
            return Err(LockError::TooManyLocks);
        }
        person.places += 1;
        Ok(())
    }

    fn return_quota(&mut self, terms: &Terms) {
        if let Some(owner) = terms.owner() {
            self.person(owner.id).places -= 1;
        }
    }

    // ---- who holds, who waits ----

    pub(super) fn holders(&self, key: usize) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(move |held| held.key == key)
    }

    fn find(&mut self, fence: u64) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.fence == fence)
    }

    pub(super) fn is_held(&self, key: usize) -> bool {
        self.holders(key).next().is_some()
    }

    /// Whether others might join those who hold the key.
    fn is_shared(&self, key: usize) -> bool {
        self.holders(key).next().is_some_and(|held| held.mode != Mode::Exclusive)
    }

    /// One for each holder, and one for each key whose first holder has gone.
    fn slots(&self) -> usize {
        let headless = |key: &usize| self.is_held(*key) && self.holders(*key).all(|held| !held.first);
        self.held.len() + (0..HASHES.len()).filter(headless).count()
    }

    fn keys(&self) -> usize {
        (0..HASHES.len()).filter(|key| self.is_held(*key)).count()
    }

    pub(super) fn has_room(&self, key: usize, mode: Mode) -> bool {
        let together = |held: &Held| match (held.mode, mode) {
            (Mode::Shared, Mode::Shared) => true,
            (Mode::Permits { limit: one, .. }, Mode::Permits { limit: other, .. }) => one == other,
            _ => false,
        };
        let taken: u32 = self.holders(key).map(|held| held.mode.weight()).sum();
        self.upgrading(key).is_none()
            && self.holders(key).all(together)
            && match mode {
                Mode::Permits { limit, permits } => taken + permits <= limit,
                _ => true,
            }
    }

    pub(super) fn kind(&self, key: usize) -> Option<Kind> {
        self.holders(key).next().map(|held| held.mode.kind())
    }

    pub(super) fn queue(&self, key: usize) -> Vec<u64> {
        let queued = |wait: &Waiting| wait.key == key && wait.taken() > 0 && wait.state == WaiterState::Queued;
        self.waits.iter().zip(1..).filter(|(wait, _)| queued(wait)).map(|(_, seq)| seq).collect()
    }

    pub(super) fn waiting(&self, key: Option<usize>) -> usize {
        (0..HASHES.len()).filter(|at| key.is_none_or(|key| key == *at)).map(|at| self.queue(at).len()).sum()
    }

    pub(super) fn wait(&mut self, seq: u64) -> &mut Waiting {
        &mut self.waits[seq as usize - 1]
    }

    pub(super) fn is_queued(&self, seq: u64) -> bool {
        let wait = &self.waits[seq as usize - 1];
        wait.taken() > 0 && wait.state == WaiterState::Queued
    }

    /// What keeps a request, behind those queued whom `ahead` lists, from its key: how much of its owners' weight must
    /// come free, and whose that is.
    pub(super) fn blocker(&self, key: usize, mode: Mode, ahead: &[u64]) -> Blockers {
        let owned = |held: &Held| Some((held.terms.owner()?.id, held.terms.mode().weight(), held.fence));
        // What is over counts for nothing, noticed or not (C1).
        let live = self.holders(key).filter(|held| self.deadline(held) > self.now);
        let mut owners: Vec<_> = live.filter_map(owned).collect();
        owners.sort_unstable_by_key(|(.., fence)| *fence);
        let theirs: u32 = owners.iter().map(|(_, weight, _)| weight).sum();
        let wants_alone = |seq: &u64| {
            let wait = &self.waits[*seq as usize - 1];
            wait.terms.mode() == Mode::Exclusive && self.still_waits(wait)
        };
        // It goes in with those who share the key, after those before it.
        let is_open = self.is_shared(key) && self.upgrading(key).is_none();
        if mode == Mode::Shared && is_open && !ahead.iter().any(wants_alone) {
            return (0, Vec::new());
        }
        let ahead = ahead.iter().map(|seq| &self.waits[*seq as usize - 1]).filter(|wait| self.still_waits(wait));
        let needs = ahead.map(|wait| wait.terms.mode().weight());
        let most = needs.chain([mode.weight()]).max().unwrap();
        let missing = match self.kind(key) {
            Some(Kind::Semaphore { limit }) => most.saturating_sub(limit - theirs),
            _ => theirs,
        };
        if owners.is_empty() { (0, owners) } else { (u64::from(missing), owners) }
    }

    /// Whether neither its own time nor its session's is over.
    pub(super) fn still_waits(&self, wait: &Waiting) -> bool {
        let lives = |life: Result<u64, Loss>| life.is_ok_and(|until| until > self.now);
        wait.deadline > self.now && self.session_of(&wait.terms).is_none_or(lives)
    }

    // ---- time ----

    /// The deadline that counts: of a session's lock, the session's, within its cap and notice.
    pub(super) fn deadline(&self, held: &Held) -> u64 {
        match self.session_of(&held.terms) {
            None => held.deadline,
            Some(life) => life.map_or(0, |until| until.min(held.last_deadline().max(held.deadline))),
        }
    }

    /// Until when a holder holds, or would if its session were not ended.
    fn until(&self, held: &Held) -> u64 {
        let person = held.terms.owner().and_then(|owner| self.people.iter().find(|person| person.id == owner.id));
        match person.filter(|person| person.session) {
            None => held.deadline,
            Some(person) => person.word.unwrap_or(u64::MAX).min(held.last_deadline().max(held.deadline)),
        }
    }

    /// Whether a holder's session was ended, and this grant is still to be.
    pub(super) fn is_ending(&self, held: &Held) -> bool {
        self.session_of(&held.terms) == Some(Err(Loss::SessionEnded))
    }

    /// How a holder ends that is over.
    fn over(&self, held: &Held) -> Option<End> {
        let deadline = self.deadline(held);
        match self.session_of(&held.terms) {
            _ if deadline > self.now => None,
            Some(Err(Loss::SessionEnded)) => Some(End::SessionEnded),
            Some(Err(_)) => Some(End::Expired),
            _ if held.notice.is_some_and(|at| at <= deadline) => Some(End::Forced),
            _ => Some(End::Expired),
        }
    }

    /// Ends what is over on a key; the one with the key's own slot last.
    pub(super) fn expire_if_due(&mut self, key: usize) {
        let over = self.holders(key).filter(|held| self.over(held).is_some());
        let mut over: Vec<(bool, u64)> = over.map(|held| (held.first, held.fence)).collect();
        over.sort_unstable();
        over.into_iter().for_each(|(_, fence)| self.expire_if_over(fence));
    }

    fn expire_if_over(&mut self, fence: u64) {
        if let Some(end) = self.held.iter().find(|held| held.fence == fence).and_then(|held| self.over(held)) {
            self.end(fence, end);
        }
    }

    fn is_over(&self, seq: u64) -> bool {
        let wait = &self.waits[seq as usize - 1];
        wait.deadline <= self.now || self.session_of(&wait.terms).is_some_and(|life| life.is_err())
    }

    // ---- how things end and pass on ----

    fn tell(&mut self, key: usize, fence: Option<u64>, terms: &Terms, kind: EventKind) {
        let wanted = |interest: &Interest| match interest {
            Interest::Everything => true,
            Interest::Key { hash } => *hash == HASHES[key],
        };
        if self.listeners.iter().any(wanted) {
            self.told.push(Told { key, fence, owner: terms.owner_label().cloned(), kind });
        }
    }

    pub(super) fn end(&mut self, fence: u64, end: End) {
        let at = self.held.iter().position(|held| held.fence == fence).unwrap();
        let held = self.held.remove(at);
        let ended_at = self.until(&held).min(self.now);
        let (key, span) = (held.key, ended_at.saturating_sub(held.granted_at));
        if held.watched {
            self.heard.entry(held.fence).or_default().push(Note::Ended(end));
        }
        let by_itself = match held.grant_state {
            Kept::Guard(TokenOrigin::Minted) => matches!(end, End::Released | End::Dropped),
            Kept::Unseen(_) => end == End::Dropped,
            _ => false,
        };
        if let Kept::Unseen(seq) = held.grant_state
            && end != End::Dropped
        {
            self.refuse(seq, LockError::Lost(end.as_loss()));
        }
        if !by_itself {
            self.ended.push((held.known_by(), HASHES[key], held.fence, end));
        }
        let c = &mut self.counters;
        c.hold_nanos += span;
        *match end {
            End::Released | End::ByToken | End::SessionEnded => &mut c.released,
            End::Revoked | End::Vanished => &mut c.lost,
            End::Dropped => &mut c.dropped,
            End::Expired => &mut c.expired,
            End::Forced => &mut c.forced,
            End::ShutDown => &mut c.ended_by_shutdown,
        } += 1;
        let span = Duration::from_nanos(span);
        let kind = match end {
            End::Released | End::ByToken | End::SessionEnded | End::Dropped => EventKind::Released { held: span },
            End::Expired => EventKind::Expired { held: span },
            End::Forced => EventKind::Forced { held: span },
            End::Revoked | End::Vanished => EventKind::Lost { why: end.as_loss(), held: span },
            End::ShutDown => EventKind::Lost { why: Loss::ShutDown, held: span },
        };
        self.tell(key, Some(held.proof), &held.terms, kind);
        self.end_log.push(Past {
            hash: HASHES[key],
            fence,
            end,
            granted_at: held.granted_at,
            ended_at,
            owner: held.terms.owner_label().cloned(),
        });
        self.return_quota(&held.terms);
        self.end_upgrades(|upgrade| upgrade.fence == fence);
        if self.holders(key).count() == 1 {
            let last = self.holders(key).next().unwrap().fence;
            self.wake_upgrades(last);
        }
        self.hand_on(key);
    }

    // ---- from a share to the key alone ----

    fn open_upgrades(&self) -> impl Iterator<Item = &Upgrading> {
        self.upgrades.iter().filter(|upgrade| upgrade.open)
    }

    /// The holder of a key that waits to have it alone.
    fn upgrading(&self, key: usize) -> Option<&Held> {
        self.holders(key).find(|held| self.open_upgrades().any(|upgrade| upgrade.fence == held.fence))
    }

    fn wake_upgrades(&mut self, fence: u64) {
        let its = self.upgrades.iter_mut().filter(|upgrade| upgrade.open && upgrade.fence == fence);
        its.for_each(|upgrade| upgrade.wakes += 1);
    }

    fn end_upgrades(&mut self, which: impl Fn(&Upgrading) -> bool) {
        for upgrade in self.upgrades.iter_mut().filter(|upgrade| upgrade.open && which(upgrade)) {
            (upgrade.open, upgrade.wakes) = (false, upgrade.wakes + 1);
        }
    }

    pub(super) fn upgrade(&mut self, fence: u64, waits: bool) -> Answer {
        let Some(held) = self.live(fence) else { return Answer::Refused(LockError::Lost(self.loss(fence))) };
        let (key, mode) = (held.key, held.mode);
        self.expire_if_due(key);
        match mode {
            Mode::Permits { .. } => return Answer::Refused(ModeConflict::Permits.into()),
            Mode::Exclusive => return self.proof(fence),
            Mode::Shared => {}
        }
        if self.holders(key).count() == 1 {
            return self.leave_alone(fence, None);
        }
        if !waits {
            return Answer::Refused(LockError::Held);
        }
        if let Some(first) = self.upgrading(key).filter(|first| first.fence != fence).cloned() {
            let second = self.find(fence).unwrap().clone();
            let cycle: Arc<[WaitEdge]> =
                [&second, &first].map(|held| WaitEdge { owner: held.name(), key: super::key_at(key) }).into();
            self.tell(key, None, &second.terms, EventKind::Deadlock { cycle: cycle.clone() });
            return Answer::Refused(LockError::Deadlock { cycle });
        }
        if self.open_upgrades().filter(|upgrade| upgrade.fence == fence).count() >= MAX_SEATS as usize {
            return Answer::Refused(LockError::QueueFull);
        }
        self.upgrades.push(Upgrading { fence, open: true, wakes: 0 });
        Answer::Pending
    }

    /// It is all that holds the key: nobody shares it any more. `seen`: the request that is told so now.
    fn leave_alone(&mut self, fence: u64, seen: Option<usize>) -> Answer {
        if let Some(seen) = seen {
            self.upgrades[seen].open = false;
        }
        self.end_upgrades(|upgrade| upgrade.fence == fence);
        self.fence += 1;
        let proof = self.fence;
        let held = self.find(fence).unwrap();
        (held.mode, held.proof) = (Mode::Exclusive, proof);
        self.proof(fence)
    }

    fn proof(&mut self, fence: u64) -> Answer {
        let held = self.find(fence).unwrap();
        Answer::Granted { fence: held.proof }
    }

    pub(super) fn see_upgrade(&mut self, at: usize) -> Answer {
        let Upgrading { fence, open, .. } = self.upgrades[at];
        let Some(held) = self.live(fence) else { return Answer::Refused(LockError::Lost(self.loss(fence))) };
        let (key, mode) = (held.key, held.mode);
        match mode {
            Mode::Exclusive => self.proof(fence),
            _ if !open => Answer::Nothing,
            _ if self.holders(key).count() == 1 => self.leave_alone(fence, Some(at)),
            _ => Answer::Pending,
        }
    }

    pub(super) fn cancel_upgrade(&mut self, at: usize) -> bool {
        let Upgrading { fence, open, .. } = self.upgrades[at];
        if !open {
            return false;
        }
        self.upgrades[at].open = false;
        let key = self.find(fence).unwrap().key;
        if self.upgrading(key).is_none() {
            self.hand_on(key);
        }
        true
    }

    pub(super) fn call_off_upgrade(&mut self, at: usize, cycle: &Arc<[WaitEdge]>) {
        if self.cancel_upgrade(at) {
            self.upgrades[at].wakes += 1;
            let held = self.find(self.upgrades[at].fence).unwrap().clone();
            self.tell(held.key, None, &held.terms, EventKind::Deadlock { cycle: cycle.clone() });
        }
    }

    /// What keeps a request to upgrade from having its key alone.
    pub(super) fn blocker_of_upgrade(&self, at: usize) -> Option<Blockers> {
        let Upgrading { fence, open, .. } = self.upgrades[at];
        let key = self.held.iter().find(|held| open && held.fence == fence)?.key;
        let others = self.holders(key).filter(|held| held.fence != fence && self.deadline(held) > self.now);
        let mut others: Vec<_> = others.filter_map(|held| Some((held.terms.owner()?.id, 1, held.fence))).collect();
        others.sort_unstable_by_key(|(.., fence)| *fence);
        Some((others.len() as u64, others))
    }

    /// Lets in those whose turn it is.
    fn hand_on(&mut self, key: usize) {
        let mut left = HAND_OFFS;
        while let Some(&seq) = self.queue(key).first() {
            if left == 0 && self.is_held(key) {
                // Later steps go on.
                return;
            }
            left = left.saturating_sub(1);
            if self.is_over(seq) {
                self.send_away(seq);
            } else if self.closed {
                self.shut_out(seq);
            } else if self.has_room(key, self.waits[seq as usize - 1].terms.mode()) {
                self.hand_to(seq);
                if !self.is_shared(key) {
                    // Nobody joins an exclusive holder, and who waits behind it is not looked at.
                    return;
                }
            } else {
                return;
            }
        }
    }

    /// A waiter has left: some behind it may go together with who is there.
    fn hand_off_if_shared(&mut self, key: usize) {
        if self.is_shared(key) {
            self.hand_on(key);
        }
    }

    fn hand_to(&mut self, seq: u64) {
        let now = self.now;
        let wait = self.wait(seq);
        wait.state = WaiterState::Granted;
        wait.wake();
        let (key, token, terms, waited) = (wait.key, wait.token, wait.terms.clone(), now - wait.queued_at);
        self.hold(key, token, terms, Kept::Unseen(seq));
        self.counters.handoffs += 1;
        self.counters.wait_nanos += waited;
    }

    fn hold(&mut self, key: usize, token: Option<u128>, terms: Terms, grant_state: Kept) -> Answer {
        assert!(self.has_room(key, terms.mode()), "T1");
        self.fence += 1;
        let mut held = Held {
            key,
            mode: terms.mode(),
            first: self.holders(key).all(|held| !held.first),
            token,
            is_told: false,
            fence: self.fence,
            proof: self.fence,
            upgrading: 0,
            granted_at: self.now,
            deadline: 0,
            terms,
            cap: None,
            notice: None,
            refreshes: 0,
            reentries: 0,
            grant_state,
            watched: false,
            auto: None,
            own: None,
        };
        if self.session_of(&held.terms).is_none() {
            held.deadline = held.asked(self.now, held.terms.ttl);
        }
        let kind = EventKind::Granted { mode: held.mode, ttl: held.terms.ttl.as_duration() };
        self.tell(key, Some(self.fence), &held.terms.clone(), kind);
        assert!(self.deadline(&held) > self.now, "nothing is granted to the dead");
        self.held.push(held);
        self.counters.grants += 1;
        self.counters.attempts += 1;
        Answer::Granted { fence: self.fence }
    }

    fn refuse(&mut self, seq: u64, why: LockError) {
        self.wait(seq).state = WaiterState::Refused(Box::new(why));
        self.wait(seq).wake();
    }

    fn turn_away(&mut self, seq: u64, why: LockError) {
        let terms = self.wait(seq).terms.clone();
        self.return_quota(&terms);
        self.refuse(seq, why);
        self.counters.attempts += 1;
    }

    fn send_away(&mut self, seq: u64) {
        let (waited, terms) = (self.now - self.wait(seq).queued_at, self.wait(seq).terms.clone());
        if self.session_of(&terms).is_some_and(|life| life.is_err()) {
            self.counters.outlived += 1;
            self.turn_away(seq, LockError::SessionEnded);
        } else {
            self.counters.timed_out += 1;
            self.turn_away(seq, LockError::Timeout { waited: Duration::from_nanos(waited) });
        }
    }

    fn outlive_and_let_in(&mut self, seq: u64) {
        let key = self.wait(seq).key;
        self.counters.outlived += 1;
        self.turn_away(seq, LockError::SessionEnded);
        self.hand_off_if_shared(key);
    }

    pub(super) fn shut_out(&mut self, seq: u64) {
        self.counters.refused_by_shutdown += 1;
        self.turn_away(seq, LockError::ShuttingDown);
    }

    /// Whether there was a wait to break.
    pub(super) fn break_wait(&mut self, seq: u64, cycle: &Arc<[WaitEdge]>) -> bool {
        if !self.is_queued(seq) {
            return false;
        }
        let (key, terms) = (self.wait(seq).key, self.wait(seq).terms.clone());
        self.tell(key, None, &terms, EventKind::Deadlock { cycle: cycle.clone() });
        self.counters.deadlocked += 1;
        self.turn_away(seq, LockError::Deadlock { cycle: cycle.clone() });
        self.hand_off_if_shared(key);
        true
    }

    // ---- requests ----

    fn reject(&mut self, why: LockError) -> Answer {
        self.counters.rejected += 1;
        self.counters.attempts += 1;
        Answer::Refused(why)
    }

    /// The manager keeps a lock refreshed that has no order of the manager's yet, and is not to end before.
    pub(super) fn keep_refreshed(&mut self, fence: u64) -> Answer {
        let now = self.now;
        let Some(held) = self.live(fence).cloned() else { return Answer::Lost(self.loss(fence)) };
        let (ttl, deadline) = (held.terms.ttl, self.deadline(&held));
        let every = ttl.as_duration() / 3;
        let is_kept = held.own.is_some() || held.auto.is_some_and(|order| order.is_own);
        if is_kept || every < Ttl::MIN || deadline >= held.last_deadline() {
            return Answer::Nothing;
        }
        if held.auto.is_none() && Duration::from_nanos(deadline - now) < ttl.as_duration() / 2 {
            self.refresh(fence, Some(ttl));
        }
        let found = self.find(fence).unwrap();
        if found.auto.is_some() {
            found.own = Some((found.reentries, every));
        } else {
            let due = now + every.as_nanos() as u64;
            found.auto = Some(Order { depth: found.reentries, every, timeout: every, due, is_own: true });
        }
        Answer::Nothing
    }

    /// A lock becomes an owner's that was nobody's in particular.
    pub(super) fn give_owner(&mut self, fence: u64, owner: &Arc<Owner>) {
        let Some(held) = self.live(fence).cloned() else { return };
        let extra = ExtraTerms { owner: Some(Arc::clone(owner)), ..ExtraTerms::default() };
        let terms = Terms { ttl: held.terms.ttl, extra: Some(Arc::new(extra)) };
        let is_exclusive = held.first && held.mode == Mode::Exclusive && held.proof == held.fence;
        if held.terms.extra.is_none() && is_exclusive && self.reserve_quota(&terms).is_ok() {
            self.find(fence).unwrap().terms = terms;
        }
    }

    pub(super) fn grant_if_free(&mut self, asked: &Asked) -> Option<Answer> {
        let plain = asked.terms.owner().is_none() && asked.terms.mode() == Mode::Exclusive && asked.token.is_none();
        let free = !self.is_held(asked.key) && self.keys() < LIMITS.keys;
        if !plain || !free || self.closed || !self.listeners.is_empty() {
            return None;
        }
        Some(self.hold(asked.key, asked.token, asked.terms.clone(), asked.grant_state().into()))
    }

    /// `of`: which of its owner's grants the table answered with, for any of them will do.
    pub(super) fn grant_now(&mut self, asked: &Asked, of: Option<u64>) -> Option<Answer> {
        if self.closed || asked.token.is_some() {
            return None;
        }
        self.expire_if_due(asked.key);
        self.open(asked, of).ok()
    }

    /// What can be answered without waiting. `Err(None)`: others hold the key, or wait for it.
    fn open(&mut self, asked: &Asked, of: Option<u64>) -> Result<Answer, Option<LockError>> {
        let (key, mode) = (asked.key, asked.terms.mode());
        if self.session_of(&asked.terms).is_some_and(|life| life.is_err()) {
            return Err(Some(LockError::SessionEnded));
        }
        match self.kind(key) {
            Some(Kind::ReadWrite) if mode.kind() != Kind::ReadWrite => {
                return Err(Some(ModeConflict::ReadWrite { asked: mode }.into()));
            }
            Some(Kind::Semaphore { limit }) if mode.kind() != (Kind::Semaphore { limit }) => {
                return Err(Some(ModeConflict::Semaphore { limit, asked: mode }.into()));
            }
            _ => {}
        }
        let own = self.own(asked);
        if !own.is_empty() {
            let fence = of.filter(|fence| own.contains(fence)).unwrap_or(own[0]);
            let held = self.find(fence).unwrap();
            held.reentries += 1;
            let answer = Answer::Granted { fence };
            self.counters.reentered += 1;
            self.counters.attempts += 1;
            return Ok(answer);
        }
        if !self.queue(key).is_empty() || !self.has_room(key, mode) {
            return Err(None);
        }
        if !self.is_held(key) && self.keys() >= LIMITS.keys {
            return Err(Some(LockError::TooManyKeys));
        }
        let is_member = self.holders(key).any(|held| held.first);
        if is_member && self.slots() - self.keys() >= LIMITS.members {
            return Err(Some(LockError::TooManyHolders));
        }
        self.reserve_quota(&asked.terms).map_err(Some)?;
        Ok(self.hold(key, asked.token, asked.terms.clone(), asked.grant_state().into()))
    }

    /// The grants of this owner that may answer its request again.
    fn own(&self, asked: &Asked) -> Vec<u64> {
        let counted = asked.terms.extra.as_ref().is_some_and(|extra| extra.reentry == Reentry::Counted);
        let Some(owner) = asked.terms.owner().filter(|_| counted) else { return Vec::new() };
        let answers = |held: &&Held| match (held.mode, asked.terms.mode()) {
            (Mode::Exclusive, Mode::Exclusive | Mode::Shared) | (Mode::Shared, Mode::Shared) => {
                held.terms.owner() == Some(owner)
            }
            _ => false,
        };
        self.holders(asked.key).filter(answers).map(|held| held.fence).collect()
    }

    pub(super) fn acquire(&mut self, asked: &Asked, of: Option<u64>) -> Answer {
        if self.closed {
            return self.reject(LockError::ShuttingDown);
        }
        self.expire_if_due(asked.key);
        if asked.token.is_some()
            && let Some(answer) = self.answer_repeated(asked)
        {
            return answer;
        }
        match self.open(asked, of) {
            Ok(answer) => return answer,
            Err(Some(why)) => return self.reject(why),
            Err(None) => {}
        }
        let deadline = match asked.wait {
            Wait::Poll => return Answer::Refused(LockError::Held),
            Wait::No => {
                self.counters.busy += 1;
                self.counters.attempts += 1;
                return Answer::Refused(LockError::Held);
            }
            Wait::Millis(ms) => self.now + ms * TICK,
            Wait::Forever => u64::MAX,
        };
        if self.waiting(None) >= LIMITS.waiters || self.waiting(Some(asked.key)) >= LIMITS.waiters_per_key {
            return self.reject(LockError::QueueFull);
        }
        if let Err(why) = self.reserve_quota(&asked.terms) {
            return self.reject(why);
        }
        self.counters.queued += 1;
        self.waits.push(Waiting {
            key: asked.key,
            token: asked.token,
            terms: asked.terms.clone(),
            queued_at: self.now,
            deadline,
            state: WaiterState::Queued,
            seats: vec![Seat { taken: true, armed: true, wakes: 0 }],
        });
        Answer::Queued { seq: self.waits.len() as u64 }
    }

    fn answer_repeated(&mut self, asked: &Asked) -> Option<Answer> {
        asked.token?;
        if let Some(held) = self.held.iter_mut().find(|held| held.key == asked.key && held.known_by() == asked.token) {
            let answer = Answer::Granted { fence: held.fence };
            if !held.terms.ask_for_the_same(&asked.terms) {
                return Some(self.reject(LockError::TokenReused));
            }
            match (held.grant_state, asked.grant_state()) {
                (Kept::Guard(_), GrantState::Guard(_)) => return Some(self.reject(LockError::TokenReused)),
                (Kept::Guard(_), _) => return Some(answer),
                (Kept::Ticket | Kept::Unseen(_), grant_state) => {
                    let before = std::mem::replace(&mut held.grant_state, grant_state.into());
                    if let Kept::Unseen(seq) = before {
                        self.wait(seq).seats.iter_mut().for_each(|seat| seat.taken = false);
                    }
                }
            }
            return Some(answer);
        }
        let queued = |wait: &&mut Waiting| {
            let same = (wait.key, wait.token) == (asked.key, asked.token);
            same && wait.taken() > 0 && wait.state == WaiterState::Queued
        };
        let seq = self.waits.iter_mut().zip(1..).find(|(wait, _)| queued(wait)).map(|(_, seq)| seq);
        if let Some(seq) = seq {
            let now = self.now;
            let wait = self.wait(seq);
            if !wait.terms.ask_for_the_same(&asked.terms) {
                return Some(self.reject(LockError::TokenReused));
            }
            let until = match asked.wait {
                Wait::No | Wait::Poll => return None,
                Wait::Millis(ms) => now + ms * TICK,
                Wait::Forever => u64::MAX,
            };
            if wait.taken() >= MAX_SEATS {
                return Some(self.reject(LockError::QueueFull));
            }
            wait.seats.push(Seat { taken: true, armed: true, wakes: 0 });
            wait.deadline = wait.deadline.max(until);
            return Some(Answer::Queued { seq });
        }
        let known =
            |(token, hash, ..): &&(Option<u128>, u32, u64, End)| *token == asked.token && *hash == HASHES[asked.key];
        let end = self.ended.iter().rev().find(known)?.3;
        Some(self.reject(LockError::Lost(end.as_loss())))
    }

    // ---- waiters ----

    pub(super) fn see(&mut self, seq: u64, seat: usize, asked: &Asked) -> Answer {
        let wait = self.wait(seq);
        let key = wait.key;
        if !wait.seats[seat].taken {
            return self.answer_taken(asked);
        }
        match wait.state.clone() {
            WaiterState::Granted => self.expire_if_over(self.unseen(seq)),
            WaiterState::Queued if self.is_over(seq) => {
                self.send_away(seq);
                self.hand_off_if_shared(key);
            }
            _ => {}
        }
        let wait = self.wait(seq);
        match wait.state.clone() {
            WaiterState::Queued => {
                wait.seats[seat].armed = true;
                Answer::Pending
            }
            WaiterState::Granted => {
                wait.seats.iter_mut().for_each(|seat| seat.taken = false);
                let fence = self.unseen(seq);
                let held = self.find(fence).unwrap();
                held.grant_state = asked.grant_state().into();
                Answer::Granted { fence }
            }
            WaiterState::Claiming { .. } => unreachable!("there is no store"),
            WaiterState::Refused(why) => {
                wait.seats[seat].taken = false;
                Answer::Refused(*why)
            }
        }
    }

    /// The grant that a granted waiter has not yet seen.
    fn unseen(&self, seq: u64) -> u64 {
        self.held.iter().find(|held| held.grant_state == Kept::Unseen(seq)).expect("T3").fence
    }

    fn answer_taken(&mut self, asked: &Asked) -> Answer {
        self.expire_if_due(asked.key);
        let impatient = Asked { wait: Wait::No, ..asked.clone() };
        self.answer_repeated(&impatient).unwrap_or(Answer::Refused(LockError::Lost(Loss::Unknown)))
    }

    pub(super) fn cancel(&mut self, seq: u64, seat: usize) {
        let wait = self.wait(seq);
        let (key, terms) = (wait.key, wait.terms.clone());
        if wait.taken() == 1 && wait.seats[seat].taken && wait.state == WaiterState::Granted {
            self.expire_if_over(self.unseen(seq));
        }
        let wait = self.wait(seq);
        if !std::mem::replace(&mut wait.seats[seat].taken, false) || wait.taken() > 0 {
            return;
        }
        match wait.state {
            WaiterState::Queued => {
                self.counters.cancelled += 1;
                self.counters.attempts += 1;
                self.return_quota(&terms);
                self.hand_off_if_shared(key);
            }
            WaiterState::Granted => {
                let fence = self.unseen(seq);
                let held = self.find(fence).unwrap();
                if held.reentries > 0 {
                    // Its owner has asked for it again meanwhile, and that request was answered.
                    held.reentries -= 1;
                    held.grant_state = Kept::Guard(TokenOrigin::ByClient);
                } else {
                    self.end(fence, End::Dropped);
                }
            }
            WaiterState::Claiming { .. } => unreachable!("there is no store"),
            WaiterState::Refused(_) => {}
        }
    }

    // ---- holders ----

    /// The live holder with this fence.
    pub(super) fn live(&mut self, fence: u64) -> Option<&mut Held> {
        self.expire_if_over(fence);
        self.find(fence)
    }

    /// The same, be it over or not.
    pub(super) fn holder(&mut self, fence: u64) -> Option<&mut Held> {
        self.find(fence)
    }

    pub(super) fn loss(&self, fence: u64) -> Loss {
        self.ended.iter().find(|(.., f, _)| *f == fence).map_or(Loss::Unknown, |(.., end)| end.as_loss())
    }

    /// Somebody is told the token of a grant: what it can be known by, if it can.
    pub(super) fn tell_token(&mut self, fence: u64) -> Option<u128> {
        if let Some(held) = self.find(fence) {
            held.is_told = held.token.is_none();
            return held.known_by();
        }
        self.ended.iter().find(|(.., f, _)| *f == fence)?.0
    }

    pub(super) fn fence_of(&mut self, key: usize, token: Option<u128>) -> Result<u64, LockError> {
        self.expire_if_due(key);
        let known = token.and_then(|_| self.holders(key).find(|held| held.known_by() == token));
        if let Some(held) = known {
            return Ok(held.fence);
        }
        let is_of = |name: Option<u128>| name.is_some() && name == token;
        let end = self.ended.iter().rev().find(|(name, hash, ..)| is_of(*name) && *hash == HASHES[key]);
        Err(match end {
            Some((.., end)) => LockError::Lost(end.as_loss()),
            None if self.is_held(key) => LockError::NotHeld,
            None => LockError::Lost(Loss::Unknown),
        })
    }

    /// Whether there was anything to let go of.
    pub(super) fn release(&mut self, fence: u64, end: End) -> Release {
        let now = self.now;
        match self.live(fence) {
            None => return Release::AlreadyGone,
            Some(held) if held.reentries > 0 => {
                held.reentries -= 1;
                // An order goes with the hold that it was given in.
                held.own = held.own.filter(|(depth, _)| *depth <= held.reentries);
                if held.auto.is_some_and(|order| order.depth > held.reentries) {
                    let of = |(depth, every)| Order { depth, every, timeout: every, due: now, is_own: true };
                    held.auto = held.own.take().map(of);
                }
            }
            Some(_) => self.end(fence, end),
        }
        Release::Released
    }

    pub(super) fn end_grant(&mut self, fence: u64, end: End) -> Release {
        if self.live(fence).is_none() {
            return Release::AlreadyGone;
        }
        self.end(fence, end);
        Release::Released
    }

    pub(super) fn refresh(&mut self, fence: u64, ttl: Option<Ttl>) -> Answer {
        let now = self.now;
        let Some(held) = self.live(fence).map(|held| held.clone()) else {
            self.counters.refresh_lost += 1;
            return Answer::Lost(self.loss(fence));
        };
        let (own, deadline) = (held.terms.ttl, self.deadline(&held));
        let share = held.terms.extra.as_ref().and_then(|extra| extra.refresh_after);
        if let (None, Some(share)) = (ttl, share)
            && Duration::from_nanos(deadline - now) >= own.as_duration().mul_f32(1.0 - share)
        {
            self.counters.refresh_skipped += 1;
            return refreshed(deadline, false, held.refreshes);
        }
        let ttl = ttl.unwrap_or(own);
        if self.session_of(&held.terms).is_some() {
            let id = held.terms.owner().unwrap().id;
            self.heartbeat(id, ttl).expect("the lock of a session that is over is over");
        } else {
            self.find(fence).unwrap().deadline = held.deadline.max(held.asked(now, ttl));
        }
        let held = self.find(fence).unwrap();
        held.refreshes += 1;
        let held = held.clone();
        let deadline = self.deadline(&held);
        self.counters.refreshed += 1;
        let remaining = Duration::from_nanos(deadline - now);
        self.tell(held.key, Some(held.proof), &held.terms, EventKind::Refreshed { remaining });
        refreshed(deadline, true, held.refreshes)
    }

    /// Caps a live hold: the deadline that it has stands.
    pub(super) fn cap_hold(&mut self, fence: u64, cap: Duration) {
        let held = self.find(fence).unwrap().clone();
        let deadline = self.deadline(&held);
        let held = self.find(fence).unwrap();
        (held.cap, held.deadline) = (Some(cap), deadline);
    }

    pub(super) fn give_notice(&mut self, fence: u64, at: u64) {
        let Some(held) = self.live(fence) else { return };
        let at = held.notice.map_or(at, |earlier| earlier.min(at));
        held.notice = Some(at);
        held.deadline = held.deadline.min(at);
        if held.watched {
            self.heard.entry(fence).or_default().push(Note::AskedBack(at));
        }
    }

    pub(super) fn downgrade(&mut self, fence: u64) -> Answer {
        let Some(held) = self.live(fence) else { return Answer::Refused(LockError::Lost(self.loss(fence))) };
        match held.mode {
            Mode::Permits { .. } => return Answer::Refused(ModeConflict::Permits.into()),
            Mode::Shared => {}
            Mode::Exclusive => {
                held.mode = Mode::Shared;
                let key = held.key;
                self.hand_on(key);
            }
        }
        Answer::Nothing
    }

    pub(super) fn revoke(&mut self, fence: u64, cycle: &Arc<[WaitEdge]>) {
        if let Some(held) = self.live(fence) {
            let (key, proof, terms) = (held.key, held.proof, held.terms.clone());
            self.tell(key, Some(proof), &terms, EventKind::Deadlock { cycle: cycle.clone() });
            self.end(fence, End::Revoked);
        }
    }

    // ---- sweeps ----

    /// All that one step of a sweep may lead to. The first is that it did nothing.
    pub(super) fn due_steps(&self) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut step = |does: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            does(&mut next);
            steps.push(next);
        };
        for held in self.held.iter().filter(|held| self.over(held).is_some()) {
            step(&|next| next.expire_if_over(held.fence));
        }
        for key in (0..HASHES.len()).filter(|key| self.goes_on(*key)) {
            step(&|next| next.hand_on(key));
        }
        for (key, seq) in (0..HASHES.len()).flat_map(|key| self.queue(key).into_iter().map(move |seq| (key, seq))) {
            if self.is_over(seq) {
                step(&|next| {
                    next.send_away(seq);
                    next.hand_off_if_shared(key);
                });
            }
        }
        for held in &self.held {
            if let Some(order) = held.auto.filter(|order| order.due <= self.now) {
                // The order of a lock that no refresh can keep any longer lapses; that of a session's may go on, for
                // the session's sake.
                let is_dead = matches!(self.session_of(&held.terms), Some(Err(_)));
                let at_its_cap = is_dead || self.deadline(held) >= held.last_deadline();
                if at_its_cap {
                    step(&|next| {
                        let found = next.find(held.fence).unwrap();
                        (found.auto, found.own) = (None, None);
                    });
                }
                if at_its_cap && self.session_of(&held.terms).is_none() {
                    continue;
                }
                step(&|next| {
                    let (now, mine) = (next.now, next.find(held.fence).unwrap());
                    mine.auto = Some(Order { due: now + order.every.as_nanos() as u64, ..order });
                    next.counters.refresh_late += u64::from(now - order.due > order.timeout.as_nanos() as u64);
                    next.refresh(held.fence, Some(held.terms.ttl));
                });
            }
        }
        steps
    }

    /// Whether there is more of a hand-off to be done.
    fn goes_on(&self, key: usize) -> bool {
        let first = self.queue(key).first().map(|seq| &self.waits[*seq as usize - 1]);
        first.is_some_and(|wait| self.closed || self.has_room(key, wait.terms.mode()))
    }

    /// A wheel may hand a thing out a tick late, and a session's end is no wheel's business.
    pub(super) fn assert_nothing_due(&self) {
        let later = |moment: u64| moment.div_ceil(TICK) > self.now / TICK;
        assert!(!self.is_anything_over_by_its_tick(), "C1: a sweep ends all that is due");
        assert!(self.closed || !(0..HASHES.len()).any(|key| self.goes_on(key)), "T2: who has room is let in");
        for seq in (0..HASHES.len()).flat_map(|key| self.queue(key)) {
            let wait = &self.waits[seq as usize - 1];
            assert!(later(wait.deadline), "C1: waits end");
            assert!(self.word_of(&wait.terms).is_none_or(later), "C1: waits end with their session");
        }
        assert!(self.held.iter().filter_map(|held| held.auto).all(|order| later(order.due)), "C1: orders are done");
    }

    /// Whether a holder is over, and a tick has passed since.
    pub(super) fn is_anything_over_by_its_tick(&self) -> bool {
        let over = |held: &Held| {
            let own = held.last_deadline().max(held.deadline);
            self.word_of(&held.terms).map_or(held.deadline, |until| until.min(own))
        };
        self.held.iter().any(|held| over(held).div_ceil(TICK) <= self.now / TICK)
    }

    /// Until when a session lives, past or not.
    fn word_of(&self, terms: &Terms) -> Option<u64> {
        let id = terms.owner()?.id;
        let person = self.people.iter().find(|person| person.id == id).filter(|person| person.session)?;
        Some(person.word.unwrap_or(0))
    }
}

impl Held {
    fn name(&self) -> Arc<str> {
        let label = self.terms.owner().map(|owner| owner.label()).or_else(|| self.terms.owner_label().cloned());
        label.unwrap_or_else(|| format!("the holder of fencing token {}", self.proof).into())
    }

    fn asked(&self, now: u64, ttl: Ttl) -> u64 {
        (now + ttl.as_nanos()).min(self.last_deadline())
    }

    /// No refresh moves the deadline past this.
    fn last_deadline(&self) -> u64 {
        let cap = self.cap.or(self.terms.max_hold());
        let capped = cap.map_or(u64::MAX, |cap| self.granted_at + cap.as_nanos() as u64);
        capped.min(self.notice.unwrap_or(u64::MAX))
    }
}

fn refreshed(deadline: u64, written: bool, count: u32) -> Answer {
    Answer::Refreshed(Refreshed { deadline: Moment::from_nanos(deadline), written, count })
}

impl Waiting {
    pub(super) fn taken(&self) -> u32 {
        self.seats.iter().map(|seat| u32::from(seat.taken)).sum()
    }

    fn wake(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.taken) {
            seat.wakes += usize::from(std::mem::replace(&mut seat.armed, false));
        }
    }
}
