//! What a process does about its table's commands: the shard's driver, in short.

use std::time::Duration;

use super::MS;
use super::key_at;
use super::store::{Answer, Ask, Push};
use super::world::{Event, World, hash, number_of};
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Token, Ttl};
use crate::store::drift;
use crate::table::claim::{
    Attempts, ClaimEnd, ClaimFilter, ClaimOutcome, ClaimRequest, ClaimSource, LocalWaiters, ReleaseCommand,
    StoreCommand, StoreGrant, Told,
};
use crate::table::{End, Grant, HoldersCursor};

/// A key that is being taken for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    grant: Grant,
    key: usize,
    ask: ClaimRequest,
    /// The pause that it is in: none that was before counts.
    pause: u64,
    /// The call whose answer it waits for.
    call: Option<u64>,
    /// What the pause is for.
    stage: Stage,
    /// A turn came while the answer to a try was on its way.
    has_turn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The last claim is released, or the last try undone, or nobody is to ask yet: a turn changes nothing.
    Held,
    Asking,
    Sleeping,
}

impl Op {
    pub(super) fn is_for(&self, key: usize) -> bool {
        self.key == key
    }
}

/// A call that was not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    key: usize,
    ask: Ask,
    sent: Moment,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Acquire {
        op: u64,
    },
    /// Repeated until it is done, at this time by the store's clock or later. An acquisition may wait for it.
    Release {
        from: u64,
        op: Option<u64>,
    },
    /// Asked again while nothing is known, if it is not a holder's own.
    Extend {
        grant: Grant,
        repeats: bool,
    },
    Confirm {
        grant: Grant,
    },
    Look {
        grant: Grant,
        end: End,
    },
    Leave,
}

impl World {
    pub(super) fn command(&mut self, of: usize, command: StoreCommand) {
        match command {
            StoreCommand::Acquire { grant, key, ask } => self.acquire(of, grant, number_of(&key), ask),
            StoreCommand::Cancel { grant, key, queue } => self.cancel(of, grant, number_of(&key), queue),
            StoreCommand::Extend { grant, key, token, ttl } => {
                if self.processes[of].extending.insert(grant.fence.get()) {
                    self.extend(of, number_of(&key), token, (grant, ttl, true));
                }
            }
            StoreCommand::Confirm { grant, key, token } => {
                self.call(of, number_of(&key), Ask::Look(token), Purpose::Confirm { grant });
            }
            StoreCommand::Release(release) => self.let_go_of(of, release),
            StoreCommand::GiveUp { key, claim } => {
                self.check_claim_end(of, number_of(&key), claim);
                self.check_pause(of, number_of(&key), claim.token);
                self.release(of, number_of(&key), claim);
            }
            StoreCommand::RunOut { .. } => {}
        }
    }

    /// A grant has ended, and perhaps the key is to be taken for another request at once.
    fn let_go_of(&mut self, of: usize, release: ReleaseCommand) {
        let ReleaseCommand { key, claim, end, next, .. } = release;
        let key = number_of(&key);
        self.check_claim_end(of, key, claim);
        // A lock that outlives a shutdown runs out.
        let is_released = end != End::ShutDown;
        match next {
            Some((next, ask)) if is_released && claim.last_fence.is_none() && self.random.bool() => {
                self.exchange(of, key, claim.token, (next, ask));
            }
            next => {
                if is_released {
                    self.release(of, key, claim);
                }
                if let Some((next, ask)) = next {
                    self.acquire(of, next, key, ask);
                }
            }
        }
    }

    /// Lets go of a claim, and asks for the next, in one call.
    fn exchange(&mut self, of: usize, key: usize, ended: Token, (grant, ask): (Grant, ClaimRequest)) {
        if ask.not_before > self.processes[of].clock(self.now) {
            self.release(of, key, ended.into());
            return self.acquire(of, grant, key, ask);
        }
        self.checks.reached.exchanged += 1;
        self.check_acquire(of, key, &ask);
        let op = grant.fence.get();
        let begun = Op { grant, key, ask, pause: 0, call: None, stage: Stage::Asking, has_turn: false };
        self.processes[of].ops.insert(op, begun);
        self.try_it(of, op, Some(ended));
    }

    // ---- calls ----

    fn call(&mut self, of: usize, key: usize, ask: Ask, purpose: Purpose) -> u64 {
        let (number, sent) = (self.number(), self.processes[of].clock(self.now));
        self.processes[of].calls.insert(number, Call { key, ask, sent, purpose });
        if !self.is_lost() {
            let delay = self.delay();
            self.after(of, delay, Event::AtStore { from: of, call: number, key, ask });
        }
        let timeout = self.plan.timeout_ms * MS;
        self.after(of, timeout, Event::Timeout { call: number });
        number
    }

