//! What the random runs have found, kept: each a short run of its own, named by what must hold.

use std::time::Duration;

use super::harness::Harness;
use super::*;

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
    Harness::new().run([Op::Acquire(patient()), Op::Acquire(patient()), see(), see(), Op::Cancel { seat: 0 }]);
}

#[test]
fn requests_that_join_a_waiter_and_go_away_again_leave_nothing_behind() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(chosen())]);
    for _ in 0..100 {
        harness.run([Op::Acquire(chosen()), Op::Acquire(chosen()), Op::Cancel { seat: 1 }, Op::Cancel { seat: 1 }]);
    }
    harness.run([Op::Release { grant: 0, end: End::Released }]);
    let answer = harness.step(&Op::See { seat: 0 });
    assert_eq!(answer, Answer::Granted { fence: 3 });
}

#[test]
fn a_waiter_polled_after_its_wait_is_told_so_before_any_timer() {
    let brief = Request { wait: Wait::Millis(3), ..patient() };
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(brief), Op::Advance { micros: 3_000 }]);
    let waited = Duration::from_millis(3);
    assert_eq!(harness.step(&Op::See { seat: 0 }), Answer::Refused(LockError::Timeout { waited }));
}

#[test]
fn a_grant_dropped_unseen_after_its_deadline_counts_as_expired() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(patient()), Op::Release { grant: 0, end: End::Released }]);
    harness.run([Op::Advance { micros: TTL_MICROS }, Op::Cancel { seat: 0 }]);
    let counters = harness.table.counters();
    assert_eq!((counters.expired, counters.dropped, harness.table.held()), (1, 0, 0));
}

#[test]
fn a_lock_capped_after_its_grant_is_answered_again_to_the_client_that_chose_its_token() {
    let again = [Op::Acquire(chosen()), Op::CapHold { grant: 0, cap_ms: 8 }, Op::Acquire(chosen())];
    let answers = Harness::new().run(again);
    let granted = Answer::Granted { fence: 2 };
    assert_eq!(answers, [granted, Answer::Nothing, Answer::Granted { fence: 2 }]);
}

#[test]
fn a_queued_token_with_other_terms_is_refused_whether_or_not_the_request_would_wait() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(chosen())]);
    for wait in [Wait::No, Wait::Poll, Wait::Forever] {
        for other in [Request { extra: 1, ..chosen() }, Request { ttl: 1, ..chosen() }] {
            let answer = harness.step(&Op::Acquire(Request { wait, ..other }));
            assert_eq!(answer, Answer::Refused(LockError::TokenReused), "{wait:?} {other:?}");
        }
    }
    let answer = harness.step(&Op::Acquire(Request { key: 3, wait: Wait::No, ..chosen() }));
    assert_eq!(answer, Answer::Granted { fence: 3 }, "another key is another lock");
}

#[test]
fn a_release_after_the_close_hands_the_key_to_nobody() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(patient()), Op::Close]);
    harness.run([Op::Release { grant: 0, end: End::Released }]);
    assert_eq!(harness.step(&Op::See { seat: 0 }), Answer::Refused(LockError::ShuttingDown));
    assert_eq!(harness.table.held(), 0);
}

#[test]
fn a_waiter_has_sixteen_seats_and_no_more() {
    let mut harness = Harness::new();
    harness.step(&Op::Acquire(patient()));
    for _ in 0..MAX_SEATS {
        assert_eq!(harness.step(&Op::Acquire(chosen())), Answer::Queued { seq: 1 });
    }
    assert_eq!(harness.step(&Op::Acquire(chosen())), Answer::Refused(LockError::QueueFull));
    harness.run([Op::Release { grant: 0, end: End::Released }, Op::Cancel { seat: 3 }]);
    for _ in 1..MAX_SEATS {
        assert_eq!(harness.step(&Op::See { seat: 0 }), Answer::Granted { fence: 3 }, "each gets the same answer");
    }
}

/// The same of a session, which lives for 60 ms.
fn of_session() -> Request {
    Request { who: Some(1), ..patient() }
}

