//! Fear: a special value opens a gate (C3; peer bugs 18 to 20, 37, 38).

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold::retry::{ExponentialBackoff, FixedInterval};
use leasehold::{BuildError, KeyFault, Lock, LockError, LockManager, LockRequest, Token, TtlFault};
use proptest::prelude::*;

fn manager() -> LockManager {
    LockManager::builder().build().unwrap()
}

#[actix_rt::test]
async fn bad_keys_are_named_and_lock_nothing() {
    let locks = manager();
    let long = "k".repeat(257);
    for (key, fault) in [
        ("", KeyFault::Empty),
        (long.as_str(), KeyFault::TooLong { bytes: 257, max: 256 }),
        ("a\nb", KeyFault::ControlCharacter { at: 1 }),
        ("nul\0", KeyFault::ControlCharacter { at: 3 }),
    ] {
        let expected = LockError::InvalidKey(fault);
        assert_eq!(locks.try_lock(key).await.unwrap_err(), expected);
        assert_eq!(locks.lock(key).await.unwrap_err(), expected);
        assert_eq!(locks.try_lock_now(key).unwrap_err(), expected);
        assert_eq!(locks.is_locked(key).await.unwrap_err(), expected);
        assert_eq!(locks.inspect(key).await.unwrap_err(), expected);
        assert_eq!(locks.force_release(key).await.unwrap_err(), expected);
    }
    assert!(locks.try_lock("k".repeat(256)).await.is_ok());
    let stats = locks.stats();
    assert_eq!((stats.granted, stats.active, stats.failed), (1, 0, 12));
}

/// Peer bug 18: zero, negative or no number at all is an infinite lock.
#[actix_rt::test]
async fn bad_ttls_are_errors_and_never_infinite() {
    let locks = manager();
    let day = Duration::from_hours(24);
    let too_long = TtlFault::TooLong { max: day };
    let cases: Vec<(LockRequest<'_>, TtlFault)> = vec![
        (locks.try_lock("k").ttl(Duration::ZERO), TtlFault::Zero),
        (locks.try_lock("k").ttl(Duration::from_nanos(1)), TtlFault::TooShort { min: Duration::from_millis(1) }),
        (locks.try_lock("k").ttl(Duration::from_micros(999)), TtlFault::TooShort { min: Duration::from_millis(1) }),
        (locks.try_lock("k").ttl(day + Duration::from_millis(1)), too_long),
        (locks.try_lock("k").ttl_secs(-1.0), TtlFault::Negative),
        (locks.try_lock("k").ttl_secs(f64::NAN), TtlFault::NotANumber),
        (locks.try_lock("k").ttl_secs(0.0), TtlFault::Zero),
        (locks.try_lock("k").ttl_secs(0.0004), TtlFault::TooShort { min: Duration::from_millis(1) }),
    ];
    for (request, fault) in cases {
        assert_eq!(request.await.unwrap_err(), LockError::InvalidTtl(fault));
    }
    for request in [
        locks.try_lock("k").ttl(Duration::MAX),
        locks.try_lock("k").ttl(Duration::from_millis(u64::MAX)),
        locks.try_lock("k").ttl_secs(1e300),
        locks.try_lock("k").ttl_secs(f64::INFINITY),
    ] {
        assert!(matches!(request.await, Err(LockError::InvalidTtl(TtlFault::TooLong { .. }))));
    }
    assert_eq!(locks.stats().granted, 0);
    assert!(locks.try_lock("k").ttl(Duration::from_millis(1)).await.is_ok());
    assert!(locks.try_lock("day").ttl(day).await.is_ok());
}

#[actix_rt::test]
async fn a_refresh_keeps_to_the_same_bounds_as_a_request() {
    let locks = manager();
    let lock = locks.try_lock("k").await.unwrap();
    let too_long = Duration::from_hours(24 * 40);
    let refused = LockError::InvalidTtl(TtlFault::TooLong { max: Duration::from_hours(24) });
    assert_eq!(lock.refresh_for(too_long).await, Err(refused.clone()));
    assert_eq!(locks.refresh("k", lock.token(), Some(too_long)).await, Err(refused));
    assert!(lock.max_hold(Duration::ZERO).is_err());
    assert!(lock.remaining() <= Duration::from_secs(30));
}