    fn release(&mut self, of: usize, key: usize, claim: ClaimEnd) {
        self.call_release(of, key, claim, (0, None));
    }

    fn call_release(&mut self, of: usize, key: usize, claim: ClaimEnd, (from, op): (u64, Option<u64>)) {
        let not_after = self.not_after();
        self.call(of, key, Ask::Release { claim, not_after }, Purpose::Release { from, op });
    }

    /// After when the store does not do what it is asked now.
    fn not_after(&self) -> u64 {
        self.store_clock() + self.plan.timeout_ms * 1_000
    }

    pub(super) fn answered(&mut self, of: usize, call: u64, answer: Answer, clock: u64) {
        // One that comes too late is unknown.
        let Some(called) = self.processes[of].calls.remove(&call) else { return };
        let Call { key, ask, sent, purpose } = called;
        match purpose {
            Purpose::Acquire { op } => {
                if let (Answer::TooLate, Ask::Acquire { ended: Some(ended), .. }) = (answer, ask) {
                    self.release(of, key, ended.into());
                }
                self.tried(of, op, (answer, clock), sent);
            }
            Purpose::Release { from, .. } if clock <= from || matches!(answer, Answer::TooLate) => {
                self.make_again(of, called);
            }
            Purpose::Release { op, .. } => op.into_iter().for_each(|op| self.go_on(of, op)),
            Purpose::Extend { grant, .. } => {
                self.processes[of].extending.remove(&grant.fence.get());
                self.extended(of, &grant, (answer, sent), ask);
            }
            Purpose::Confirm { grant } => match answer {
                Answer::Kept { left_us } => {
                    let Ask::Look(token) = ask else { return };
                    let deadline = sent.saturating_add(valid_for(left_us));
                    self.checks.tell(token, deadline);
                    self.act(of, |table, now, fx| table.confirmed(&grant, deadline, now, fx));
                }
                _ => self.act(of, |table, now, fx| table.claim_lost(&grant, End::Vanished, now, fx)),
            },
            Purpose::Look { grant, end } => {
                let Ask::Look(token) = ask else { return };
                if matches!(answer, Answer::NotKept) {
                    self.act(of, |table, now, fx| table.claim_lost(&grant, end, now, fx));
                    self.release(of, key, token.into());
                }
            }
            Purpose::Leave => {}
        }
    }

    pub(super) fn timed_out(&mut self, of: usize, call: u64) {
        let Some(called) = self.processes[of].calls.remove(&call) else { return };
        self.checks.reached.unknown += 1;
        match called.purpose {
            Purpose::Acquire { op } => {
                self.undo(of, called, Some(op));
                let grant = self.processes[of].ops[&op].grant;
                self.act(of, |table, now, fx| table.denied(&grant, LockError::StoreUnavailable, now, fx));
            }
            Purpose::Release { from, op } => {
                // This one may still arrive.
                let Ask::Release { not_after, .. } = called.ask else { return };
                self.make_again(of, Call { purpose: Purpose::Release { from: from.max(not_after), op }, ..called });
            }
            Purpose::Extend { grant, repeats, .. } => {
                let is_held = self.act(of, |table, now, _| table.held_until(&grant, now).is_some());
                if repeats && is_held {
                    self.make_again(of, called);
                } else {
                    self.processes[of].extending.remove(&grant.fence.get());
                }
            }
            // The next look sees.
            Purpose::Confirm { .. } | Purpose::Look { .. } | Purpose::Leave => {}
        }
    }

    /// Has a call made again in a while.
    fn make_again(&mut self, of: usize, called: Call) {
        let number = self.number();
        self.processes[of].calls.insert(number, called);
        let pause = self.random.u64(20 * MS..200 * MS);
        self.after(of, pause, Event::Again { call: number });
    }

    pub(super) fn again(&mut self, of: usize, call: u64) {
        match self.processes[of].calls.remove(&call) {
            Some(Call { key, ask: Ask::Release { claim, .. }, purpose: Purpose::Release { from, op }, .. }) => {
                self.call_release(of, key, claim, (from, op));
            }
            Some(Call { key, ask, purpose, .. }) => drop(self.call(of, key, ask, purpose)),
            None => {}
        }
    }

    /// Releases what a try may have taken, until it can take nothing more.
    fn undo(&mut self, of: usize, tried: Call, op: Option<u64>) {
        let Ask::Acquire { token, not_after, ended, .. } = tried.ask else { return };
        if let Some(ended) = ended {
            self.release(of, tried.key, ended.into());
        }
        self.call_release(of, tried.key, token.into(), (not_after, op));
        if let Some(op) = op.and_then(|op| self.processes[of].ops.get_mut(&op)) {
            (op.stage, op.call) = (Stage::Held, None);
        }
    }

