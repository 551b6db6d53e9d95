//! Fear: what operators see is wrong, or shows a secret (T8; peer bug 27).
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold::{Lock, LockError, LockFuture, LockManager, ManualClock, Release};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

#[actix_rt::test]
async fn inspect_shows_the_holder_and_the_queue_and_no_token() {
    let (locks, clock) = manager();
    assert_eq!(locks.inspect("k").await, Ok(None));
    let holder = locks.try_lock("k").ttl(ms(10_000)).owner("alice").await.unwrap();
    let waiters: Vec<_> = ["bob", "carol"]
        .map(|owner| {
            let locks = locks.clone();
            actix_rt::spawn(async move { locks.lock("k").owner(owner).wait_forever().await.map(drop) })
        })
        .into();
    while locks.stats().waiting < 2 {
        actix_rt::task::yield_now().await;
    }
    clock.advance(ms(1_500));
    holder.refresh().await.unwrap();
    clock.advance(ms(500));
    let info = locks.inspect("k").await.unwrap().unwrap();
    assert_eq!(info.owner.as_deref(), Some("alice"));
    assert_eq!((info.age, info.remaining, info.ttl), (ms(2_000), ms(9_500), ms(10_000)));
    assert_eq!((info.refreshes, info.waiting), (1, 2));
    let queue: Vec<_> = info.queue.iter().map(|w| (w.position, w.owner.as_deref().unwrap(), w.waited)).collect();
    assert_eq!(queue, [(1, "bob", ms(2_000)), (2, "carol", ms(2_000))]);
    let shown = format!("{info:?} {holder:?} {locks:?}");
    assert!(!shown.contains(&holder.token().to_string()));
    drop(holder);
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(!locks.is_locked("k").await.unwrap());
}

#[test]
fn list_gives_the_first_keys_with_the_prefix_in_order() {
    let (locks, clock) = manager();
    let held: Vec<_> = (0..500).map(|n| locks.try_lock_now(format!("a:{n:03}")).unwrap()).collect();
    let _other = locks.try_lock_now("b:1").unwrap();
    let _gone = locks.try_lock("a:000x").ttl(ms(1)).now().unwrap();
    clock.jump(ms(1));
    let names = |prefix, limit| locks.list(prefix, limit).iter().map(|i| i.key.to_string()).collect::<Vec<_>>();
    assert_eq!(names("a:", 3), ["a:000", "a:001", "a:002"]);
    assert_eq!(names("", 1_000).len(), 501);
    assert_eq!(names("b", 10), ["b:1"]);
    assert_eq!(names("c", 10), [""; 0]);
    assert_eq!(names("a:", 0), [""; 0]);
    drop(held);
}

/// It printed the ids of sessions, which are capabilities, and grew with everything that was held.
#[actix_rt::test]
async fn a_managers_debug_is_short_and_tells_no_secret() {
    let (locks, _) = manager();
    let empty = format!("{locks:?}");
    let session = locks.session("worker-7");
    session.register().unwrap();
    let id = session.id().to_string();
    let held: Vec<_> = (0..100).map(|n| locks.try_lock(format!("order:{n}")).now().unwrap()).collect();
    let waiter = locks.lock("order:1").session(&session);
    for shown in [format!("{locks:?}"), format!("{waiter:?}"), format!("{session:?}"), format!("{:#?}", locks.events())]
    {
        assert!(shown.len() < empty.len() + 400, "{shown}");
        assert!(!shown.contains(&id) && !shown.contains("order:7"), "{shown}");
    }
    assert!(format!("{locks:?}").contains("held: 100"));
    drop(held);
}

#[actix_rt::test]
async fn force_release_ends_the_lock_and_hands_the_key_on() {
    let (locks, _) = manager();
    assert_eq!(locks.force_release("k").await, Ok(Release::AlreadyGone));
    let holder = locks.try_lock("k").await.unwrap();
    let waiter = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").await.unwrap() }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    assert_eq!(locks.force_release("k").await, Ok(Release::Released));
    let next = waiter.await.unwrap();
    assert!(next.is_held() && !holder.is_held());
    assert!(next.fencing_token() > holder.fencing_token());
    drop(holder);
    assert!(next.is_held(), "the old guard's drop does nothing to the new lock");
}