#[actix_rt::test]
async fn other_senseless_options_are_named() {
    let locks = manager();
    let ms = Duration::from_millis;
    for (request, named) in [
        (locks.try_lock("k").owner(""), "owner"),
        (locks.try_lock("k").owner("o".repeat(129)), "owner"),
        (locks.try_lock("k").owner("two\nlines"), "owner"),
        (locks.try_lock("k").max_hold(Duration::ZERO), "max_hold"),
        (locks.try_lock("k").refresh_after(1.0), "refresh_after"),
        (locks.try_lock("k").refresh_after(-0.1), "refresh_after"),
        (locks.try_lock("k").refresh_after(f32::NAN), "refresh_after"),
        (locks.try_lock("k").retry(ExponentialBackoff::new(ms(1), f32::NAN, 3)), "retry"),
    ] {
        match request.await.unwrap_err() {
            LockError::InvalidOption { option, .. } => assert_eq!(option, named),
            other => panic!("{named}: {other}"),
        }
    }
    assert_eq!(locks.stats().granted, 0);
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Peer bug 18: a wait of nothing is a wait without end.
#[actix_rt::test]
async fn a_wait_of_nothing_ends_at_once() {
    let locks = manager();
    let _held = locks.try_lock("k").await.unwrap();
    let session = locks.session("me");
    for wait in [Duration::ZERO, Duration::from_nanos(1)] {
        let timed_out = |answer: Option<LockError>| assert!(matches!(answer, Some(LockError::Timeout { .. })));
        timed_out(locks.lock("k").wait(wait).await.err());
        timed_out(locks.read("k").wait(wait).await.err());
        timed_out(session.lock("k").wait(wait).await.err());
        timed_out(locks.lock_many(["a", "k"]).wait(wait).await.err());
        timed_out(locks.singleflight_lock("k").wait(wait).await.err());
        timed_out(locks.run("k", async |_| ()).wait(wait).await.err());
        timed_out(locks.lock("k").retry(FixedInterval::new(wait, 3)).await.err());
        timed_out(locks.lock("k").retry(FixedInterval::default()).wait(wait).await.err());
    }
    assert_eq!((locks.stats().active, locks.stats().waiting), (1, 0));
}

/// Peer bug 19: a huge span overflows.
#[actix_rt::test]
async fn huge_spans_neither_panic_nor_wrap() {
    let locks = manager();
    for huge in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_nanos(u64::MAX)] {
        let held = locks.try_lock("k").max_hold(huge).await.unwrap();
        held.max_hold(huge).unwrap();
        let due = held.remaining();
        assert!(matches!(held.refresh_for(huge).await, Err(LockError::InvalidTtl(TtlFault::TooLong { .. }))));
        assert!(matches!(held.auto_refresh(huge, huge), Err(LockError::InvalidOption { .. })));
        held.refresh().await.unwrap();
        assert!(held.remaining() >= due.saturating_sub(Duration::from_secs(20)), "it was capped by an overflow");
        for request in [
            locks.lock("k").wait(huge),
            locks.lock("k").retry([huge; 3]),
            locks.lock("k").retry(FixedInterval::new(huge, usize::MAX).jitter()).wait(huge),
            locks.session("me").lock("k").wait(huge),
        ] {
            assert!(poll_once(request.into_future()).is_pending());
        }
        assert!(poll_once(locks.singleflight_lock("k").wait(huge).into_future()).is_pending());
        assert!(poll_once(locks.lock_many(["k"]).wait(huge).into_future()).is_pending());
        assert!(poll_once(locks.force_release("k").notice(huge).into_future()).is_pending());
        assert!(held.is_held(), "the notice is a long one");
        let session = locks.session("me").ttl(huge);
        assert!(matches!(session.lock("s").await, Err(LockError::InvalidTtl(TtlFault::TooLong { .. }))));
        assert!(locks.session("me").auto_heartbeat(huge).is_err());
        drop(held);
        assert_eq!((locks.stats().active, locks.stats().waiting, locks.stats().expired), (0, 0, 0));
    }
    assert!(matches!(LockManager::builder().ttl(Duration::MAX).build(), Err(BuildError::InvalidOption { .. })));
    let endless = LockManager::builder().wait(Duration::MAX).sweep_every(Duration::MAX).build().unwrap();
    let _held = endless.try_lock("k").await.unwrap();
    assert!(poll_once(endless.lock("k").into_future()).is_pending());
}

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::from_millis(1)),
        Just(Duration::MAX),
        Just(Duration::from_millis(u64::MAX)),
        any::<u64>().prop_map(Duration::from_nanos),
        any::<u64>().prop_map(Duration::from_secs),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Peer bug 20: special values of a request's terms open the gate.
    #[test]
    fn no_mix_of_parameters_opens_a_held_lock_or_panics(
        ttl in any_span(), wait in any_span(), hold in any_span(), share in any::<f32>(), secs in any::<f64>(),
        key in prop_oneof![Just("k".to_owned()), ".{0,300}"],
        flags in any::<u8>(),
    ) {
        let locks = manager();
        let _holder = locks.try_lock_now("k").unwrap();
        let mut request = locks.try_lock(key.as_str());
        if flags & 1 != 0 { request = request.ttl(ttl); }
        if flags & 2 != 0 { request = request.wait(wait); }
        if flags & 4 != 0 { request = request.max_hold(hold); }
        if flags & 8 != 0 { request = request.refresh_after(share); }
        if flags & 16 != 0 { request = request.ttl_secs(secs); }
        match request.now() {
            Ok(lock) => {
                prop_assert!(key != "k" && lock.remaining() <= Duration::from_hours(24));
            }
            Err(LockError::Held) => prop_assert_eq!(&key, "k"),
            Err(LockError::InvalidKey(_) | LockError::InvalidTtl(_) | LockError::InvalidOption { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// A kind of lock on the key, with those who go together with it on one key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Exclusive,
    Shared,
    Permits { limit: u32, permits: u32 },
}

impl Kind {
    fn ask<'a>(self, locks: &'a LockManager, key: &str) -> LockRequest<'a> {
        match self {
            Self::Exclusive => locks.lock(key),
            Self::Shared => locks.read(key),
            Self::Permits { limit, permits } => locks.semaphore(key, limit).permits(permits),
        }
    }

    fn goes_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Shared, Self::Shared) => true,
            (Self::Permits { limit, permits }, Self::Permits { limit: same, permits: more }) => {
                limit == same && more > 0 && u64::from(permits) + u64::from(more) <= u64::from(limit)
            }
            _ => false,
        }
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let number = || prop_oneof![0..4_u32, Just(u32::MAX)];
    let permits = (number(), number()).prop_map(|(limit, permits)| Kind::Permits { limit, permits });
    prop_oneof![Just(Kind::Exclusive), Just(Kind::Shared), permits]
}