    // ---- to take a key ----

    fn acquire(&mut self, of: usize, grant: Grant, key: usize, ask: ClaimRequest) {
        let op = grant.fence.get();
        let begun = Op { grant, key, ask, pause: 0, call: None, stage: Stage::Held, has_turn: false };
        self.processes[of].ops.insert(op, begun);
        match ask.after {
            Some(last) => {
                self.check_claim_end(of, key, last);
                self.check_pause(of, key, last.token);
                // Unknown is an answer, too, after which it goes on.
                let waits = self.random.u32(0..4) > 0;
                self.call_release(of, key, last, (0, waits.then_some(op)));
                if !waits {
                    self.go_on(of, op);
                }
            }
            None => self.go_on(of, op),
        }
        self.check_acquire(of, key, &ask);
    }

    /// Has an acquisition try when it may.
    fn go_on(&mut self, of: usize, op: u64) {
        if let Some(begun) = self.processes[of].ops.get(&op) {
            let not_before = begun.ask.not_before;
            let pause = self.sleep(of, op, Stage::Held);
            self.at(of, not_before, Event::Wake { op, pause });
        }
    }

    /// Puts an acquisition in a new pause.
    fn sleep(&mut self, of: usize, op: u64, stage: Stage) -> u64 {
        let pause = self.number();
        if let Some(op) = self.processes[of].ops.get_mut(&op) {
            (op.pause, op.stage, op.call) = (pause, stage, None);
        }
        pause
    }

    /// Has an acquisition try again in so long, or when its turn comes.
    fn try_in(&mut self, of: usize, op: u64, nanos: u64) {
        if self.processes[of].ops.contains_key(&op) {
            let pause = self.sleep(of, op, Stage::Sleeping);
            self.after(of, nanos, Event::Wake { op, pause });
        }
    }

    pub(super) fn pause_is_over(&mut self, of: usize, op: u64, pause: u64) {
        if self.processes[of].ops.get(&op).is_some_and(|op| op.pause == pause) {
            self.try_it(of, op, None);
        }
    }

    /// Tries to take a key. `ended`: the claim that the store lets go of before.
    fn try_it(&mut self, of: usize, op: u64, ended: Option<Token>) {
        let Op { key, ask, .. } = self.processes[of].ops[&op];
        let ClaimRequest { token, ttl, tries, not_before, .. } = ask;
        assert!(self.processes[of].clock(self.now) >= not_before, "K5: nobody asks before the pause is over");
        let (ttl_us, not_after, queues) = (ttl.as_nanos() / 1_000, self.not_after(), tries == Attempts::Many);
        let ask = Ask::Acquire { token, ttl_us, not_after, queues, ended };
        let call = self.call(of, key, ask, Purpose::Acquire { op });
        if let Some(op) = self.processes[of].ops.get_mut(&op) {
            (op.stage, op.call, op.has_turn, op.pause) = (Stage::Asking, Some(call), false, 0);
        }
    }

    fn tried(&mut self, of: usize, op: u64, (answer, clock): (Answer, u64), sent: Moment) {
        let Op { grant, key, ask, has_turn, .. } = self.processes[of].ops[&op];
        match answer {
            Answer::Granted { fence, left_us } => {
                let deadline = sent.saturating_add(valid_for(left_us));
                let given = self.plan.gives.grant(fence, clock);
                self.checks.tell(ask.token, deadline);
                let source = ClaimSource::OfStore(given);
                match self.act(of, |table, now, fx| table.claimed(&grant, source, deadline, now, fx)) {
                    ClaimOutcome::Taken => drop(self.processes[of].ops.remove(&op)),
                    ClaimOutcome::Unwanted => {
                        self.processes[of].ops.remove(&op);
                        self.release(of, key, ask.token.into());
                    }
                    ClaimOutcome::TooLate => {
                        self.checks.reached.too_late += 1;
                        // Before the next try: it is under the same token.
                        self.call_release(of, key, ask.token.into(), (0, Some(op)));
                        self.sleep(of, op, Stage::Held);
                        self.act(of, |table, now, fx| table.denied(&grant, LockError::StoreUnavailable, now, fx));
                    }
                }
            }
            Answer::TooLate => {
                self.try_in(of, op, 50 * MS);
                self.act(of, |table, now, fx| table.denied(&grant, LockError::StoreUnavailable, now, fx));
            }
            _ => {
                let pause = if has_turn { 0 } else { self.random.u64(900 * MS..1_100 * MS) };
                self.try_in(of, op, pause);
                self.act(of, |table, now, fx| table.denied(&grant, LockError::Held, now, fx));
            }
        }
        if ask.tries == Attempts::One {
            self.processes[of].ops.remove(&op);
        }
    }