#[actix_rt::test]
async fn stats_count_every_attempt_once_and_balance() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(ms(1_000)).await.unwrap();
    assert!(locks.try_lock("k").await.is_err());
    assert!(locks.try_lock("").await.is_err());
    assert!(locks.lock("k").wait(Duration::ZERO).await.is_err());
    clock.advance(ms(400));
    lock.unlock().await;
    drop(locks.try_lock("k").await.unwrap());
    let _expired = locks.try_lock("k").ttl(ms(200)).await.unwrap();
    clock.advance(ms(200));
    let _held = locks.try_lock("k").await.unwrap();
    let s = locks.stats();
    assert_eq!((s.attempts, s.granted, s.active, s.busy, s.failed, s.timed_out), (7, 4, 1, 1, 2, 1));
    assert_eq!((s.released, s.dropped, s.expired, s.forced), (1, 1, 1, 0));
    assert_eq!(s.granted, s.released + s.dropped + s.expired + s.forced + s.shut_down + s.active);
    assert_eq!(s.queued, s.handoffs + s.timed_out_in_queue + s.cancelled_in_queue + s.refused_by_shutdown + s.waiting);
    assert!((s.success_rate - 4.0 / 6.0).abs() < 1e-9);
    assert!((s.contention_rate - 2.0 / 7.0).abs() < 1e-9);
    assert!((s.average_hold_ms - 200.0).abs() < 1e-9, "{}", s.average_hold_ms);
}

#[actix_rt::test]
async fn a_key_has_its_own_stats_once_it_is_contended() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").await.unwrap();
    assert_eq!(locks.key_stats("k").await, Ok(None));
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    let waiter = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").await.unwrap() }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    clock.advance(ms(300));
    lock.unlock().await;
    let next = waiter.await.unwrap();
    let stats = locks.key_stats("k").await.unwrap().unwrap();
    assert_eq!((stats.attempts, stats.granted, stats.active, stats.busy, stats.queued), (3, 2, 1, 1, 1));
    assert_eq!((stats.released, stats.average_hold_ms, stats.average_wait_ms), (1, 300.0, 300.0));
    drop(next);
    assert_eq!(locks.key_stats("k").await, Ok(None), "an idle key keeps nothing");
}

#[actix_rt::test]
async fn the_most_contended_keys_are_named_the_worst_first() {
    let (locks, _) = manager();
    let held: Vec<_> = (0..40).map(|n| locks.try_lock_now(format!("k{n:02}")).unwrap()).collect();
    for (n, times) in [(7, 30), (3, 20), (5, 10)] {
        for _ in 0..times {
            assert!(locks.try_lock_now(format!("k{n:02}")).is_err());
        }
    }
    let hot: Vec<_> = locks.hot_keys(2).into_iter().map(|hot| (hot.key.to_string(), hot.contentions)).collect();
    assert_eq!(hot, [("k07".to_owned(), 30), ("k03".to_owned(), 20)]);
    drop(held);
    assert_eq!(locks.hot_keys(9).len(), 3, "also when the keys are free again");
}

/// What a chaotic test has done, counted by hand.
#[derive(Default, Debug, PartialEq)]
struct Truth {
    granted: u64,
    unlocked: u64,
    dropped: u64,
    expired: u64,
    forced: u64,
    busy: u64,
    timed_out: u64,
    cancelled: u64,
}

/// Those who hold and wait in a chaotic test.
struct Chaos<'a> {
    locks: &'a LockManager,
    held: Vec<Lock>,
    waiting: Vec<LockFuture<'a>>,
    truth: Truth,
}

