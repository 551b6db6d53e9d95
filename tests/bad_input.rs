//! Fear: a special value opens a gate (C3; peer bugs 18 to 20, 37, 38).

use std::time::Duration;

use leasehold::retry::ExponentialBackoff;
use leasehold::{KeyFault, LockError, LockManager, LockRequest, TtlFault};
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
    assert_eq!((stats.total, stats.active, stats.failed), (1, 0, 12));
}

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
    assert_eq!(locks.stats().total, 0);
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
    assert_eq!(locks.stats().total, 0);
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