#[test]
fn a_cap_that_comes_later_takes_nothing_of_the_deadline_of_a_sessions_lock() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(of_session()), Op::CapHold { grant: 0, cap_ms: 1 }, Op::Advance { micros: 59_000 }]);
    harness.step(&Op::Settle);
    assert_eq!(harness.table.held(), 1);
    harness.run([Op::Heartbeat { session: 1, ttl: 3 }, Op::Advance { micros: 2_000 }, Op::Settle]);
    assert_eq!(harness.table.held(), 0, "the session lives on, but no heartbeat moves a lock past its cap");
}

#[test]
fn of_two_notices_the_watcher_hears_the_moment_that_counts() {
    let mut harness = Harness::new();
    let notice = |ms| Op::GiveNotice { grant: 0, ms };
    harness.run([Op::Acquire(patient()), Op::Watch { grant: 0 }, notice(3), notice(8)]);
    harness.run([Op::Advance { micros: 4_000 }, Op::Settle]);
    assert_eq!((harness.table.held(), harness.table.counters().forced), (0, 1));
}

#[test]
fn a_lock_that_expired_before_its_notice_was_up_was_not_forced() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::GiveNotice { grant: 0, ms: 40 }, Op::Advance { micros: 50_000 }]);
    harness.step(&Op::Settle);
    assert_eq!((harness.table.counters().expired, harness.table.counters().forced), (1, 0));
}

#[test]
fn a_grant_that_its_owner_asked_for_again_outlives_the_waiter_that_it_was_made_to() {
    let again = Request { reentry: Reentry::Counted, ..of_session() };
    let mut harness = Harness::new();
    harness.run([Op::Acquire(patient()), Op::Acquire(of_session()), Op::Release { grant: 0, end: End::Released }]);
    let granted = harness.step(&Op::Acquire(again));
    assert_eq!(granted, Answer::Granted { fence: 3 });
    harness.step(&Op::Cancel { seat: 0 });
    assert_eq!(harness.table.held(), 1);
    let released = harness.step(&Op::Release { grant: 0, end: End::Dropped });
    assert_eq!((released, harness.table.held()), (Answer::Release(Release::Released), 0));
}

#[test]
fn a_waiter_whose_session_lived_on_is_sent_away_when_that_ends_after_all() {
    let mut harness = Harness::new();
    harness.run([Op::Acquire(Request { ttl: 3, ..patient() }), Op::Acquire(of_session())]);
    harness.run([Op::Advance { micros: 59_000 }, Op::Heartbeat { session: 1, ttl: 2 }]);
    harness.run([Op::Advance { micros: 5_000 }, Op::Settle]);
    assert_eq!(harness.table.waiting(), 1);
    harness.run([Op::Advance { micros: 20_000 }, Op::Settle]);
    assert_eq!((harness.table.waiting(), harness.table.counters().outlived), (0, 1));
}

#[test]
fn of_two_who_listen_to_one_key_the_second_still_hears_when_the_first_has_left() {
    let mut harness = Harness::new();
    harness.run([Op::Listen { key: Some(0) }, Op::Listen { key: Some(0) }, Op::StopListening { listener: 0 }]);
    harness.run([Op::Acquire(patient()), Op::Release { grant: 0, end: End::Released }]);
    harness.run([Op::StopListening { listener: 0 }, Op::Acquire(patient())]);
}

#[test]
fn who_queued_behind_a_wait_that_is_swept_away_is_let_in() {
    let shared = Request { mode: 1, ..patient() };
    let brief = Request { wait: Wait::Millis(3), ..patient() };
    let mut harness = Harness::new();
    harness.run([Op::Acquire(shared), Op::Acquire(brief), Op::Acquire(shared)]);
    assert_eq!((harness.table.held(), harness.table.waiting()), (1, 2), "nobody passes a waiter");
    harness.run([Op::Advance { micros: 5_000 }, Op::Settle]);
    assert_eq!((harness.table.held(), harness.table.waiting()), (2, 0));
}

#[test]
fn the_order_for_a_lock_whose_session_is_over_may_lapse_before_the_lock_is_swept() {
    let on = |key, who, ttl| Op::Acquire(Request { key, who, ttl, wait: Wait::No, ..patient() });
    let after = |micros| Op::Advance { micros };
    Harness::new().run([
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
