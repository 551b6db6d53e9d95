//! The table against a naive model of it: random operations, and after each of them every answer, every wake-up,
//! every notice and the whole state compared, and the invariants checked.
//!
//! The model keeps plain lists and scans them. It knows no slots, wheels or links, so it cannot be wrong in the same
//! way as the table. In one thing it is looser: which of several due things a [`tick`](Table::tick) does first is the
//! table's choice, as long as it is a legal one ([`Model::due_steps`]).
//!
//! A failure shrinks to a list of [`Op`]s; [`Bench::run`] replays one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::queue::WaiterState;
use super::*;
use crate::error::{LockError, Loss};
use crate::key::Ttl;

/// Two of the keys share a hash.
const HASHES: [u32; 4] = [7, 7, 8, 9];
const LIMITS: Limits = Limits { keys: 3, waiters: 6, waiters_per_key: 4 };
const TTLS_MS: [u64; 4] = [1, 5, 20, 1_000];
const START: u64 = 1 << 40;
const TICK: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Op {
    Acquire(Request),
    See {
        seat: usize,
    },
    Cancel {
        seat: usize,
    },
    Release {
        grant: usize,
        end: End,
    },
    ReleaseByToken {
        grant: usize,
        key: usize,
    },
    Refresh {
        grant: usize,
        ttl: Option<usize>,
    },
    RefreshByToken {
        grant: usize,
        key: usize,
        ttl: Option<usize>,
    },
    AutoRefresh {
        grant: usize,
        every_ms: u64,
        timeout_ms: u64,
    },
    StopAutoRefresh {
        grant: usize,
    },
    CapHold {
        grant: usize,
        cap_ms: u64,
    },
    Watch {
        grant: usize,
    },
    Detach {
        grant: usize,
    },
    Restore {
        grant: usize,
    },
    Force {
        key: usize,
    },
    Tick {
        steps: usize,
    },
    /// Ticks until nothing is due.
    Settle,
    Advance {
        micros: u64,
    },
    /// The next operation read the clock this much too early (C1).
    ReadEarly {
        micros: u64,
    },
    Close,
    RefuseWaiters {
        budget: u32,
    },
    EndGrants {
        budget: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Request {
    key: usize,
    ttl: usize,
    extra: usize,
    /// One of a few that clients choose, or a fresh one.
    token: Option<usize>,
    ticket: bool,
    /// Whether it takes the lane's short way in first.
    lane: bool,
    wait: Wait,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    No,
    Poll,
    Millis(u64),
    Forever,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Nothing,
    Granted { token: u128, fence: u64 },
    Queued { seq: u64 },
    Pending,
    Refused(LockError),
    Release(Release),
    Refreshed(Refreshed),
    Lost(Loss),
}

fn op() -> impl Strategy<Value = Op> {
    let any = 0..64_usize;
    let key = 0..HASHES.len();
    let ttl = 0..TTLS_MS.len();
    let maybe_ttl = prop_oneof![Just(None), ttl.clone().prop_map(Some)];
    let ms = prop_oneof![Just(1_u64), Just(3), Just(8), Just(40)];
    let end = prop_oneof![Just(End::Released), Just(End::Dropped)];
    let span = prop_oneof![
        8 => 1..3_000_u64,
        4 => 3_000..30_000_u64,
        1 => (20_u32..42).prop_map(|bits| 1_u64 << bits),
    ];
    prop_oneof![
        60 => request().prop_map(Op::Acquire),
        22 => any.clone().prop_map(|seat| Op::See { seat }),
        12 => any.clone().prop_map(|seat| Op::Cancel { seat }),
        16 => (any.clone(), end).prop_map(|(grant, end)| Op::Release { grant, end }),
        5 => (any.clone(), key.clone()).prop_map(|(grant, key)| Op::ReleaseByToken { grant, key }),
        8 => (any.clone(), maybe_ttl.clone()).prop_map(|(grant, ttl)| Op::Refresh { grant, ttl }),
        3 => (any.clone(), key.clone(), maybe_ttl)
            .prop_map(|(grant, key, ttl)| Op::RefreshByToken { grant, key, ttl }),
        6 => (any.clone(), ms.clone(), ms.clone())
            .prop_map(|(grant, every_ms, timeout_ms)| Op::AutoRefresh { grant, every_ms, timeout_ms }),
        2 => any.clone().prop_map(|grant| Op::StopAutoRefresh { grant }),
        3 => (any.clone(), ms).prop_map(|(grant, cap_ms)| Op::CapHold { grant, cap_ms }),
        4 => any.clone().prop_map(|grant| Op::Watch { grant }),
        2 => any.clone().prop_map(|grant| Op::Detach { grant }),
        2 => any.prop_map(|grant| Op::Restore { grant }),
        3 => key.prop_map(|key| Op::Force { key }),
        10 => (1..4_usize).prop_map(|steps| Op::Tick { steps }),
        5 => Just(Op::Settle),
        22 => span.prop_map(|micros| Op::Advance { micros }),
        5 => (1..6_000_u64).prop_map(|micros| Op::ReadEarly { micros }),
        1 => Just(Op::Close),
        2 => (1..4_u32).prop_map(|budget| Op::RefuseWaiters { budget }),
        1 => (1..4_u32).prop_map(|budget| Op::EndGrants { budget }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let wait = prop_oneof![
        2 => Just(Wait::No),
        1 => Just(Wait::Poll),
        6 => prop_oneof![Just(0_u64), Just(3), Just(10), Just(5_000)].prop_map(Wait::Millis),
        3 => Just(Wait::Forever),
    ];
    let key = prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2), 1 => Just(3)];
    let token = prop_oneof![1 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let extra = prop_oneof![3 => Just(0_usize), 1 => 1..4_usize];
    let ttl = prop_oneof![2 => Just(2_usize), 1 => 0..TTLS_MS.len()];
    (key, ttl, extra, token, any::<bool>(), any::<bool>(), wait)
        .prop_map(|(key, ttl, extra, token, ticket, lane, wait)| Request { key, ttl, extra, token, ticket, lane, wait })
}

fn ttl_at(at: usize) -> Ttl {
    Ttl::new(Duration::from_millis(TTLS_MS[at])).unwrap()
}

fn key_at(at: usize) -> Key {
    Key::new(format!("key-{at}")).unwrap()
}

impl Request {
    fn terms(&self) -> Terms {
        let extra = match self.extra {
            0 => None,
            1 => Some(ExtraTerms { owner: Some("someone".into()), ..ExtraTerms::default() }),
            2 => Some(ExtraTerms { max_hold: Some(Duration::from_millis(15)), ..ExtraTerms::default() }),
            _ => Some(ExtraTerms { refresh_after: Some(0.5), ..ExtraTerms::default() }),
        };
        Terms { ttl: ttl_at(self.ttl), extra: extra.map(Arc::new) }
    }

    fn choice(&self) -> TokenChoice {
        if self.token.is_some() { TokenChoice::ByClient } else { TokenChoice::Minted }
    }

    fn keeper(&self) -> Keeper {
        if self.ticket { Keeper::Ticket } else { Keeper::Guard(self.choice()) }
    }
}

// ---- the model ----

/// `Keeper`, with waiters by their sequence number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Unseen(u64),
    Guard(TokenChoice),
    Ticket,
}

impl From<Keeper> for Kept {
    fn from(keeper: Keeper) -> Self {
        match keeper {
            Keeper::Unseen(_) => unreachable!("no request is kept by a waiter"),
            Keeper::Guard(choice) => Self::Guard(choice),
            Keeper::Ticket => Self::Ticket,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    token: u128,
    fence: u64,
    granted_at: u64,
    deadline: u64,
    terms: Terms,
    cap: Option<Duration>,
    refreshes: u32,
    keeper: Kept,
    watched: bool,
    auto: Option<(Duration, Duration, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    key: usize,
    token: u128,
    chosen: bool,
    terms: Terms,
    queued_at: u64,
    deadline: u64,
    state: WaiterState,
    seats: Vec<Seat>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seat {
    taken: bool,
    armed: bool,
    wakes: usize,
}

#[derive(Clone)]
struct Model {
    now: u64,
    fence: u64,
    closed: bool,
    held: BTreeMap<usize, Held>,
    /// By sequence number less one, in the order in which they queued; those that are gone have no seat left.
    waits: Vec<Waiting>,
    ended: Vec<(u128, u32, u64, End)>,
    heard: BTreeMap<u64, Vec<End>>,
    counters: Counters,
}

/// What is compared of a table and its model.
#[derive(Debug, PartialEq)]
struct View {
    now: u64,
    fence: u64,
    waiting: usize,
    chosen: usize,
    held: BTreeMap<usize, Held>,
    queues: BTreeMap<usize, Vec<u64>>,
    waiters: BTreeMap<u64, (WaiterState, u32)>,
    counters: Counters,
}

impl Model {
    fn new() -> Self {
        Self {
            now: START,
            fence: 1,
            closed: false,
            held: BTreeMap::new(),
            waits: Vec::new(),
            ended: Vec::new(),
            heard: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    fn view(&self) -> View {
        let live = || self.waits.iter().zip(1_u64..).filter(|(wait, _)| wait.taken() > 0);
        View {
            now: self.now,
            fence: self.fence,
            waiting: self.waiting(None),
            chosen: live().filter(|(wait, _)| wait.chosen && wait.state == WaiterState::Queued).count(),
            held: self.held.clone(),
            queues: self.held.keys().map(|key| (*key, self.queue(*key))).collect(),
            waiters: live().map(|(wait, seq)| (seq, (wait.state.clone(), wait.taken()))).collect(),
            counters: self.counters,
        }
    }

    fn queue(&self, key: usize) -> Vec<u64> {
        let queued = |wait: &Waiting| wait.key == key && wait.taken() > 0 && wait.state == WaiterState::Queued;
        self.waits.iter().zip(1..).filter(|(wait, _)| queued(wait)).map(|(_, seq)| seq).collect()
    }

    fn waiting(&self, key: Option<usize>) -> usize {
        (0..HASHES.len()).filter(|at| key.is_none_or(|key| key == *at)).map(|at| self.queue(at).len()).sum()
    }

    fn wait(&mut self, seq: u64) -> &mut Waiting {
        &mut self.waits[seq as usize - 1]
    }

    fn expire_if_due(&mut self, key: usize) {
        if self.held.get(&key).is_some_and(|held| held.deadline <= self.now) {
            self.end(key, End::Expired);
        }
    }

    fn end(&mut self, key: usize, end: End) {
        let held = self.held.remove(&key).unwrap();
        if held.watched {
            self.heard.entry(held.fence).or_default().push(end);
        }
        let by_itself = match held.keeper {
            Kept::Guard(TokenChoice::Minted) => matches!(end, End::Released | End::Dropped),
            Kept::Unseen(_) => end == End::Dropped,
            _ => false,
        };
        if let Kept::Unseen(seq) = held.keeper
            && end != End::Dropped
        {
            self.refuse(seq, LockError::Lost(end.as_loss()));
        }
        if !by_itself {
            self.ended.push((held.token, HASHES[key], held.fence, end));
        }
        let c = &mut self.counters;
        c.hold_nanos += self.now - held.granted_at;
        *match end {
            End::Released | End::ByToken | End::SessionEnded => &mut c.released,
            End::Revoked => &mut c.lost,
            End::Dropped => &mut c.dropped,
            End::Expired => &mut c.expired,
            End::Forced => &mut c.forced,
            End::ShutDown => &mut c.ended_by_shutdown,
        } += 1;
        for seq in self.queue(key) {
            if self.wait(seq).deadline <= self.now {
                self.time_out(seq);
            } else if self.closed {
                self.shut_out(seq);
            } else {
                self.hand_to(seq);
                return;
            }
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

    fn hold(&mut self, key: usize, token: u128, terms: Terms, keeper: Kept) -> Answer {
        self.fence += 1;
        let mut held = Held {
            token,
            fence: self.fence,
            granted_at: self.now,
            deadline: 0,
            terms,
            cap: None,
            refreshes: 0,
            keeper,
            watched: false,
            auto: None,
        };
        held.deadline = held.asked(self.now, held.terms.ttl);
        assert!(self.held.insert(key, held).is_none(), "T1");
        self.counters.grants += 1;
        self.counters.attempts += 1;
        Answer::Granted { token, fence: self.fence }
    }

    fn refuse(&mut self, seq: u64, why: LockError) {
        self.wait(seq).state = WaiterState::Refused(why);
        self.wait(seq).wake();
    }

    fn time_out(&mut self, seq: u64) {
        let waited = Duration::from_nanos(self.now - self.wait(seq).queued_at);
        self.refuse(seq, LockError::Timeout { waited });
        self.counters.timed_out += 1;
        self.counters.attempts += 1;
    }

    fn shut_out(&mut self, seq: u64) {
        self.refuse(seq, LockError::ShuttingDown);
        self.counters.refused_by_shutdown += 1;
        self.counters.attempts += 1;
    }

    fn reject(&mut self, why: LockError) -> Answer {
        self.counters.rejected += 1;
        self.counters.attempts += 1;
        Answer::Refused(why)
    }

    fn grant_if_free(&mut self, request: &Request, token: u128) -> Option<Answer> {
        let free = !self.held.contains_key(&request.key) && self.held.len() < LIMITS.keys;
        if request.token.is_some() || self.closed || !free {
            return None;
        }
        Some(self.hold(request.key, token, request.terms(), request.keeper().into()))
    }

    fn acquire(&mut self, request: &Request, token: u128) -> Answer {
        if self.closed {
            return self.reject(LockError::ShuttingDown);
        }
        self.expire_if_due(request.key);
        if request.token.is_some()
            && let Some(answer) = self.answer_again(request, token)
        {
            return answer;
        }
        if !self.held.contains_key(&request.key) {
            if self.held.len() >= LIMITS.keys {
                return self.reject(LockError::TooManyKeys);
            }
            return self.hold(request.key, token, request.terms(), request.keeper().into());
        }
        let deadline = match request.wait {
            Wait::Poll => return Answer::Refused(LockError::Held),
            Wait::No => {
                self.counters.busy += 1;
                self.counters.attempts += 1;
                return Answer::Refused(LockError::Held);
            }
            Wait::Millis(ms) => self.now + ms * TICK,
            Wait::Forever => u64::MAX,
        };
        if self.waiting(None) >= LIMITS.waiters || self.waiting(Some(request.key)) >= LIMITS.waiters_per_key {
            return self.reject(LockError::QueueFull);
        }
        self.counters.queued += 1;
        self.waits.push(Waiting {
            key: request.key,
            token,
            chosen: request.token.is_some(),
            terms: request.terms(),
            queued_at: self.now,
            deadline,
            state: WaiterState::Queued,
            seats: vec![Seat { taken: true, armed: true, wakes: 0 }],
        });
        Answer::Queued { seq: self.waits.len() as u64 }
    }

    fn answer_again(&mut self, request: &Request, token: u128) -> Option<Answer> {
        if let Some(held) = self.held.get_mut(&request.key).filter(|held| held.token == token) {
            let answer = Answer::Granted { token, fence: held.fence };
            if held.terms != request.terms() {
                return Some(self.reject(LockError::TokenReused));
            }
            match (held.keeper, request.keeper()) {
                (Kept::Guard(_), Keeper::Guard(_)) => return Some(self.reject(LockError::TokenReused)),
                (Kept::Guard(_), _) => return Some(answer),
                (Kept::Ticket | Kept::Unseen(_), keeper) => {
                    let before = std::mem::replace(&mut held.keeper, keeper.into());
                    if let Kept::Unseen(seq) = before {
                        self.wait(seq).seats.iter_mut().for_each(|seat| seat.taken = false);
                    }
                }
            }
            return Some(answer);
        }
        let queued = |wait: &&mut Waiting| {
            wait.chosen && wait.token == token && wait.taken() > 0 && wait.state == WaiterState::Queued
        };
        let seq = self.waits.iter_mut().zip(1..).find(|(wait, _)| queued(wait)).map(|(_, seq)| seq);
        if let Some(seq) = seq {
            let wait = self.wait(seq);
            if wait.key != request.key || wait.terms != request.terms() {
                return Some(self.reject(LockError::TokenReused));
            }
            if matches!(request.wait, Wait::No | Wait::Poll) {
                return None;
            }
            if wait.taken() >= MAX_SEATS {
                return Some(self.reject(LockError::QueueFull));
            }
            wait.seats.push(Seat { taken: true, armed: true, wakes: 0 });
            return Some(Answer::Queued { seq });
        }
        let end = self.ended.iter().rev().find(|(t, hash, ..)| *t == token && *hash == HASHES[request.key])?.3;
        Some(self.reject(LockError::Lost(end.as_loss())))
    }

    fn see(&mut self, seq: u64, seat: usize, request: &Request) -> Answer {
        let now = self.now;
        let wait = self.wait(seq);
        let (key, token) = (wait.key, wait.token);
        if !wait.seats[seat].taken {
            return self.answer_taken(request, token);
        }
        match wait.state {
            WaiterState::Granted => self.expire_if_due(key),
            WaiterState::Queued if wait.deadline <= now => self.time_out(seq),
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
                let held = self.held.get_mut(&key).unwrap();
                assert_eq!(held.keeper, Kept::Unseen(seq), "T3");
                held.keeper = request.keeper().into();
                Answer::Granted { token: held.token, fence: held.fence }
            }
            WaiterState::Refused(why) => {
                wait.seats[seat].taken = false;
                Answer::Refused(why)
            }
        }
    }

    fn answer_taken(&mut self, request: &Request, token: u128) -> Answer {
        self.expire_if_due(request.key);
        let impatient = Request { wait: Wait::No, ..*request };
        self.answer_again(&impatient, token).unwrap_or(Answer::Refused(LockError::Lost(Loss::Unknown)))
    }

    fn cancel(&mut self, seq: u64, seat: usize) {
        let wait = self.wait(seq);
        let key = wait.key;
        if wait.taken() == 1 && wait.seats[seat].taken && wait.state == WaiterState::Granted {
            self.expire_if_due(key);
        }
        let wait = self.wait(seq);
        if !std::mem::replace(&mut wait.seats[seat].taken, false) || wait.taken() > 0 {
            return;
        }
        match wait.state {
            WaiterState::Queued => {
                self.counters.cancelled += 1;
                self.counters.attempts += 1;
            }
            WaiterState::Granted => self.end(key, End::Dropped),
            WaiterState::Refused(_) => {}
        }
    }

    /// The live holder with this fence.
    fn live(&mut self, key: usize, fence: u64) -> Option<&mut Held> {
        if self.held.get(&key).is_some_and(|held| held.fence == fence) {
            self.expire_if_due(key);
        }
        self.held.get_mut(&key).filter(|held| held.fence == fence)
    }

    fn loss(&self, fence: u64) -> Loss {
        self.ended.iter().find(|(.., f, _)| *f == fence).map_or(Loss::Unknown, |(.., end)| end.as_loss())
    }

    fn fence_of(&mut self, key: usize, token: u128) -> Result<u64, LockError> {
        self.expire_if_due(key);
        if let Some(held) = self.held.get(&key).filter(|held| held.token == token) {
            return Ok(held.fence);
        }
        let end = self.ended.iter().rev().find(|(t, hash, ..)| *t == token && *hash == HASHES[key]);
        Err(match end {
            Some((.., end)) => LockError::Lost(end.as_loss()),
            None if self.held.contains_key(&key) => LockError::NotHeld,
            None => LockError::Lost(Loss::Unknown),
        })
    }

    fn refresh(&mut self, key: usize, fence: u64, ttl: Option<Ttl>) -> Answer {
        let now = self.now;
        let Some(held) = self.live(key, fence) else {
            self.counters.refresh_lost += 1;
            return Answer::Lost(self.loss(fence));
        };
        let own = held.terms.ttl;
        let share = held.terms.extra.as_ref().and_then(|extra| extra.refresh_after);
        if let (None, Some(share)) = (ttl, share)
            && Duration::from_nanos(held.deadline - now) >= own.as_duration().mul_f32(1.0 - share)
        {
            let answer = held.refreshed(false);
            self.counters.refresh_skipped += 1;
            return answer;
        }
        held.deadline = held.deadline.max(held.asked(now, ttl.unwrap_or(own)));
        held.refreshes += 1;
        let answer = held.refreshed(true);
        self.counters.refreshed += 1;
        answer
    }

    /// All that one step of a sweep may lead to. The first is that it did nothing.
    fn due_steps(&self) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut step = |does: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            does(&mut next);
            steps.push(next);
        };
        for (key, held) in &self.held {
            if held.deadline <= self.now {
                step(&|next| next.end(*key, End::Expired));
            }
        }
        for seq in (0..HASHES.len()).flat_map(|key| self.queue(key)) {
            if self.waits[seq as usize - 1].deadline <= self.now {
                step(&|next| next.time_out(seq));
            }
        }
        for (key, held) in &self.held {
            if let Some((every, timeout, due)) = held.auto.filter(|(.., due)| *due <= self.now) {
                step(&|next| {
                    let held = next.held.get_mut(key).unwrap();
                    if held.is_at_its_cap() {
                        held.auto = None;
                        return;
                    }
                    held.auto = Some((every, timeout, next.now + every.as_nanos() as u64));
                    let (fence, ttl) = (held.fence, held.terms.ttl);
                    next.counters.refresh_late += u64::from(next.now - due > timeout.as_nanos() as u64);
                    next.refresh(*key, fence, Some(ttl));
                });
            }
        }
        steps
    }

    fn assert_nothing_due(&self) {
        let later = |moment: u64| moment.div_ceil(TICK) > self.now / TICK;
        assert!(self.held.values().all(|held| later(held.deadline)), "C1: a sweep ends all that is due");
        let queued = (0..HASHES.len()).flat_map(|key| self.queue(key));
        assert!(queued.map(|seq| &self.waits[seq as usize - 1]).all(|wait| later(wait.deadline)), "C1: waits end");
        assert!(self.held.values().filter_map(|held| held.auto).all(|(.., due)| later(due)), "C1: orders are done");
    }
}

impl Held {
    fn asked(&self, now: u64, ttl: Ttl) -> u64 {
        let asked = now + ttl.as_duration().as_nanos() as u64;
        self.last_deadline().map_or(asked, |last| asked.min(last))
    }

    fn is_at_its_cap(&self) -> bool {
        self.last_deadline().is_some_and(|last| self.deadline >= last)
    }

    fn last_deadline(&self) -> Option<u64> {
        let cap = self.cap.or(self.terms.extra.as_ref().and_then(|extra| extra.max_hold))?;
        Some(self.granted_at + cap.as_nanos() as u64)
    }

    fn refreshed(&self, written: bool) -> Answer {
        let deadline = Moment::from_nanos(self.deadline);
        Answer::Refreshed(Refreshed { deadline, written, count: self.refreshes })
    }
}

impl Waiting {
    fn taken(&self) -> u32 {
        self.seats.iter().map(|seat| u32::from(seat.taken)).sum()
    }

    fn wake(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.taken) {
            seat.wakes += usize::from(std::mem::replace(&mut seat.armed, false));
        }
    }
}

// ---- the bench: both of them side by side ----

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
    heard: Arc<Mutex<BTreeMap<u64, Vec<End>>>>,
}

impl Watcher for Ear {
    fn ended(&self, end: End) {
        self.heard.lock().unwrap().entry(self.fence).or_default().push(end);
    }

    fn asked_back(&self, _: Moment) {}
}

/// A request that queued, until it is answered or cancelled.
struct Queuer {
    id: WaiterId,
    seat: usize,
    request: Request,
    token: u128,
    rung: Arc<AtomicUsize>,
    answered: bool,
}

struct Bench {
    table: Table,
    model: Model,
    clock: u64,
    early: u64,
    minted: u128,
    /// Every grant that was ever made, with its key: most are stale.
    grants: Vec<(Grant, usize)>,
    queuers: Vec<Queuer>,
    highest: HashMap<usize, u64>,
    heard: Arc<Mutex<BTreeMap<u64, Vec<End>>>>,
    table_at_work: Arc<AtomicBool>,
    touched_early: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        Self {
            table: Table::new(LIMITS, Claim::Local, 1, Moment::from_nanos(START)),
            model: Model::new(),
            clock: START,
            early: 0,
            minted: 1_000,
            grants: Vec::new(),
            queuers: Vec::new(),
            highest: HashMap::new(),
            heard: Arc::default(),
            table_at_work: Arc::default(),
            touched_early: Arc::default(),
        }
    }

    fn run(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Answer> {
        ops.into_iter().map(|op| self.step(&op)).collect()
    }

    /// Does one operation in both, compares, and answers what both answered.
    fn step(&mut self, op: &Op) -> Answer {
        let before = self.model.view();
        let answer = self.apply(op);
        let (table, model) = (self.view(), self.model.view());
        assert_eq!(table, model, "the state (left: table, right: model) after {op:?}");
        self.table.assert_invariants();
        self.compare_queuers();
        assert_eq!(*self.heard.lock().unwrap(), self.model.heard, "notices");
        assert!(!self.touched_early.load(Ordering::SeqCst), "a waker was woken or dropped inside of the table");
        assert!(table.now >= before.now, "C1");
        for (key, held) in &table.held {
            let highest = self.highest.entry(*key).or_default();
            match before.held.get(key).filter(|old| old.fence == held.fence) {
                Some(old) => {
                    assert!(held.deadline >= old.deadline, "T6: no refresh shortens");
                    assert!(held.deadline == old.deadline || old.deadline > table.now, "T6: no refresh revives");
                }
                None => assert!(held.fence > *highest, "T4: fences rise"),
            }
            *highest = held.fence;
        }
        answer
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
            Op::See { seat } => self.on_seat(*seat, Self::see),
            Op::Cancel { seat } => self.on_seat(*seat, Self::cancel),
            Op::Tick { steps } => self.tick(*steps),
            Op::Settle => self.tick(usize::MAX),
            Op::Advance { micros } => {
                self.clock += micros * 1_000;
                Answer::Nothing
            }
            Op::Force { key } => self.force(*key),
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

    fn acquire(&mut self, request: &Request) -> Answer {
        self.minted += 1;
        let token = request.token.map_or(self.minted, |at| at as u128 + 1);
        let (key, terms) = (key_at(request.key), request.terms());
        let ask = Ask {
            key: &key,
            hash: HASHES[request.key],
            terms: &terms,
            token: Token::from(Uuid::from_u128(token)),
            choice: request.choice(),
            keeper: request.keeper(),
        };
        let mut turned_away = None;
        if request.lane {
            let answer = self.with(|table, now, _| table.grant_if_free(&ask, now));
            let expected = self.model.grant_if_free(request, token);
            assert_eq!(answer.as_ref().ok().map(answer_of), expected, "the lane");
            match answer {
                Ok(grant) => {
                    self.grants.push((grant, request.key));
                    return answer_of(&grant);
                }
                Err(why) => turned_away = Some(why),
            }
        }
        let rung = Arc::default();
        let bell = self.bell(&rung);
        let clock = self.model.now.max(self.clock - self.early);
        let patience = match request.wait {
            Wait::No => Patience::Now,
            Wait::Poll => Patience::Poll,
            Wait::Millis(ms) => Patience::Until(Moment::from_nanos(clock + ms * TICK), Some(&bell)),
            Wait::Forever => Patience::Until(Moment::FAR, Some(&bell)),
        };
        let verdict = self.with(|table, now, fx| match turned_away {
            Some(why) => table.acquire_after(why, &ask, patience, now, fx),
            None => table.acquire(&ask, patience, now, fx),
        });
        let expected = self.model.acquire(request, token);
        let answer = match verdict {
            Verdict::Granted(grant) => {
                self.grants.push((grant, request.key));
                answer_of(&grant)
            }
            Verdict::Refused(why) => Answer::Refused(why),
            Verdict::Queued(id) => {
                let seat = self.model.waits.get(id.seq as usize - 1).map_or(0, |wait| wait.seats.len() - 1);
                self.queuers.push(Queuer { id, seat, request: *request, token, rung, answered: false });
                Answer::Queued { seq: id.seq }
            }
        };
        assert_eq!(answer, expected, "the answer (left: table, right: model) to {request:?}");
        answer
    }

    fn on_seat(&mut self, at: usize, does: impl Fn(&mut Self, usize) -> Answer) -> Answer {
        let open: Vec<usize> = (0..self.queuers.len()).filter(|at| !self.queuers[*at].answered).collect();
        if open.is_empty() { Answer::Nothing } else { does(self, open[at % open.len()]) }
    }

    /// What `request` does at each later poll.
    fn see(&mut self, at: usize) -> Answer {
        let Queuer { id, seat, request, token, .. } = self.queuers[at];
        // A fresh waker each time: a future may move from task to task.
        let bell = self.bell(&self.queuers[at].rung);
        let seen = self.with(|table, now, fx| table.see_waiter(id, request.keeper(), &bell, now, fx));
        let answer = match seen {
            Seen::Pending => Answer::Pending,
            Seen::Granted(grant) => {
                self.grants.push((grant, request.key));
                answer_of(&grant)
            }
            Seen::Refused(why) => Answer::Refused(why),
            Seen::Taken => {
                let (key, terms) = (key_at(request.key), request.terms());
                let ask = Ask {
                    key: &key,
                    hash: HASHES[request.key],
                    terms: &terms,
                    token: Token::from(Uuid::from_u128(token)),
                    choice: request.choice(),
                    keeper: request.keeper(),
                };
                match self.with(|table, now, fx| table.answer_taken(&ask, now, fx)) {
                    Ok(grant) => {
                        self.grants.push((grant, request.key));
                        answer_of(&grant)
                    }
                    Err(why) => Answer::Refused(why),
                }
            }
        };
        assert_eq!(answer, self.model.see(id.seq, seat, &request), "what the waiter sees (left: table, right: model)");
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

    fn on_grant(&mut self, op: &Op) -> Answer {
        let at = match op {
            Op::Release { grant, .. }
            | Op::ReleaseByToken { grant, .. }
            | Op::Refresh { grant, .. }
            | Op::RefreshByToken { grant, .. }
            | Op::AutoRefresh { grant, .. }
            | Op::StopAutoRefresh { grant }
            | Op::CapHold { grant, .. }
            | Op::Watch { grant }
            | Op::Detach { grant }
            | Op::Restore { grant } => *grant,
            other => unreachable!("{other:?} is about no grant"),
        };
        if self.grants.is_empty() {
            return Answer::Nothing;
        }
        // Counted from the last, so that small numbers mean grants that may still be live.
        let (grant, key) = self.grants[self.grants.len() - 1 - at % self.grants.len()];
        let (fence, token) = (grant.fence.get(), grant.token.as_uuid().as_u128());
        let (got, expected) = match *op {
            Op::Release { end, .. } => {
                // The quiet way out must do what the other does: every second grant tries it first.
                let quietly = grant.fence.get() % 2 == 0;
                let got = self.with(|table, now, fx| {
                    let done = if quietly { table.release_if_alone(&grant, end, now) } else { None };
                    done.unwrap_or_else(|| table.release(&grant, end, now, fx))
                });
                let live = self.model.live(key, fence).is_some();
                if live {
                    self.model.end(key, end);
                }
                let expected = if live { Release::Released } else { Release::AlreadyGone };
                (Answer::Release(got), Answer::Release(expected))
            }
            Op::ReleaseByToken { key, .. } => {
                let got = self.with(|table, now, fx| {
                    let found = table.grant_of(&key_at(key), HASHES[key], grant.token, now, fx)?;
                    Ok(table.release(&found, End::ByToken, now, fx))
                });
                let expected = self.model.fence_of(key, token).map(|_| {
                    self.model.end(key, End::ByToken);
                    Release::Released
                });
                (
                    got.map_or_else(Answer::Refused, Answer::Release),
                    expected.map_or_else(Answer::Refused, Answer::Release),
                )
            }
            Op::Refresh { ttl, .. } => {
                let ask = ttl.map_or(RefreshAsk::IfDue, |at| RefreshAsk::To(ttl_at(at)));
                let got = self.with(|table, now, fx| table.refresh(&grant, ask, now, fx));
                let expected = self.model.refresh(key, fence, ttl.map(ttl_at));
                (got.map_or_else(Answer::Lost, Answer::Refreshed), expected)
            }
            Op::RefreshByToken { key, ttl, .. } => {
                let ask = ttl.map_or(RefreshAsk::IfDue, |at| RefreshAsk::To(ttl_at(at)));
                let got = self.with(|table, now, fx| {
                    let found = table.grant_of(&key_at(key), HASHES[key], grant.token, now, fx)?;
                    table.refresh(&found, ask, now, fx).map_err(LockError::Lost)
                });
                let expected = match self.model.fence_of(key, token) {
                    Ok(fence) => self.model.refresh(key, fence, ttl.map(ttl_at)),
                    Err(why) => Answer::Refused(why),
                };
                (got.map_or_else(Answer::Refused, Answer::Refreshed), expected)
            }
            Op::AutoRefresh { every_ms, timeout_ms, .. } => {
                let (every, timeout) = (Duration::from_millis(every_ms), Duration::from_millis(timeout_ms));
                let got = self.with(|table, now, fx| table.auto_refresh(&grant, every, timeout, now, fx));
                let due = self.model.now + every_ms * TICK;
                (nothing_or_lost(got), self.change(key, fence, |held| held.auto = Some((every, timeout, due))))
            }
            Op::CapHold { cap_ms, .. } => {
                let cap = Duration::from_millis(cap_ms);
                let got = self.with(|table, now, fx| table.cap_hold(&grant, cap, now, fx));
                (nothing_or_lost(got), self.change(key, fence, |held| held.cap = Some(cap)))
            }
            Op::Watch { .. } => {
                let heard = Arc::clone(&self.heard);
                let ear = || Arc::new(Ear { fence, heard }) as Arc<dyn Watcher>;
                let got = self.with(|table, now, fx| table.watch(&grant, ear, now, fx).map(drop));
                let got = got.map_err(|end| end.map_or(Loss::Unknown, End::as_loss));
                (nothing_or_lost(got), self.change(key, fence, |held| held.watched = true))
            }
            Op::StopAutoRefresh { .. } => {
                self.table.stop_auto_refresh(&grant);
                self.if_holder(key, fence, |held| held.auto = None)
            }
            Op::Detach { .. } => {
                self.table.set_keeper(&grant, Keeper::Ticket);
                self.if_holder(key, fence, |held| held.keeper = Kept::Ticket)
            }
            _ => {
                let guard = Keeper::Guard(TokenChoice::ByClient);
                if self.table.keeper(&grant) == Some(Keeper::Ticket) {
                    self.table.set_keeper(&grant, guard);
                }
                self.if_holder(key, fence, |held| {
                    if held.keeper == Kept::Ticket {
                        held.keeper = guard.into();
                    }
                })
            }
        };
        assert_eq!(got, expected, "the answer (left: table, right: model) to {op:?} with fence {fence} of key {key}");
        got
    }

    /// What a change of a live grant answers.
    fn change(&mut self, key: usize, fence: u64, does: impl FnOnce(&mut Held)) -> Answer {
        match self.model.live(key, fence) {
            Some(held) => {
                does(held);
                Answer::Nothing
            }
            None => Answer::Lost(self.model.loss(fence)),
        }
    }

    fn if_holder(&mut self, key: usize, fence: u64, does: impl FnOnce(&mut Held)) -> (Answer, Answer) {
        self.model.held.get_mut(&key).filter(|held| held.fence == fence).map(does);
        (Answer::Nothing, Answer::Nothing)
    }

    fn force(&mut self, key: usize) -> Answer {
        let got = self.with(|table, now, fx| {
            let grants = table.grants_on(&key_at(key), HASHES[key], now, fx);
            grants.first().map_or(Release::AlreadyGone, |grant| table.end_grant(grant, End::Forced, now, fx))
        });
        let live = self.model.held.get(&key).is_some_and(|held| held.deadline > self.model.now);
        self.model.expire_if_due(key);
        if live {
            self.model.end(key, End::Forced);
        }
        assert_eq!(got, if live { Release::Released } else { Release::AlreadyGone });
        Answer::Release(got)
    }

    fn tick(&mut self, steps: usize) -> Answer {
        for step in 0..steps {
            assert!(step < 100_000, "a sweep comes to its end");
            let slice = self.with(|table, now, fx| table.tick(now, 1, fx));
            let found = self.view();
            let next = self.model.due_steps().into_iter().enumerate().find(|(_, next)| next.view() == found);
            let Some((number, next)) = next else {
                panic!("no legal step leads from {:#?} to {found:#?}", self.model.view())
            };
            let expired = self.model.held.values().any(|held| held.deadline.div_ceil(TICK) <= self.model.now / TICK);
            assert!(number == 0 || !expired || next.counters.expired > self.model.counters.expired, "expiries first");
            self.model = next;
            if slice == Slice::Done {
                assert_eq!(number, 0, "done means that nothing was left to do");
                self.model.assert_nothing_due();
                break;
            }
            self.compare_queuers();
            self.table.assert_invariants();
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
            let gone = |key: &&usize| !after.held.contains_key(*key);
            let ended: Vec<usize> = before.held.keys().filter(gone).copied().collect();
            assert!(ended.len() <= budget as usize);
            ended.into_iter().for_each(|key| self.model.end(key, End::ShutDown));
        }
        Answer::Nothing
    }

    fn compare_queuers(&self) {
        for queuer in &self.queuers {
            let expected = self.model.waits[queuer.id.seq as usize - 1].seats[queuer.seat].wakes;
            let rung = queuer.rung.load(Ordering::SeqCst);
            assert_eq!(rung, expected, "wake-ups of seat {} of waiter {}", queuer.seat, queuer.id.seq);
            let place = self.model.queue(queuer.request.key).iter().position(|seq| *seq == queuer.id.seq);
            let got = self.table.place_of(queuer.id).map(|place| place.position);
            assert_eq!(got, place.map(|at| at + 1), "T2: the place in the queue");
        }
    }

    fn view(&self) -> View {
        let table = &self.table;
        let slots = (0..table.slots.bound()).filter_map(|index| table.slots.get(index));
        let waiters = (0..table.waiters.bound()).filter_map(|index| table.waiters.get(index));
        let mut held = BTreeMap::new();
        let mut queues = BTreeMap::new();
        for slot in slots {
            let key: usize = slot.key.as_str().trim_start_matches("key-").parse().unwrap();
            let holder = slot.holder.as_ref().expect("T7");
            let extras = slot.extras.as_deref();
            let auto = extras.and_then(|extras| extras.auto.as_ref());
            let keeper = match holder.keeper {
                Keeper::Unseen(waiter) => Kept::Unseen(table.waiters[waiter].seq),
                other => other.into(),
            };
            let shown = Held {
                token: holder.token.as_uuid().as_u128(),
                fence: holder.fence.get(),
                granted_at: holder.granted_at.as_nanos(),
                deadline: holder.deadline.as_nanos(),
                terms: slot.terms(holder),
                cap: extras.and_then(|extras| extras.cap),
                refreshes: holder.refreshes,
                keeper,
                watched: extras.is_some_and(|extras| extras.watcher.is_some()),
                auto: auto.map(|auto| (auto.every, auto.timeout, auto.due.as_nanos())),
            };
            held.insert(key, shown);
            queues.insert(key, slot.queue.iter(&table.waiters).map(|(_, waiter)| waiter.seq).collect());
        }
        View {
            now: table.now.as_nanos(),
            fence: table.fence.get(),
            waiting: table.waiting(),
            chosen: table.chosen.len(),
            held,
            queues,
            waiters: waiters.map(|waiter| (waiter.seq, (waiter.state.clone(), waiter.seats))).collect(),
            counters: *table.counters(),
        }
    }
}

fn answer_of(grant: &Grant) -> Answer {
    Answer::Granted { token: grant.token.as_uuid().as_u128(), fence: grant.fence.get() }
}

fn nothing_or_lost(answer: Result<(), Loss>) -> Answer {
    answer.map_or_else(Answer::Lost, |()| Answer::Nothing)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Peer bug 22: woken or dropped under the mutex; each waker here would notice.
    #[test]
    fn the_table_answers_as_its_model_does_after_every_operation(ops in prop::collection::vec(op(), 1..100)) {
        Bench::new().run(ops);
    }
}

// ---- what the model has found, kept ----

const TTL_MICROS: u64 = 20_000;

/// A patient request for key 0 with a TTL of 20 ms.
fn patient() -> Request {
    Request { key: 0, ttl: 2, extra: 0, token: None, ticket: false, lane: false, wait: Wait::Forever }
}

fn chosen() -> Request {
    Request { token: Some(0), ticket: true, ..patient() }
}

#[test]
fn a_waiter_that_moves_to_another_task_leaves_no_waker_to_be_dropped_under_the_mutex() {
    let see = || Op::See { seat: 0 };
    Bench::new().run([Op::Acquire(patient()), Op::Acquire(patient()), see(), see(), Op::Cancel { seat: 0 }]);
}

#[test]
fn requests_that_join_a_waiter_and_go_away_again_leave_nothing_behind() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(chosen())]);
    for _ in 0..100 {
        bench.run([Op::Acquire(chosen()), Op::Acquire(chosen()), Op::Cancel { seat: 1 }, Op::Cancel { seat: 1 }]);
    }
    bench.run([Op::Release { grant: 0, end: End::Released }]);
    let answer = bench.step(&Op::See { seat: 0 });
    assert_eq!(answer, Answer::Granted { token: 1, fence: 3 });
}

#[test]
fn a_waiter_polled_after_its_wait_is_told_so_before_any_timer() {
    let brief = Request { wait: Wait::Millis(3), ..patient() };
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(brief), Op::Advance { micros: 3_000 }]);
    let waited = Duration::from_millis(3);
    assert_eq!(bench.step(&Op::See { seat: 0 }), Answer::Refused(LockError::Timeout { waited }));
}

#[test]
fn a_grant_dropped_unseen_after_its_deadline_counts_as_expired() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(patient()), Op::Release { grant: 0, end: End::Released }]);
    bench.run([Op::Advance { micros: TTL_MICROS }, Op::Cancel { seat: 0 }]);
    let counters = bench.table.counters();
    assert_eq!((counters.expired, counters.dropped, bench.table.held()), (1, 0, 0));
}

