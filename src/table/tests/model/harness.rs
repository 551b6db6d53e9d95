//! The harness: the table and its model side by side, compared after every operation.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use uuid::Uuid;

use super::super::holder::{Holder, Keep};
use super::super::refresh_order::AutoRefresh;
use super::super::*;
use super::naive::{Held, Kept, Model, Note, Order, Past, Told, View, minted};
use super::{
    Answer, Asked, HASHES, LIMITS, MAX_PLACES, MODES, Op, Request, SESSION_TTLS_MS, START, TICK, Wait, key_at, ttl_at,
};
use crate::error::{LockError, Loss, WaitEdge};
use crate::key::Ttl;

/// More ends than these, and the trail may have forgotten some.
const ENDS_TRAILED: usize = 128;

/// A waker that counts, and notices if it is woken or dropped while the table is at work (peer bug 22).
struct Bell {
    rung: Arc<AtomicUsize>,
    table_at_work: Arc<AtomicBool>,
    touched_early: Arc<AtomicBool>,
}

impl Bell {
    fn note(&self) {
        if self.table_at_work.load(Ordering::SeqCst) {
            self.touched_early.store(true, Ordering::SeqCst);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.note();
        self.rung.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.note();
    }
}

struct Ear {
    fence: u64,
    heard: Arc<Mutex<BTreeMap<u64, Vec<Note>>>>,
}

impl Ear {
    fn hear(&self, note: Note) {
        self.heard.lock().unwrap().entry(self.fence).or_default().push(note);
    }
}

impl Watcher for Ear {
    fn ended(&self, end: End) {
        self.hear(Note::Ended(end));
    }