    fn cancel(&mut self, of: usize, grant: Grant, key: usize, queue: LocalWaiters) {
        let op = self.processes[of].ops.remove(&grant.fence.get());
        if let Some(call) = op.and_then(|op| op.call)
            && let Some(called) = self.processes[of].calls.remove(&call)
        {
            self.undo(of, called, None);
        }
        if queue == LocalWaiters::None {
            self.call(of, key, Ask::Leave, Purpose::Leave);
        }
    }

    // ---- to keep it ----

    pub(super) fn extend(&mut self, of: usize, key: usize, token: Token, (grant, ttl, repeats): (Grant, Ttl, bool)) {
        self.checks.extending(token);
        let ask = Ask::Extend { token, ttl_us: ttl.as_nanos() / 1_000 };
        self.call(of, key, ask, Purpose::Extend { grant, repeats });
    }

    fn extended(&mut self, of: usize, grant: &Grant, (answer, sent): (Answer, Moment), ask: Ask) {
        let Ask::Extend { token, .. } = ask else { return };
        match answer {
            Answer::Kept { left_us } => {
                let deadline = sent.saturating_add(valid_for(left_us));
                let is_held = self.act(of, |table, now, _| table.held_until(grant, now).is_some());
                if is_held {
                    self.checks.tell(token, deadline);
                }
                let _ = self.act(of, |table, now, fx| table.extended(grant, deadline, now, fx));
            }
            _ => self.act(of, |table, now, fx| table.claim_lost(grant, End::Vanished, now, fx)),
        }
    }

    // ---- messages ----

    pub(super) fn pushed(&mut self, of: usize, key: usize, push: Push) {
        match push {
            Push::Turn => self.call_to_try(of, key),
            Push::Wanted => self.tell(of, key, Told::Wanted),
            Push::Forced => {
                self.tell(of, key, Told::Doubted);
                let found = self.act(of, |table, now, fx| {
                    let (grants, _) = table.grants_on(&key_at(key), hash(), HoldersCursor::default(), now, fx);
                    grants.into_iter().find_map(|grant| Some((grant, table.claim_of(&grant)?)))
                });
                if let Some(found) = found {
                    self.look(of, key, found, End::Forced);
                }
            }
        }
    }

    fn call_to_try(&mut self, of: usize, key: usize) {
        let mut due = None;
        for (number, op) in self.processes[of].ops.iter_mut().filter(|(_, op)| op.key == key) {
            op.has_turn = true;
            if op.stage == Stage::Sleeping {
                due = Some(*number);
            }
        }
        if let Some(op) = due {
            self.try_in(of, op, 0);
        }
    }

    fn tell(&mut self, of: usize, key: usize, told: Told) {
        self.check_told(of, key, told);
        self.act(of, |table, now, fx| table.tell_claim(&key_at(key), hash(), told, now, fx));
    }

    fn look(&mut self, of: usize, key: usize, (grant, token): (Grant, Token), end: End) {
        self.call(of, key, Ask::Look(token), Purpose::Look { grant, end });
    }

    /// The store may have forgotten what it granted.
    pub(super) fn resumed(&mut self, of: usize) {
        self.check_doubt_of_all(of);
        self.act(of, |table, _, _| table.doubt_claims());
        // Or the table has not been looked through yet.
        if self.random.bool() {
            self.act(of, |table, _, fx| table.give_up_idle_claims(0, u32::MAX, fx));
        }
        self.look_at(of, ClaimFilter::All);
    }

    pub(super) fn recheck(&mut self, of: usize) {
        if !self.is_fair {
            self.look_at(of, ClaimFilter::InTheWay);
            self.after(of, 1_000 * MS, Event::Recheck);
        }
    }

    fn look_at(&mut self, of: usize, which: ClaimFilter) {
        let mut found = Vec::new();
        self.processes[of].table().claims(which, 0, u32::MAX, |grant, key, token| found.push((grant, key, token)));
        for (grant, key, token) in found {
            self.look(of, number_of(&key), (grant, token), End::Vanished);
        }
    }
}

/// For how long a process may count on what the store keeps for so long.
fn valid_for(left_us: u64) -> Duration {
    let left = Duration::from_micros(left_us);
    left.saturating_sub(drift(left))
}

/// What the store says beside its yes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gives {
    Nothing,
    Fences,
    FencesAndClock,
}

impl Gives {
    fn grant(self, fence: u64, clock: u64) -> StoreGrant {
        let fence = Some(FencingToken::at_least_one(fence));
        match self {
            Self::Nothing => StoreGrant { fence: None, clock: None },
            Self::Fences => StoreGrant { fence, clock: None },
            Self::FencesAndClock => StoreGrant { fence, clock: Some(clock) },
        }
    }
}
