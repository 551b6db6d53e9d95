//! The table against a naive model of it: random operations, and after each of them every answer, every wake-up,
//! every notice and the whole state compared, and the invariants checked.
//!
//! The model keeps plain lists and scans them. It knows no slots, wheels or links, so it cannot be wrong in the same
//! way as the table. In one thing it is looser: which of several due things a [`tick`](Table::tick) does first is the
//! table's choice, as long as it is a legal one ([`Model::due_steps`]).
//!
//! A failure shrinks to a list of [`Op`]s; [`Bench::run`] replays one. `naive` is the model, `bench` runs the two side
//! by side.

mod bench;
mod naive;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::{LockError, Loss};
use crate::key::Ttl;
use bench::Bench;

/// Two of the keys share a hash.
const HASHES: [u32; 4] = [7, 7, 8, 9];
const LIMITS: Limits = Limits { keys: 6, waiters: 7, waiters_per_key: 4 };
const TTLS_MS: [u64; 4] = [1, 5, 20, 1_000];
/// Of the two sessions.
const SESSION_TTLS_MS: [u64; 2] = [6, 60];
const MAX_PLACES: u32 = 3;
/// What requests ask for, by their number.
const MODES: [Mode; 6] = [
    Mode::Exclusive,
    Mode::Shared,
    Mode::Permits { limit: 3, permits: 1 },
    Mode::Permits { limit: 3, permits: 2 },
    Mode::Permits { limit: 3, permits: 3 },
    Mode::Permits { limit: 2, permits: 1 },
];
const START: u64 = 1 << 40;
const TICK: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Op {
    Acquire(Request),
    GrantNow(Request),
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
    Downgrade {
        grant: usize,
    },
    /// An operator takes a grant after this long, unless it is released before.
    GiveNotice {
        grant: usize,
        ms: u64,
    },
    Revoke {
        grant: usize,
    },
    BreakWait {
        seat: usize,
    },
    Force {
        key: usize,
    },
    Heartbeat {
        session: usize,
        ttl: usize,
    },
    /// Ends a session, slice by slice; a new one takes its place.
    EndSession {
        session: usize,
    },
    /// To one key, or to everything.
    Listen {
        key: Option<usize>,
    },
    StopListening {
        listener: usize,
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
    /// Which of [`MODES`].
    mode: usize,
    /// Which of the owners; there are two sessions and a call.
    who: Option<usize>,
    reentry: Reentry,
    ttl: usize,
    extra: usize,
    /// One of a few that clients choose, or a fresh one.
    token: Option<usize>,
    ticket: bool,
    /// Whether it takes the lane's short way in first.
    lane: bool,
    wait: Wait,
}

/// A request as it was made: its session may have another in its place since.
#[derive(Clone, Debug)]
struct Asked {
    key: usize,
    terms: Terms,
    token: u128,
    chosen: bool,
    ticket: bool,
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
    Until(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let any = 0..64_usize;
    let key = 0..HASHES.len();
    let ttl = 0..TTLS_MS.len();
    let maybe_ttl = prop_oneof![Just(None), ttl.clone().prop_map(Some)];
    let ms = prop_oneof![Just(1_u64), Just(3), Just(8), Just(40)];
    let end = prop_oneof![Just(End::Released), Just(End::Dropped)];
    // Two listeners of one hash, of which one leaves, are what is easily got wrong.
    let listened_to = prop_oneof![1 => Just(None), 4 => (0..2_usize).prop_map(Some), 1 => key.clone().prop_map(Some)];
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
        3 => (any.clone(), ms.clone()).prop_map(|(grant, cap_ms)| Op::CapHold { grant, cap_ms }),
        4 => any.clone().prop_map(|grant| Op::Watch { grant }),
        2 => any.clone().prop_map(|grant| Op::Detach { grant }),
        2 => any.clone().prop_map(|grant| Op::Restore { grant }),
        3 => key.clone().prop_map(|key| Op::Force { key }),
        3 => request().prop_map(Op::GrantNow),
        6 => any.clone().prop_map(|grant| Op::Downgrade { grant }),
        4 => (any.clone(), ms).prop_map(|(grant, ms)| Op::GiveNotice { grant, ms }),
        3 => any.clone().prop_map(|grant| Op::Revoke { grant }),
        5 => any.clone().prop_map(|seat| Op::BreakWait { seat }),
        10 => (prop_oneof![2 => Just(0_usize), 1 => Just(1)], ttl).prop_map(|(session, ttl)| Op::Heartbeat { session, ttl }),
        4 => (0..2_usize).prop_map(|session| Op::EndSession { session }),
        6 => listened_to.prop_map(|key| Op::Listen { key }),
        5 => any.prop_map(|listener| Op::StopListening { listener }),
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
    // Two keys are mostly read and written, two mostly semaphores; what does not go together is refused.
    let read_write = prop_oneof![8 => Just(0_usize), 8 => Just(1), 1 => Just(2), 1 => Just(5)];
    let permits = prop_oneof![1 => Just(0_usize), 6 => Just(2), 4 => Just(3), 2 => Just(4), 1 => Just(5)];
    let on_read_write = (prop_oneof![6 => Just(0_usize), 1 => Just(2)], read_write);
    let on_permits = (prop_oneof![4 => Just(1_usize), 1 => Just(3)], permits);
    let key_and_mode = prop_oneof![3 => on_read_write, 2 => on_permits];
    // Mostly one and the same, so that it comes to what it has already.
    let who = prop_oneof![3 => Just(None), 3 => Just(Some(0_usize)), 1 => Just(Some(1)), 1 => Just(Some(2))];
    let reentry = prop_oneof![1 => Just(Reentry::Refused), 2 => Just(Reentry::Counted)];
    let token = prop_oneof![1 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let extra = prop_oneof![3 => Just(0_usize), 1 => 1..4_usize];
    let ttl = prop_oneof![3 => Just(2_usize), 2 => Just(3), 1 => 0..TTLS_MS.len()];
    let asked = (key_and_mode, who, reentry, ttl, extra);
    (asked, token, any::<bool>(), any::<bool>(), wait).prop_map(|(asked, token, ticket, lane, wait)| {
        let ((key, mode), who, reentry, ttl, extra) = asked;
        Request { key, mode, who, reentry, ttl, extra, token, ticket, lane, wait }
    })
}

fn ttl_at(at: usize) -> Ttl {
    Ttl::new(Duration::from_millis(TTLS_MS[at])).unwrap()
}

fn key_at(at: usize) -> Key {
    Key::new(format!("key-{at}")).unwrap()
}

impl Request {
    fn terms(&self, owners: &[Arc<Owner>]) -> Terms {
        let extra = match self.extra {
            0 => ExtraTerms::default(),
            1 => ExtraTerms { owner: Some("someone".into()), ..ExtraTerms::default() },
            2 => ExtraTerms { max_hold: Some(Duration::from_millis(15)), ..ExtraTerms::default() },
            _ => ExtraTerms { refresh_after: Some(0.5), ..ExtraTerms::default() },
        };
        let asker = self.who.map(|who| owners[who].clone());
        let reentry = if asker.is_some() { self.reentry } else { Reentry::Refused };
        let extra = ExtraTerms { mode: MODES[self.mode], asker, reentry, ..extra };
        let plain = extra == ExtraTerms::default();
        Terms { ttl: ttl_at(self.ttl), extra: (!plain).then(|| Arc::new(extra)) }
    }
}

impl Asked {
    fn choice(&self) -> TokenChoice {
        if self.chosen { TokenChoice::ByClient } else { TokenChoice::Minted }
    }

    fn keeper(&self) -> Keeper {
        if self.ticket { Keeper::Ticket } else { Keeper::Guard(self.choice()) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_answers_as_its_model_does_after_every_operation(ops in prop::collection::vec(op(), 1..100)) {
        Bench::new().run(ops);
    }
}

// ---- what the model has found, kept ----

const TTL_MICROS: u64 = 20_000;

/// A patient request for key 0 with a TTL of 20 ms.
fn patient() -> Request {
    let (mode, who, reentry) = (0, None, Reentry::Refused);
    Request {
        key: 0,
        mode,
        who,
        reentry,
        ttl: 2,
        extra: 0,
        token: None,
        ticket: false,
        lane: false,
        wait: Wait::Forever,
    }
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

/// The same of a session, which lives for 60 ms.
fn of_session() -> Request {
    Request { who: Some(1), ..patient() }
}

#[test]
fn a_cap_that_comes_later_takes_nothing_of_the_deadline_of_a_sessions_lock() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(of_session()), Op::CapHold { grant: 0, cap_ms: 1 }, Op::Advance { micros: 59_000 }]);
    bench.step(&Op::Settle);
    assert_eq!(bench.table.held(), 1);
    bench.run([Op::Heartbeat { session: 1, ttl: 3 }, Op::Advance { micros: 2_000 }, Op::Settle]);
    assert_eq!(bench.table.held(), 0, "the session lives on, but no heartbeat moves a lock past its cap");
}

#[test]
fn of_two_notices_the_watcher_hears_the_moment_that_counts() {
    let mut bench = Bench::new();
    let notice = |ms| Op::GiveNotice { grant: 0, ms };
    bench.run([Op::Acquire(patient()), Op::Watch { grant: 0 }, notice(3), notice(8)]);
    bench.run([Op::Advance { micros: 4_000 }, Op::Settle]);
    assert_eq!((bench.table.held(), bench.table.counters().forced), (0, 1));
}

#[test]
fn a_lock_that_expired_before_its_notice_was_up_was_not_forced() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::GiveNotice { grant: 0, ms: 40 }, Op::Advance { micros: 50_000 }]);
    bench.step(&Op::Settle);
    assert_eq!((bench.table.counters().expired, bench.table.counters().forced), (1, 0));
}