    fn revocation_notice(&self, deadline: Moment) {
        self.hear(Note::AskedBack(deadline.as_nanos()));
    }
}

/// Keeps the events that the table tells.
#[derive(Default)]
struct Diary {
    sequence: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl Sink for Diary {
    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn publish(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// A request that queued, until it is answered or cancelled.
struct Queuer {
    id: WaiterId,
    seat: usize,
    asked: Asked,
    rung: Arc<AtomicUsize>,
    answered: bool,
}

/// A request to upgrade that waited, until it is answered or cancelled.
struct Upgrader {
    grant: Grant,
    seat: UpgradeSeat,
    rung: Arc<AtomicUsize>,
    answered: bool,
}

pub(super) struct Harness {
    pub(super) table: Table,
    model: Model,
    clock: u64,
    early: u64,
    /// The tokens that were told, by fence, and the other way round.
    told: HashMap<u64, Token>,
    told_of: HashMap<Token, u64>,
    /// Two sessions and a call, as they are now.
    owners: Vec<Arc<Owner>>,
    /// These and those that were before them, as the model counts them.
    people: Vec<Arc<Owner>>,
    /// Every grant that was ever made, with its key: most are stale.
    grants: Vec<(Grant, usize)>,
    queuers: Vec<Queuer>,
    upgraders: Vec<Upgrader>,
    highest: HashMap<usize, u64>,
    heard: Arc<Mutex<BTreeMap<u64, Vec<Note>>>>,
    diary: Arc<Diary>,
    sequence: u64,
    table_at_work: Arc<AtomicBool>,
    touched_early: Arc<AtomicBool>,
}

impl Harness {
    pub(super) fn new() -> Self {
        let mut harness = Self {
            table: Table::new(LIMITS, Claim::Local, 1, Moment::from_nanos(START)),
            model: Model::new(),
            clock: START,
            early: 0,
            told: HashMap::new(),
            told_of: HashMap::new(),
            owners: Vec::new(),
            people: Vec::new(),
            grants: Vec::new(),
            queuers: Vec::new(),
            upgraders: Vec::new(),
            highest: HashMap::new(),
            heard: Arc::default(),
            diary: Arc::default(),
            sequence: 0,
            table_at_work: Arc::default(),
            touched_early: Arc::default(),
        };
        harness.owners = [Some(0), Some(1), None].map(|session| harness.owner(session)).to_vec();
        harness
    }

    /// A new session or call.
    fn owner(&mut self, session: Option<usize>) -> Arc<Owner> {
        let ttl = |at: usize| Ttl::new(Duration::from_millis(SESSION_TTLS_MS[at])).unwrap();
        let kind = session.map_or(OwnerKind::Call, |at| OwnerKind::Session(ttl(at)));
        let owner = Arc::new(Owner::new(None, kind, Moment::from_nanos(self.model.now), MAX_PLACES));
        self.model.enter(&owner);
        self.people.push(owner.clone());
        owner
    }

    pub(super) fn run(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Answer> {
        ops.into_iter().map(|op| self.step(&op)).collect()
    }

    /// Does one operation in both, compares, and answers what both answered.
    pub(super) fn step(&mut self, op: &Op) -> Answer {
        let before = self.model.view();
        let answer = self.apply(op);
        self.compare(op);
        let after = self.model.view();
        assert!(after.now >= before.now, "C1");
        for (fence, (held, deadline)) in &after.held {
            let highest = self.highest.entry(held.key).or_default();
            match before.held.get(fence) {
                // A session that is over, and notice, end a lock before its time.
                Some((old, was)) if *deadline > 0 && held.notice == old.notice => {
                    assert!(deadline >= was, "T6: no refresh shortens");
                    assert!(deadline == was || *was > after.now, "T6: no refresh revives");
                }
                Some(_) => {}
                None => assert!(fence > highest, "T4: fences rise"),
            }
            let upgraded = before.held.get(fence).is_some_and(|(old, _)| old.proof != held.proof);
            assert!(!upgraded || held.proof > *highest, "T4: what is upgraded gets a fence above all others");
            *highest = (*highest).max(held.proof);
        }
        answer
    }

    /// Compares all that shows of the two.
    fn compare(&mut self, op: &Op) {
        assert_eq!(self.view(), self.model.view(), "the state (left: table, right: model) after {op:?}");
        self.table.assert_invariants();
        self.compare_queuers();
        self.compare_upgraders();
        self.compare_obstacles();
        self.compare_looks();
        self.compare_trails();
        self.compare_events(op);
        assert_eq!(*self.heard.lock().unwrap(), self.model.heard, "notices after {op:?}");
        assert!(!self.touched_early.load(Ordering::SeqCst), "a waker was woken or dropped inside of the table");
    }

    /// Runs one transition of the table, its effects after it.
    fn with<R>(&mut self, transition: impl FnOnce(&mut Table, Moment, &mut Effects) -> R) -> R {
        let now = self.clock - self.early;
        self.model.now = self.model.now.max(now);
        self.at_no_time(|table, fx| transition(table, Moment::from_nanos(now), fx))
    }

    fn at_no_time<R>(&mut self, transition: impl FnOnce(&mut Table, &mut Effects) -> R) -> R {
        let mut fx = Effects::new();
        self.table_at_work.store(true, Ordering::SeqCst);
        let answer = transition(&mut self.table, &mut fx);
        self.table_at_work.store(false, Ordering::SeqCst);
        drop(fx);
        answer
    }

    fn bell(&self, rung: &Arc<AtomicUsize>) -> Waker {
        Waker::from(Arc::new(Bell {
            rung: Arc::clone(rung),
            table_at_work: Arc::clone(&self.table_at_work),
            touched_early: Arc::clone(&self.touched_early),
        }))
    }

    fn apply(&mut self, op: &Op) -> Answer {
        if let Op::ReadEarly { micros } = op {
            self.early = micros * 1_000;
            return Answer::Nothing;
        }
        let answer = match op {
            Op::Acquire(request) => self.acquire(request),
            Op::GrantNow(request) => self.grant_now(request),
            Op::See { seat } => self.on_seat(*seat, Self::see),
            Op::Cancel { seat } => self.on_seat(*seat, Self::cancel),
            Op::BreakWait { seat } => self.on_seat(*seat, Self::break_wait),
            Op::SeeUpgrade { seat } => self.on_upgrade(*seat, Self::see_upgrade),
            Op::CancelUpgrade { seat } => self.on_upgrade(*seat, Self::cancel_upgrade),
            Op::CallOffUpgrade { seat } => self.on_upgrade(*seat, Self::call_off_upgrade),
            Op::Tick { steps } => self.tick(op, *steps),
            Op::Settle => self.tick(op, usize::MAX),
            Op::Advance { micros } => {
                self.clock += micros * 1_000;
                Answer::Nothing
            }
            Op::Force { key } => self.force(*key),
            Op::Heartbeat { session, ttl } => self.heartbeat(*session, *ttl),
            Op::EndSession { session } => self.end_session(op, *session),
            Op::Listen { key } => {
                let interest = key.map_or(Interest::Everything, |key| Interest::Key { hash: HASHES[key] });
                self.table.listen(interest, self.diary.clone());
                self.model.listeners.push(interest);
                Answer::Nothing
            }
            Op::StopListening { listener } => {
                let open = self.model.listeners.len();
                if open > 0 {
                    let interest = self.model.listeners.remove(listener % open);
                    self.table.stop_listening(interest);
                }
                Answer::Nothing
            }
            Op::Close => {
                self.table.close();
                self.model.closed = true;
                Answer::Nothing
            }
            Op::RefuseWaiters { budget } => self.refuse_waiters(*budget),
            Op::EndGrants { budget } => self.end_grants(*budget),
            _ => self.on_grant(op),
        };
        self.early = 0;
        answer
    }

    // ---- requests ----

    fn asked(&mut self, request: &Request) -> Asked {
        Asked {
            key: request.key,
            terms: request.terms(&self.owners),
            token: request.token.map(|at| at as u128 + 1),
            ticket: request.ticket,
            wait: request.wait,
        }
    }

    fn note(&mut self, grant: Grant, key: usize) -> Answer {
        self.grants.push((grant, key));
        answer_of(&grant)
    }

    fn acquire(&mut self, request: &Request) -> Answer {
        let (asked, takes_the_lane) = (self.asked(request), request.lane);
        let key = key_at(asked.key);
        let request = request_of(&asked, &key);
        let mut turned_away = None;
        let is_share = takes_the_lane && asked.is_ordinary_share();
        if takes_the_lane && !is_share {
            let answer = self.with(|table, now, _| {
                let granted = table.grant_if_free(&request, now)?;
                // As a run's is, where the request has no terms that would keep it from that.
                if asked.is_kept() && table.keep_from_next_tick(&granted).is_some() {
                    assert!(asked.terms.extra.is_none());
                }
                Ok(granted)
            });
            let expected = self.model.grant_if_free(&asked);
            if let (true, Some(Answer::Granted { fence, .. }), None) = (asked.is_kept(), &expected, &asked.terms.extra)
            {
                self.model.keep_refreshed(*fence);
            }
            assert_eq!(answer.as_ref().ok().map(answer_of), expected, "the lane");
            match answer {
                Ok(grant) => return self.note(grant, asked.key),
                Err(why) => turned_away = Some(why),
            }
        }
        let rung = Arc::default();
        let bell = self.bell(&rung);
        let clock = self.model.now.max(self.clock - self.early);
        let policy = match asked.wait {
            Wait::No => WaitPolicy::Now,
            Wait::Poll => WaitPolicy::Poll,
            Wait::Millis(ms) => WaitPolicy::Until(Moment::from_nanos(clock + ms * TICK), Some(&bell)),
            Wait::Forever => WaitPolicy::Until(Moment::FAR, Some(&bell)),
        };
        let outcome = self.with(|table, now, fx| match (turned_away, policy) {
            (Some(why), WaitPolicy::Until(deadline, Some(waker))) => {
                match table.queue_ordinary(why, &request, (now, deadline), waker) {
                    Some((id, due)) => {
                        fx.due(due);
                        AcquireOutcome::Queued(id)
                    }
                    None => table.acquire_after(why, &request, policy, now, fx),
                }
            }
            (Some(why), _) => table.acquire_after(why, &request, policy, now, fx),
            (None, _) => {
                let alone = Terms { ttl: request.terms.ttl, extra: None };
                let granted =
                    is_share.then(|| table.grant_share(&AcquireRequest { terms: &alone, ..request }, now)).flatten();
                granted.map_or_else(|| table.acquire(&request, policy, now, fx), AcquireOutcome::Granted)
            }
        });
        let of = if let AcquireOutcome::Granted(grant) = &outcome { Some(grant.fence.get()) } else { None };
        let expected = self.model.acquire(&asked, of);
        let answer = match outcome {
            AcquireOutcome::Granted(grant) => self.note(grant, asked.key),
            AcquireOutcome::Refused(why) => Answer::Refused(why),
            AcquireOutcome::Queued(id) => {
                let seat = self.model.waits.get(id.seq as usize - 1).map_or(0, |wait| wait.seats.len() - 1);
                self.queuers.push(Queuer { id, seat, asked: asked.clone(), rung, answered: false });
                Answer::Queued { seq: id.seq }
            }
        };
        assert_eq!(answer, expected, "the answer (left: table, right: model) to {asked:?}");
        answer
    }

    fn grant_now(&mut self, request: &Request) -> Answer {
        let asked = self.asked(request);
        let key = key_at(asked.key);
        let grant = self.with(|table, now, fx| table.grant_now(&request_of(&asked, &key), now, fx));
        let expected = self.model.grant_now(&asked, grant.map(|grant| grant.fence.get()));
        let answer = grant.map(|grant| self.note(grant, asked.key));
        assert_eq!(answer, expected, "what is granted now (left: table, right: model) to {asked:?}");
        answer.unwrap_or(Answer::Nothing)
    }

    fn on_seat(&mut self, at: usize, does: impl Fn(&mut Self, usize) -> Answer) -> Answer {
        let open: Vec<usize> = (0..self.queuers.len()).filter(|at| !self.queuers[*at].answered).collect();
        if open.is_empty() { Answer::Nothing } else { does(self, open[at % open.len()]) }
    }

    /// What `request` does at each later poll.
    fn see(&mut self, at: usize) -> Answer {
        let (id, seat, asked) = (self.queuers[at].id, self.queuers[at].seat, self.queuers[at].asked.clone());
        // A fresh waker each time: a future may move from task to task.
        let bell = self.bell(&self.queuers[at].rung);
        // The lane must do what the other way does: every second waiter tries it first.
        let takes_the_lane = id.seq.is_multiple_of(2);
        let seen = self.with(|table, now, fx| {
            let grant = if takes_the_lane { table.see_grant(id, asked.grant_state(), now) } else { None };
            let full = || table.poll_waiter(id, asked.grant_state(), &bell, now, fx);
            grant.map_or_else(full, WaiterPoll::Granted)
        });
        let answer = match seen {
            WaiterPoll::Pending => Answer::Pending,
            WaiterPoll::Granted(grant) => self.note(grant, asked.key),
            WaiterPoll::Refused(why) => Answer::Refused(why),
            WaiterPoll::Taken => {
                let key = key_at(asked.key);
                match self.with(|table, now, fx| table.answer_taken(&request_of(&asked, &key), now, fx)) {
                    Ok(grant) => self.note(grant, asked.key),
                    Err(why) => Answer::Refused(why),
                }
            }
        };
        assert_eq!(answer, self.model.see(id.seq, seat, &asked), "what the waiter sees (left: table, right: model)");
        self.queuers[at].answered = answer != Answer::Pending;
        answer
    }

    fn cancel(&mut self, at: usize) -> Answer {
        let Queuer { id, seat, .. } = self.queuers[at];
        self.with(|table, now, fx| table.cancel(id, now, fx));
        self.model.cancel(id.seq, seat);
        self.queuers[at].answered = true;
        Answer::Nothing
    }

    fn break_wait(&mut self, at: usize) -> Answer {
        let id = self.queuers[at].id;
        let cycle = cycle();
        let why = LockError::Deadlock { cycle: cycle.clone() };
        let broken = self.with(|table, now, fx| table.break_wait(id, why, now, fx));
        assert_eq!(broken.is_ok(), self.model.break_wait(id.seq, &cycle), "whether the wait was broken");
        Answer::Nothing
    }

    // ---- upgrades ----

    fn on_upgrade(&mut self, at: usize, does: impl Fn(&mut Self, usize) -> Answer) -> Answer {
        let open: Vec<usize> = (0..self.upgraders.len()).filter(|at| !self.upgraders[*at].answered).collect();
        if open.is_empty() { Answer::Nothing } else { does(self, open[at % open.len()]) }
    }

    fn see_upgrade(&mut self, at: usize) -> Answer {
        let Upgrader { grant, seat, .. } = self.upgraders[at];
        let bell = self.bell(&self.upgraders[at].rung);
        let outcome = self.with(|table, now, fx| table.poll_upgrade(&grant, seat, &bell, now, fx));
        let answer = upgraded(outcome);
        assert_eq!(answer, self.model.see_upgrade(at), "what an upgrade sees (left: table, right: model)");
        self.upgraders[at].answered = answer != Answer::Pending;
        answer
    }

    fn cancel_upgrade(&mut self, at: usize) -> Answer {
        let Upgrader { grant, seat, .. } = self.upgraders[at];
        self.with(|table, now, fx| table.cancel_upgrade(&grant, seat, now, fx));
        self.model.cancel_upgrade(at);
        self.upgraders[at].answered = true;
        Answer::Nothing
    }

    fn call_off_upgrade(&mut self, at: usize) -> Answer {
        let Upgrader { grant, seat, .. } = self.upgraders[at];
        self.with(|table, now, fx| table.call_off_upgrade((&grant, seat), &cycle(), now, fx));
        self.model.call_off_upgrade(at, &cycle());
        Answer::Nothing
    }

    // ---- holders ----

    fn on_grant(&mut self, op: &Op) -> Answer {
        let at = match op {
            Op::Release { grant, .. }
            | Op::ReleaseByToken { grant, .. }
            | Op::Refresh { grant, .. }
            | Op::RefreshByToken { grant, .. }
            | Op::AutoRefresh { grant, .. }
            | Op::StopAutoRefresh { grant }
            | Op::Keep { grant }
            | Op::GiveOwner { grant, .. }
            | Op::CapHold { grant, .. }
            | Op::Watch { grant }
            | Op::Downgrade { grant }
            | Op::Upgrade { grant, .. }
            | Op::GiveNotice { grant, .. }
            | Op::Revoke { grant }
            | Op::Detach { grant }
            | Op::Restore { grant } => *grant,
            other => unreachable!("{other:?} is about no grant"),
        };
        if self.grants.is_empty() {
            return Answer::Nothing;
        }
        // Counted from the last, so that small numbers mean grants that may still be live.
        let (grant, _) = self.grants[self.grants.len() - 1 - at % self.grants.len()];
        let fence = grant.fence.get();
        let (got, expected) = match *op {
            Op::Release { end, .. } => {
                // A guard is dropped once; one whose owner asked again may share a grant that nobody has seen.
                let unseen = matches!(self.table.grant_state(&grant), Some(GrantState::Unseen(_)));
                let end = if unseen { End::Released } else { end };
                // The quiet ways out must do what the other does: every second grant tries them first.
                let quietly = fence.is_multiple_of(2);
                let got = self.with(|table, now, fx| {
                    let done = if quietly { release_in_the_lane(table, &grant, end, now, fx) } else { None };
                    done.unwrap_or_else(|| table.release(&grant, end, now, fx))
                });
                (Answer::Release(got), Answer::Release(self.model.release(fence, end)))
            }
            Op::ReleaseByToken { key, .. } => {
                let (told, token) = self.tell(&grant);
                let got = self.with(|table, now, fx| {
                    let found = table.grant_of(&key_at(key), HASHES[key], told, now, fx)?;
                    Ok(table.release(&found, End::ByToken, now, fx))
                });
                let expected = self.model.fence_of(key, token).map(|fence| self.model.release(fence, End::ByToken));
                (
                    got.map_or_else(Answer::Refused, Answer::Release),
                    expected.map_or_else(Answer::Refused, Answer::Release),
                )
            }
            Op::Refresh { ttl, .. } => {
                let request = ttl.map_or(RefreshRequest::IfDue, |at| RefreshRequest::To(ttl_at(at)));
                let got = self.with(|table, now, fx| table.refresh(&grant, request, now, fx));
                let expected = self.model.refresh(fence, ttl.map(ttl_at));
                (got.map_or_else(Answer::Lost, Answer::Refreshed), expected)
            }
            Op::RefreshByToken { key, ttl, .. } => {
                let (told, token) = self.tell(&grant);
                let request = ttl.map_or(RefreshRequest::IfDue, |at| RefreshRequest::To(ttl_at(at)));
                let got = self.with(|table, now, fx| {
                    let found = table.grant_of(&key_at(key), HASHES[key], told, now, fx)?;
                    table.refresh(&found, request, now, fx).map_err(LockError::Lost)
                });
                let expected = match self.model.fence_of(key, token) {
                    Ok(fence) => self.model.refresh(fence, ttl.map(ttl_at)),
                    Err(why) => Answer::Refused(why),
                };
                (got.map_or_else(Answer::Refused, Answer::Refreshed), expected)
            }
            Op::AutoRefresh { every_ms, timeout_ms, .. } => {
                let (every, timeout) = (Duration::from_millis(every_ms), Duration::from_millis(timeout_ms));
                let got = self.with(|table, now, fx| table.auto_refresh(&grant, every, timeout, now, fx).map(drop));
                let due = self.model.now + every_ms * TICK;
                let order = |model: &mut Model| {
                    let held = model.holder(fence).unwrap();
                    // The manager's own stays below it.
                    held.own = held.auto.filter(|order| order.is_own).map(|own| (own.depth, own.every)).or(held.own);
                    held.auto = Some(Order { depth: held.reentries, every, timeout, due, is_own: false });
                };
                (nothing_or_lost(got), self.change(fence, order))
            }
            Op::CapHold { cap_ms, .. } => {
                let cap = Duration::from_millis(cap_ms);
                let got = self.with(|table, now, fx| table.cap_hold(&grant, cap, now, fx));
                (nothing_or_lost(got), self.change(fence, |model| model.cap_hold(fence, cap)))
            }
            Op::Watch { .. } => {
                let heard = Arc::clone(&self.heard);
                let ear = || Arc::new(Ear { fence, heard }) as Arc<dyn Watcher>;
                let got = self.with(|table, now, fx| table.watch(&grant, ear, now, fx).map(drop));
                let got = got.map_err(|end| end.map_or(Loss::Unknown, End::as_loss));
                (nothing_or_lost(got), self.change(fence, |model| model.holder(fence).unwrap().watched = true))
            }
            Op::Downgrade { .. } => {
                let got = self.with(|table, now, fx| table.downgrade(&grant, now, fx));
                (got.map_or_else(Answer::Refused, |done| done_is_nothing(&done)), self.model.downgrade(fence))
            }
            Op::Upgrade { waits, .. } => {
                let rung = Arc::default();
                let bell = self.bell(&rung);
                let outcome = self.with(|table, now, fx| {
                    assert_eq!(table.expire_beside(&grant, now, fx), Slice::Done, "few hold a key");
                    table.upgrade(&grant, waits.then_some(&bell), now, fx)
                });
                if let UpgradeOutcome::Waits(seat) = outcome {
                    self.upgraders.push(Upgrader { grant, seat, rung, answered: false });
                }
                (upgraded(outcome), self.model.upgrade(fence, waits))
            }
            Op::GiveNotice { ms, .. } => {
                let at = self.model.now.max(self.clock - self.early) + ms * TICK;
                self.with(|table, now, fx| table.give_notice(&grant, Moment::from_nanos(at), now, fx));
                self.model.give_notice(fence, at);
                let noticed = self.model.holder(fence).and_then(|held| held.notice);
                assert_eq!(self.table.notice_of(&grant).map(Moment::as_nanos), noticed, "when it will be taken");
                (Answer::Nothing, Answer::Nothing)
            }
            Op::Revoke { .. } => {
                self.with(|table, now, fx| table.revoke(&grant, cycle(), now, fx));
                self.model.revoke(fence, &cycle());
                (Answer::Nothing, Answer::Nothing)
            }
            Op::Keep { .. } => {
                let got = self.with(|table, now, fx| table.keep_refreshed(&grant, now, fx).map(|_| ()));
                (nothing_or_lost(got), self.model.keep_refreshed(fence))
            }
            Op::GiveOwner { who, .. } => {
                let owner = Arc::clone(&self.owners[who]);
                self.with(|table, now, fx| table.give_owner(&grant, &owner, now, fx));
                self.model.give_owner(fence, &owner);
                (Answer::Nothing, Answer::Nothing)
            }
            Op::StopAutoRefresh { .. } => {
                self.at_no_time(|table, fx| table.stop_auto_refresh(&grant, fx));
                self.if_holder(fence, |held| (held.auto, held.own) = (None, None))
            }
            Op::Detach { .. } | Op::Restore { .. }
                if matches!(self.table.grant_state(&grant), Some(GrantState::Unseen(_))) =>
            {
                (Answer::Nothing, Answer::Nothing)
            }
            Op::Detach { .. } => {
                self.table.set_grant_state(&grant, GrantState::Ticket);
                self.if_holder(fence, |held| held.grant_state = Kept::Ticket)
            }
            _ => {
                let guard = GrantState::Guard(TokenOrigin::ByClient);
                if self.table.grant_state(&grant) == Some(GrantState::Ticket) {
                    self.table.set_grant_state(&grant, guard);
                }
                self.if_holder(fence, |held| {
                    if held.grant_state == Kept::Ticket {
                        held.grant_state = guard.into();
                    }
                })
            }
        };
        assert_eq!(got, expected, "the answer (left: table, right: model) to {op:?} with fence {fence}");
        got
    }

    /// The token of a grant, and what the model calls it if it can be known by it.
    fn tell(&mut self, grant: &Grant) -> (Token, Option<u128>) {
        let (token, fence) = (self.table.tell_token(grant, 1), grant.fence.get());
        let name = self.model.tell_token(fence);
        if name == Some(minted(fence)) {
            assert_eq!(*self.told.entry(fence).or_insert(token), token, "a token stays what it is");
            assert_eq!(*self.told_of.entry(token).or_insert(fence), fence, "T4: two grants have one token");
        }
        (token, name)
    }

    /// What a change of a live grant answers.
    fn change(&mut self, fence: u64, does: impl FnOnce(&mut Model)) -> Answer {
        if self.model.live(fence).is_none() {
            return Answer::Lost(self.model.loss(fence));
        }
        does(&mut self.model);
        Answer::Nothing
    }

    fn if_holder(&mut self, fence: u64, does: impl FnOnce(&mut Held)) -> (Answer, Answer) {
        self.model.holder(fence).map(does);
        (Answer::Nothing, Answer::Nothing)
    }

    /// Ends all that hold a key, and nobody who came to it by that.
    fn force(&mut self, key: usize) -> Answer {
        let from = HoldersCursor::default();
        let (grants, more) = self.with(|table, now, fx| table.grants_on(&key_at(key), HASHES[key], from, now, fx));
        assert!(more.is_none(), "few hold a key");
        let newest = self.model.view().fence;
        self.model.expire_if_due(key);
        let mut found: Vec<u64> = grants.iter().map(|grant| grant.fence.get()).collect();
        found.sort_unstable();
        let held = self.model.holders(key).map(|held| held.fence).filter(|fence| *fence <= newest);
        assert_eq!(found, held.collect::<Vec<_>>(), "who holds key {key} (left: table, right: model)");
        for grant in grants {
            let got = self.with(|table, now, fx| table.end_grant(&grant, End::Forced, now, fx));
            assert_eq!(got, self.model.end_grant(grant.fence.get(), End::Forced), "by force");
        }
        Answer::Nothing
    }

    // ---- sessions ----

    fn heartbeat(&mut self, session: usize, ttl: usize) -> Answer {
        let owner = self.owners[session].clone();
        // No shard may be behind the clock that a session was found over by, or it would see the future.
        self.with(|table, now, fx| table.tick(now, 0, fx));
        let got = owner.heartbeat(ttl_at(ttl), Moment::from_nanos(self.model.now)).map(Moment::as_nanos);
        let expected = self.model.heartbeat(owner.id, ttl_at(ttl));
        assert_eq!(got, expected, "what a heartbeat answers (left: table, right: model)");
        got.map_or_else(Answer::Lost, Answer::Until)
    }

    fn end_session(&mut self, op: &Op, session: usize) -> Answer {
        let owner = self.owners[session].clone();
        self.with(|table, now, fx| table.tick(now, 0, fx));
        let got = owner.end(Moment::from_nanos(self.model.now));
        assert_eq!(got, self.model.end_session(owner.id), "how a session ended (left: table, right: model)");
        loop {
            let legal = self.model.end_steps(owner.id);
            let slice = self.with(|table, now, fx| table.end_owner(&owner, 1, now, fx));
            if slice == Slice::Done {
                assert!(legal.is_empty(), "a session's end finds all that it has");
                break;
            }
            self.follow(op, legal);
        }
        self.owners[session] = self.owner(Some(session));
        nothing_or_lost(got)
    }

    // ---- sweeps ----

    /// Takes the one of several legal steps that the table has taken; answers which.
    fn follow(&mut self, op: &Op, legal: Vec<Model>) -> usize {
        let found = self.view();
        let next = legal.into_iter().enumerate().find(|(_, next)| next.view() == found);
        let Some((number, next)) = next else {
            panic!("no legal step leads from {:#?} to {found:#?}", self.model.view())
        };
        self.model = next;
        self.compare(op);
        number
    }

    fn tick(&mut self, op: &Op, steps: usize) -> Answer {
        for step in 0..steps {
            assert!(step < 100_000, "a sweep comes to its end");
            let slice = self.with(|table, now, fx| table.tick(now, 1, fx));
            let number = self.follow(op, self.model.due_steps());
            if slice == Slice::Done {
                assert_eq!(number, 0, "done means that nothing was left to do");
                self.model.assert_nothing_due();
                break;
            }
        }
        Answer::Nothing
    }

    fn refuse_waiters(&mut self, budget: u32) -> Answer {
        if self.model.closed {
            let before = self.view();
            self.at_no_time(|table, fx| table.refuse_waiters(0, budget, fx));
            let after = self.view();
            let changed = |seq: &&u64| before.waiters[*seq] != after.waiters[*seq];
            let refused: Vec<u64> = before.waiters.keys().filter(changed).copied().collect();
            assert!(refused.len() <= budget as usize);
            refused.into_iter().for_each(|seq| self.model.shut_out(seq));
            if budget >= self.table.waiters.bound() {
                assert_eq!(self.model.waiting(None), 0, "all are refused");
            }
        }
        Answer::Nothing
    }

    fn end_grants(&mut self, budget: u32) -> Answer {
        if self.model.closed {
            let before = self.view();
            self.at_no_time(|table, fx| table.end_grants(0, budget, fx));
            let after = self.view();
            let gone = |fence: &&u64| !after.held.contains_key(*fence);
            let ended: Vec<u64> = before.held.keys().filter(gone).copied().collect();
            assert!(ended.len() <= budget as usize);
            ended.into_iter().for_each(|fence| self.model.end(fence, End::ShutDown));
            if budget >= self.table.slots.bound() {
                assert!(self.model.held.is_empty(), "all are ended");
            }
        }
        Answer::Nothing
    }

    // ---- what is compared ----

    fn compare_queuers(&mut self) {
        let everybody = self.everybody();
        for queuer in &self.queuers {
            let seq = queuer.id.seq;
            let expected = self.model.waits[seq as usize - 1].seats[queuer.seat].wakes;
            let rung = queuer.rung.load(Ordering::SeqCst);
            assert_eq!(rung, expected, "wake-ups of seat {} of waiter {seq}", queuer.seat);
            let queue = self.model.queue(queuer.asked.key);
            let place = queue.iter().position(|other| *other == seq);
            let got = self.table.position_of(queuer.id).map(|place| place.position);
            assert_eq!(got, place.map(|at| at + 1), "T2: the place in the queue");
            let found = self.table.blocker_of(queuer.id, &everybody, Moment::from_nanos(self.model.now)).map(shown);
            let waits = place.filter(|_| self.model.still_waits(&self.model.waits[seq as usize - 1]));
            let expected =
                waits.map(|at| self.model.blocker(queuer.asked.key, queuer.asked.terms.mode(), &queue[..at]));
            assert_eq!(found, expected, "what keeps waiter {seq} (left: table, right: model)");
        }
    }

    fn compare_upgraders(&mut self) {
        let everybody = self.everybody();
        for (at, upgrader) in self.upgraders.iter().enumerate() {
            let rung = upgrader.rung.load(Ordering::SeqCst);
            assert_eq!(rung, self.model.upgrades[at].wakes, "wake-ups of upgrade {at}");
            let (wait, now) = ((&upgrader.grant, upgrader.seat), Moment::from_nanos(self.model.now));
            let found = self.table.blocker_of_upgrade(wait, &everybody, now).map(shown);
            assert_eq!(found, self.model.blocker_of_upgrade(at), "what keeps upgrade {at} (left: table, right: model)");
        }
    }

    /// Any owner may be blocked, for all that the table knows.
    fn everybody(&self) -> OwnerSet {
        self.people.iter().map(|owner| owner.id).collect()
    }

    /// What keeps those that only poll.
    fn compare_obstacles(&mut self) {
        let everybody = self.everybody();
        for (key, mode) in (0..HASHES.len()).flat_map(|key| MODES.map(|mode| (key, mode))) {
            if self.model.kind(key).is_some_and(|kind| kind != mode.kind()) {
                continue;
            }
            let queue = self.model.queue(key);
            let free = queue.is_empty() && self.model.has_room(key, mode);
            let expected = if free { (0, Vec::new()) } else { self.model.blocker(key, mode, &queue) };
            let now = Moment::from_nanos(self.model.now);
            let found = shown(self.table.blocker_to(&key_at(key), HASHES[key], mode, &everybody, now));
            assert_eq!(found, expected, "what keeps {mode} from key {key} (left: table, right: model)");
        }
    }

    /// What anybody may see of the keys.
    fn compare_looks(&mut self) {
        for (key, hash) in HASHES.into_iter().enumerate() {
            let row = self.table.look(&key_at(key), hash, Moment::from_nanos(self.model.now), 64);
            let found = row.map(|row| {
                let fence = |one: &HolderInfo| one.fencing_token.map(FencingToken::get);
                let holders = row.holders.iter().map(|one| (fence(one), one.mode, one.remaining)).collect::<Vec<_>>();
                let queue: Vec<Mode> = row.queue.iter().map(|wait| wait.mode).collect();
                // What a session has that was ended just now is counted until the end has come to it.
                let ending = self.model.holders(key).filter(|held| self.model.is_ending(held)).count();
                let counted = holders.len()..=holders.len() + ending;
                assert!(counted.contains(&row.held_by), "{} hold key {key}, not {counted:?}", row.held_by);
                assert_eq!(row.waiting as usize, queue.len(), "how many wait for key {key}");
                (holders, queue)
            });
            let left = |held: &Held| Duration::from_nanos(self.model.deadline(held).saturating_sub(self.model.now));
            let holders = self.model.holders(key).map(|held| (Some(held.proof), held.mode, left(held)));
            let holders: Vec<_> = holders.filter(|(.., left)| !left.is_zero()).collect();
            let queue = self.model.queue(key).into_iter().map(|seq| self.model.waits[seq as usize - 1].terms.mode());
            let expected = (!holders.is_empty()).then(|| (holders, queue.collect()));
            assert_eq!(found, expected, "what is seen of key {key} (left: table, right: model)");
        }
    }

    /// How the keys' grants ended. Several that end in one step may do so in any order.
    fn compare_trails(&self) {
        if self.model.end_log.len() > ENDS_TRAILED {
            return;
        }
        for hash in [7, 8, 9] {
            let end_log = self.table.end_log(hash, usize::MAX);
            let mut found: Vec<Past> = end_log.into_iter().map(past).collect();
            found.sort_by_key(|past| past.fence);
            let mut expected: Vec<Past> = self.model.end_log.iter().filter(|past| past.hash == hash).cloned().collect();
            expected.sort_by_key(|past| past.fence);
            assert_eq!(found, expected, "how grants ended (left: table, right: model)");
        }
    }

    /// What was told since the last time. Several things that happen in one step may be told in any order; but not
    /// those that happen to one grant.
    fn compare_events(&mut self, op: &Op) {
        let events = std::mem::take(&mut *self.diary.events.lock().unwrap());
        for event in &events {
            assert!(event.sequence > self.sequence, "sequence numbers rise");
            self.sequence = event.sequence;
        }
        let told = |event: Event| Told {
            key: number_of(&event.key),
            fence: event.fencing_token.map(FencingToken::get),
            owner: event.owner,
            kind: event.kind,
        };
        let mut found: Vec<Told> = events.into_iter().map(told).collect();
        let mut expected = std::mem::take(&mut self.model.told);
        for events in [&mut found, &mut expected] {
            events.sort_by_key(|told| (told.key, told.fence));
        }
        assert_eq!(found, expected, "what is told of {op:?} (left: table, right: model)");
    }

    fn view(&self) -> View {
        let table = &self.table;
        let now = table.now.as_nanos();
        let slots = (0..table.slots.bound()).filter_map(|index| Some((index, table.slots.get(index)?)));
        let waiters = (0..table.waiters.bound()).filter_map(|index| table.waiters.get(index));
        let mut held = BTreeMap::new();
        let mut queues = BTreeMap::new();
        for (index, slot) in slots {
            let key = number_of(&slot.key);
            if slot.member_of().is_none() {
                queues.insert(key, slot.queue.iter(&table.waiters).map(|(_, waiter)| waiter.seq).collect());
            }
            let Some(holder) = slot.holder.as_ref() else { continue };
            let extras = slot.extras.as_deref();
            let auto = extras.and_then(|extras| extras.auto.as_ref());
            let grant_state = match holder.grant_state {
                GrantState::Unseen(waiter) => Kept::Unseen(table.waiters[waiter].seq),
                other => other.into(),
            };
            let deadline = table.deadline_in(index).unwrap().as_nanos();
            let of_session = slot.session();
            let over = of_session.is_some_and(|session| life_of(session, now).is_err());
            let found = Held {
                key,
                mode: slot.mode(&table.slots[slot.member_of().unwrap_or(index)]),
                first: slot.member_of().is_none(),
                token: slot.kept_token().map(|token| token.as_uuid().as_u128()),
                is_told: slot.kept_token().is_none() && table.known_token(index).is_some(),
                fence: holder.fence().get(),
                proof: table.proof_in(index).unwrap().get(),
                upgrading: table.upgrade_seats_of(index),
                granted_at: holder.granted_at.as_nanos(),
                deadline: if of_session.is_some() { 0 } else { holder.deadline.as_nanos() },
                terms: slot.terms(holder),
                cap: extras.and_then(|extras| extras.cap),
                notice: extras.and_then(|extras| extras.notice).map(Moment::as_nanos),
                refreshes: holder.refreshes,
                reentries: extras.map_or(0, |extras| extras.reentries),
                grant_state,
                watched: extras.is_some_and(|extras| extras.watcher.is_some()),
                auto: auto.map_or_else(|| kept(holder), |auto| Some(order_of(auto))),
                own: auto.and_then(|auto| auto.own).map(|own| (own.depth, own.every)),
            };
            held.insert(found.fence, (found, if over { 0 } else { deadline }));
        }
        View {
            now,
            fence: table.fence.get(),
            slots: table.slots.len(),
            waiting: table.waiting(),
            chosen: table.chosen.len(),
            held,
            queues,
            waiters: waiters.map(|waiter| (waiter.seq, (waiter.state().clone(), waiter.seats))).collect(),
            people: self.people.iter().map(|owner| (life_of(owner, now), owner.locks.taken())).collect(),
            counters: *table.counters(),
        }
    }
}

fn order_of(auto: &AutoRefresh) -> Order {
    let AutoRefresh { depth, every, timeout, due, is_own, .. } = *auto;
    Order { depth, every, timeout, due: due.as_nanos(), is_own }
}

/// The order that the next tick will give.
fn kept(holder: &Holder) -> Option<Order> {
    let every = holder.ttl.as_duration() / 3;
    let due = holder.granted_at.saturating_add(every).as_nanos();
    (holder.keep == Keep::FromNextTick).then_some(Order { depth: 0, every, timeout: every, due, is_own: true })
}

fn release_in_the_lane(table: &mut Table, grant: &Grant, end: End, now: Moment, fx: &mut Effects) -> Option<Release> {
    table.release_if_alone(grant, end, now).or_else(|| table.release_share(grant, end, now)).or_else(|| {
        let passed_on = table.pass_on(grant, end, now, |_| false)?;
        passed_on.waker.into_iter().for_each(|waker| fx.wake(waker));
        fx.due(passed_on.due);
        Some(Release::Released)
    })
}

fn request_of<'a>(asked: &'a Asked, key: &'a Key) -> AcquireRequest<'a> {
    AcquireRequest {
        key,
        hash: HASHES[asked.key],
        terms: &asked.terms,
        token: asked.token.map(|token| Token::from(Uuid::from_u128(token))),
        origin: asked.origin(),
        grant_state: asked.grant_state(),
    }
}

fn answer_of(grant: &Grant) -> Answer {
    Answer::Granted { fence: grant.fence.get() }
}

fn upgraded(outcome: UpgradeOutcome) -> Answer {
    match outcome {
        UpgradeOutcome::Alone(proof) => Answer::Granted { fence: proof.unwrap().get() },
        UpgradeOutcome::Waits(_) => Answer::Pending,
        UpgradeOutcome::CalledOff => Answer::Nothing,
        UpgradeOutcome::Refused(why) => Answer::Refused(why),
    }
}

fn done_is_nothing(done: &Downgrade) -> Answer {
    assert_eq!(*done, Downgrade::Done, "there is no store");
    Answer::Nothing
}

fn nothing_or_lost(answer: Result<(), Loss>) -> Answer {
    answer.map_or_else(Answer::Lost, |()| Answer::Nothing)
}

fn number_of(key: &Key) -> usize {
    key.as_str().trim_start_matches("key-").parse().unwrap()
}

/// Until when an owner lives, whether or not anybody has settled yet that it does not.
fn life_of(owner: &Owner, now: u64) -> Result<u64, Loss> {
    let until = owner.deadline()?.as_nanos();
    if until > now { Ok(until) } else { Err(Loss::Expired) }
}

fn shown(blocker: Blocker) -> (u64, Vec<(OwnerId, u32, u64)>) {
    let holders = blocker.holders.into_iter().map(|(owner, weight, grant)| (owner.id, weight, grant.fence.get()));
    let mut holders: Vec<_> = holders.collect();
    holders.sort_unstable_by_key(|(.., fence)| *fence);
    (blocker.missing, holders)
}

fn past((record, owner): (EndRecord, Option<Arc<str>>)) -> Past {
    Past {
        hash: record.key_hash,
        fence: record.fence.get(),
        end: record.end,
        granted_at: record.granted_at.as_nanos(),
        ended_at: record.ended_at.as_nanos(),
        owner,
    }
}

fn cycle() -> Arc<[WaitEdge]> {
    [WaitEdge { owner: "somebody".into(), key: key_at(0) }].into()
}