#[test]
fn a_lock_capped_after_its_grant_is_answered_again_to_the_client_that_chose_its_token() {
    let again = [Op::Acquire(chosen()), Op::CapHold { grant: 0, cap_ms: 8 }, Op::Acquire(chosen())];
    let answers = Bench::new().run(again);
    let granted = Answer::Granted { token: 1, fence: 2 };
    assert_eq!(answers, [granted, Answer::Nothing, Answer::Granted { token: 1, fence: 2 }]);
}

#[test]
fn a_queued_token_with_other_terms_is_refused_whether_or_not_the_request_would_wait() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(chosen())]);
    for wait in [Wait::No, Wait::Poll, Wait::Forever] {
        for other in [Request { extra: 1, ..chosen() }, Request { ttl: 1, ..chosen() }, Request { key: 3, ..chosen() }]
        {
            let answer = bench.step(&Op::Acquire(Request { wait, ..other }));
            assert_eq!(answer, Answer::Refused(LockError::TokenReused), "{wait:?} {other:?}");
        }
    }
}

#[test]
fn a_release_after_the_close_hands_the_key_to_nobody() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(patient()), Op::Close]);
    bench.run([Op::Release { grant: 0, end: End::Released }]);
    assert_eq!(bench.step(&Op::See { seat: 0 }), Answer::Refused(LockError::ShuttingDown));
    assert_eq!(bench.table.held(), 0);
}

#[test]
fn a_waiter_has_sixteen_seats_and_no_more() {
    let mut bench = Bench::new();
    bench.step(&Op::Acquire(patient()));
    for _ in 0..MAX_SEATS {
        assert_eq!(bench.step(&Op::Acquire(chosen())), Answer::Queued { seq: 1 });
    }
    assert_eq!(bench.step(&Op::Acquire(chosen())), Answer::Refused(LockError::QueueFull));
    bench.run([Op::Release { grant: 0, end: End::Released }, Op::Cancel { seat: 3 }]);
    for _ in 1..MAX_SEATS {
        assert_eq!(
            bench.step(&Op::See { seat: 0 }),
            Answer::Granted { token: 1, fence: 3 },
            "each gets the same answer"
        );
    }
}