#[test]
fn a_grant_that_its_owner_asked_for_again_outlives_the_waiter_that_it_was_made_to() {
    let again = Request { reentry: Reentry::Counted, ..of_session() };
    let mut bench = Bench::new();
    bench.run([Op::Acquire(patient()), Op::Acquire(of_session()), Op::Release { grant: 0, end: End::Released }]);
    let granted = bench.step(&Op::Acquire(again));
    assert_eq!(granted, Answer::Granted { token: 1_002, fence: 3 });
    bench.step(&Op::Cancel { seat: 0 });
    assert_eq!(bench.table.held(), 1);
    let released = bench.step(&Op::Release { grant: 0, end: End::Dropped });
    assert_eq!((released, bench.table.held()), (Answer::Release(Release::Released), 0));
}

#[test]
fn a_waiter_whose_session_lived_on_is_sent_away_when_that_ends_after_all() {
    let mut bench = Bench::new();
    bench.run([Op::Acquire(Request { ttl: 3, ..patient() }), Op::Acquire(of_session())]);
    bench.run([Op::Advance { micros: 59_000 }, Op::Heartbeat { session: 1, ttl: 2 }]);
    bench.run([Op::Advance { micros: 5_000 }, Op::Settle]);
    assert_eq!(bench.table.waiting(), 1);
    bench.run([Op::Advance { micros: 20_000 }, Op::Settle]);
    assert_eq!((bench.table.waiting(), bench.table.counters().outlived), (0, 1));
}

