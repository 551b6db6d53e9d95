//! What is refused, what can be asked, and what events and counters report.

use std::time::Duration;

use super::{LONG, Make, begun, fresh, manager, wait};
use crate::error::LockError;
use crate::key::{Key, KeyFault};
use crate::manager::{Events, Heard};
use crate::table::{EventKind, Release};

pub(super) fn bad_input_is_refused_before_anything_is_asked(make: &Make<'_>) {
    let locks = manager(make);
    let refused = |key: String| match wait(locks.try_lock(key)).unwrap_err() {
        LockError::InvalidKey(fault) => fault,
        error => panic!("{error}"),
    };
    assert_eq!(refused(String::new()), KeyFault::Empty);
    assert!(matches!(refused("a\nb".to_owned()), KeyFault::ControlCharacter { at: 1 }));
    assert!(matches!(refused("k".repeat(Key::MAX_BYTES + 1)), KeyFault::TooLong { .. }));
    let key = fresh();
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-9] {
        let error = wait(locks.try_lock(key.as_str()).ttl_secs(seconds)).unwrap_err();
        assert!(matches!(error, LockError::InvalidTtl(_)), "{seconds}: {error}");
    }
    for ttl in [Duration::ZERO, Duration::MAX, Duration::from_nanos(1)] {
        let error = wait(locks.lock(key.as_str()).ttl(ttl)).unwrap_err();
        assert!(matches!(error, LockError::InvalidTtl(_)), "{ttl:?}: {error}");
    }
    assert!(matches!(wait(locks.lock(key.as_str()).owner("a\nb")).unwrap_err(), LockError::InvalidOption { .. }));
    assert!(matches!(wait(locks.lock_many([""; 0])).unwrap_err(), LockError::InvalidOption { .. }));
    assert!(wait(locks.is_locked("")).is_err() && wait(locks.force_release("")).is_err());
    assert_eq!((locks.stats().active, locks.stats().granted), (0, 0));
    assert!(wait(locks.try_lock(key.as_str())).is_ok());
}

pub(super) fn it_can_be_asked_who_holds(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    assert_eq!(wait(locks.is_locked(key.as_str())), Ok(false));
    assert!(wait(locks.inspect(key.as_str())).unwrap().is_none());
    let lock = wait(locks.lock(key.as_str()).owner("me")).unwrap();
    assert_eq!(wait(locks.is_locked(key.as_str())), Ok(true));
    let info = wait(locks.inspect(key.as_str())).unwrap().expect("it is held");
    assert_eq!((info.held_by, info.owner.as_deref()), (1, Some("me")));
    assert_eq!(info.fencing_token, lock.fencing_token(), "the fence that its holder shows");
    let _waiting = begun(locks.lock(key.as_str()));
    let explained = wait(locks.explain(key.as_str())).unwrap();
    assert_eq!(explained.lock.expect("it is held").waiting, 1);
    assert_eq!(locks.list("", 10).len(), 1);
}

/// The kind of the next event of a stream.
fn next_kind(events: &mut Events) -> String {
    match wait(events.next()) {
        Some(Heard::Event(event)) => match event.kind {
            EventKind::Granted { .. } => "granted".to_owned(),
            EventKind::Released { .. } => "released".to_owned(),
            EventKind::Expired { .. } => "expired".to_owned(),
            EventKind::Refreshed { .. } => "refreshed".to_owned(),
            EventKind::Forced { .. } => "forced".to_owned(),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

pub(super) fn what_happens_is_told_in_its_order(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let (mut all, mut of_key) = (locks.events(), locks.watch(key.as_str()).unwrap());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    wait(lock.refresh_for(LONG * 2)).unwrap();
    assert_eq!(wait(lock.unlock()), Release::Released);
    let forced = wait(locks.lock(key.as_str())).unwrap();
    wait(locks.force_release(key.as_str())).unwrap();
    drop(forced);
    drop(wait(locks.lock(fresh())).unwrap());
    drop(wait(locks.lock(key.as_str())).unwrap());
    let story = ["granted", "refreshed", "released", "granted", "forced"];
    for kind in story.into_iter().chain(["granted", "released"]) {
        assert_eq!(next_kind(&mut of_key), kind);
    }
    for kind in story.into_iter().chain(["granted", "released"].repeat(2)) {
        assert_eq!(next_kind(&mut all), kind);
    }
}

pub(super) fn the_counters_balance(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    assert!(wait(locks.try_lock(key.as_str())).is_err());
    assert!(wait(locks.lock(key.as_str()).wait(Duration::from_millis(5))).is_err());
    let (given_up, served) = (begun(locks.lock(key.as_str())), begun(locks.lock(key.as_str())));
    drop(given_up);
    assert_eq!(wait(lock.unlock()), Release::Released);
    drop(wait(served).unwrap());
    let forced = wait(locks.lock(key.as_str())).unwrap();
    wait(locks.force_release(key.as_str())).unwrap();
    drop(forced);
    let held = wait(locks.lock(key.as_str())).unwrap();
    let s = locks.stats();
    assert_eq!((s.granted, s.released, s.dropped, s.forced, s.active), (4, 1, 1, 1, 1), "{s:?}");
    assert_eq!((s.busy, s.timed_out, s.cancelled, s.waiting), (1, 1, 1, 0), "{s:?}");
    let ended = s.released + s.dropped + s.expired + s.forced + s.lost + s.shut_down;
    assert_eq!(s.granted, ended + s.active, "T8: {s:?}");
    let left = s.handoffs + s.timed_out_in_queue + s.cancelled_in_queue + s.refused_by_shutdown;
    assert_eq!(s.queued, left + s.deadlocked + s.session_ended + s.waiting, "T8: {s:?}");
    drop(held);
}