impl<'a> Chaos<'a> {
    /// One of the keys, each of its own kind.
    fn ask(&self, key: usize) -> leasehold::LockRequest<'a> {
        match key {
            0 | 1 => self.locks.lock(format!("exclusive {key}")),
            2 => self.locks.read("shared"),
            3 => self.locks.write("shared"),
            _ => self.locks.semaphore("pool", 3).permits(key as u32 % 3 + 1),
        }
    }

    fn step(&mut self, clock: &ManualClock, mut draw: impl FnMut(usize) -> usize) {
        let ttl = ms(draw(20_000) as u64 + 1);
        match draw(10) {
            0 | 1 => match self.ask(draw(7)).ttl(ttl).now() {
                Ok(lock) => self.granted(lock),
                Err(LockError::Held) => self.truth.busy += 1,
                Err(other) => panic!("{other}"),
            },
            2..=4 => {
                let wait = ms(draw(20_000) as u64 + 1);
                self.waiting.push(self.ask(draw(7)).ttl(ttl).wait(wait).into_future());
            }
            5 if !self.held.is_empty() => {
                self.truth.unlocked += 1;
                let unlocked = self.held.swap_remove(draw(self.held.len())).unlock_now();
                assert_eq!(unlocked, Release::Released);
            }
            6 if !self.held.is_empty() => {
                self.truth.dropped += 1;
                drop(self.held.swap_remove(draw(self.held.len())));
            }
            7 if !self.waiting.is_empty() => {
                self.truth.cancelled += 1;
                drop(self.waiting.swap_remove(draw(self.waiting.len())));
            }
            8 => {
                let key = ["exclusive 0", "exclusive 1", "shared", "pool"][draw(4)];
                let forced = Pin::new(&mut self.locks.force_release(key).into_future())
                    .poll(&mut Context::from_waker(Waker::noop()));
                assert!(forced.is_ready());
                self.truth.forced += self.forget_the_gone();
            }
            _ => {
                clock.advance(ms(draw(3_000) as u64));
                self.truth.expired += self.forget_the_gone();
            }
        }
        self.poll_all();
    }

    fn granted(&mut self, lock: Lock) {
        self.truth.granted += 1;
        self.held.push(lock);
    }

    fn forget_the_gone(&mut self) -> u64 {
        let before = self.held.len();
        self.held.retain(|lock| lock.is_held());
        (before - self.held.len()) as u64
    }

    fn poll_all(&mut self) {
        for mut future in std::mem::take(&mut self.waiting) {
            match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => self.waiting.push(future),
                Poll::Ready(Ok(lock)) => self.granted(lock),
                Poll::Ready(Err(LockError::Timeout { .. })) => self.truth.timed_out += 1,
                Poll::Ready(Err(other)) => panic!("{other}"),
            }
        }
    }
}

/// Peer bug 27: gauges drift, or go negative.
#[test]
fn after_chaos_each_gauge_equals_what_was_counted_by_hand() {
    let (locks, clock) = manager();
    let mut chaos = Chaos { locks: &locks, held: Vec::new(), waiting: Vec::new(), truth: Truth::default() };
    let mut state = 42_u64;
    for step in 0..20_000 {
        chaos.step(&clock, |end| {
            // Knuth's multiplier; the high bits are the good ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % end
        });
        let s = locks.stats();
        let shown = Truth {
            granted: s.granted,
            unlocked: s.released,
            dropped: s.dropped,
            expired: s.expired,
            forced: s.forced,
            busy: s.busy,
            timed_out: s.timed_out,
            cancelled: s.cancelled,
        };
        assert_eq!(shown, chaos.truth, "step {step}");
        assert_eq!((s.active, s.waiting), (chaos.held.len() as u64, chaos.waiting.len() as u64), "step {step}");
        assert_eq!(s.queued, s.handoffs + s.timed_out_in_queue + s.cancelled_in_queue + s.waiting, "step {step}");
    }
    let t = &chaos.truth;
    assert!([t.unlocked, t.dropped, t.expired, t.forced, t.busy, t.timed_out, t.cancelled].iter().all(|n| *n > 100));
}