#[test]
fn of_two_who_listen_to_one_key_the_second_still_hears_when_the_first_has_left() {
    let mut bench = Bench::new();
    bench.run([Op::Listen { key: Some(0) }, Op::Listen { key: Some(0) }, Op::StopListening { listener: 0 }]);
    bench.run([Op::Acquire(patient()), Op::Release { grant: 0, end: End::Released }]);
    bench.run([Op::StopListening { listener: 0 }, Op::Acquire(patient())]);
}

#[test]
fn who_queued_behind_a_wait_that_is_swept_away_is_let_in() {
    let shared = Request { mode: 1, ..patient() };
    let brief = Request { wait: Wait::Millis(3), ..patient() };
    let mut bench = Bench::new();
    bench.run([Op::Acquire(shared), Op::Acquire(brief), Op::Acquire(shared)]);
    assert_eq!((bench.table.held(), bench.table.waiting()), (1, 2), "nobody passes a waiter");
    bench.run([Op::Advance { micros: 5_000 }, Op::Settle]);
    assert_eq!((bench.table.held(), bench.table.waiting()), (2, 0));
}

#[test]
fn the_order_for_a_lock_whose_session_is_over_may_lapse_before_the_lock_is_swept() {
    let on = |key, who, ttl| Op::Acquire(Request { key, who, ttl, wait: Wait::No, ..patient() });
    let after = |micros| Op::Advance { micros };
    Bench::new().run([
        after(2793),
        on(0, None, 3),
        on(1, Some(0), 2),
        after(7734),
        on(1, Some(1), 2),
        Op::CapHold { grant: 24, cap_ms: 1 },
        after(26760),
        Op::AutoRefresh { grant: 15, every_ms: 1, timeout_ms: 1 },
        after(1002),
        after(21711),
        Op::Tick { steps: 1 },
        Op::Tick { steps: 2 },
    ]);
}