fn held_kind() -> impl Strategy<Value = Kind> {
    any_kind().prop_filter("it can be held", |kind| match kind {
        Kind::Permits { limit, permits } => (1..=*limit).contains(permits),
        _ => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Peer bug 20: the whole matrix of kinds, askers, tokens and ways to ask.
    #[test]
    fn no_mix_of_kinds_askers_and_terms_gets_at_a_held_key(
        held in held_kind(), asked in any_kind(), held_by in 0..3_u8, asked_by in 0..4_u8, token in 0..3_u8,
        way in 0..4_u8, spans in [any_span(), any_span(), any_span()], flags in any::<u8>(),
    ) {
        let locks = manager();
        let (me, you) = (locks.session("me"), locks.session("you").reentrant());
        let chosen = Token::random();
        let mut holding = held.ask(&locks, "k").owner("the holder");
        match held_by {
            0 => {}
            1 => holding = holding.session(&me),
            _ => holding = holding.token(chosen),
        }
        let holder = holding.now().unwrap();
        let mut request = asked.ask(&locks, "k").owner("another");
        match asked_by {
            0 => {}
            1 => request = request.session(&me),
            2 => request = request.session(&you),
            _ => request = request.reentrant(),
        }
        match token {
            0 => {}
            1 => request = request.token(Token::random()),
            _ => request = request.token(holder.token()),
        }
        if flags & 1 != 0 { request = request.ttl(spans[0]); }
        if flags & 2 != 0 { request = request.wait(spans[1]); }
        if flags & 4 != 0 { request = request.max_hold(spans[2]); }
        if flags & 8 != 0 { request = request.reentrant(); }
        // A lock, or a ticket; now, after one look, or by polling.
        let answer: Option<Result<Option<Lock>, LockError>> = match way {
            0 => Some(request.now().map(Some)),
            1 => match poll_once(request.into_future()) {
                Poll::Ready(answer) => Some(answer.map(Some)),
                Poll::Pending => None,
            },
            2 => match poll_once(request.retry([spans[1]; 2]).into_future()) {
                Poll::Ready(answer) => Some(answer.map(Some)),
                Poll::Pending => None,
            },
            _ => match poll_once(request.ticket().into_future()) {
                Poll::Ready(answer) => Some(answer.map(|_| None)),
                Poll::Pending => None,
            },
        };
        // One who asks again with its own session or token hears of the lock that it has, which may be more than a share.
        let no_more = asked == held || (held, asked) == (Kind::Exclusive, Kind::Shared);
        let the_same = no_more && (token == 2 || (held_by == 1 && asked_by == 1));
        match answer {
            Some(Ok(lock)) => {
                let other = lock.as_ref().is_none_or(|lock| lock.fencing_token() > holder.fencing_token());
                let again = the_same && lock.as_ref().is_none_or(|lock| lock.token() == holder.token());
                prop_assert!(again || held.goes_with(asked) && other, "{:?} beside {:?}", asked, held);
            }
            None | Some(Err(LockError::Held | LockError::Timeout { .. } | LockError::WrongMode(_)
                | LockError::TokenReused | LockError::Deadlock { .. }
                | LockError::InvalidTtl(_) | LockError::InvalidOption { .. })) => {}
            Some(Err(other)) => prop_assert!(false, "{}", other),
        }
        prop_assert!(holder.is_held());
        drop(holder);
        let stats = locks.stats();
        prop_assert!(stats.waiting == 0 && stats.active <= 1, "{:?}", stats);
    }
}
