//! Fear: owners wait for each other for ever, or one is refused for a cycle that is not there (peer bug 28).

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use leasehold::retry::FixedInterval;
use leasehold::{DeadlockPolicy, Lock, LockError, LockFuture, LockManager, LockRequest, Loss, ManualClock, Session};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

/// Sessions that outlive every test.
fn sessions<const N: usize>(locks: &LockManager, names: [&str; N]) -> [Session; N] {
    names.map(|name| locks.session(name).ttl(secs(3_600)))
}

type Waits<'a> = Pin<Box<LockFuture<'a>>>;

/// A request that has begun to wait, with its own terms.
async fn begun(request: LockRequest<'_>) -> Waits<'_> {
    let mut waits = Box::pin(request.into_future());
    let first = poll!(&mut waits);
    assert!(first.is_pending(), "{first:?}");
    waits
}

async fn waits(request: LockRequest<'_>) -> Waits<'_> {
    begun(request.wait_forever()).await
}

/// What a request hears that need not wait any more.
async fn answer<F: Future + Unpin>(waits: &mut F) -> F::Output {
    match poll!(waits) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it still waits"),
    }
}

#[track_caller]
fn cycle(answer: Result<Lock, LockError>) -> Vec<(String, String)> {
    match answer.unwrap_err() {
        LockError::Deadlock { cycle } => {
            cycle.iter().map(|edge| (edge.owner.to_string(), edge.key.to_string())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn edges<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
    expected.map(|(owner, key)| (owner.to_owned(), key.to_owned())).to_vec()
}

#[track_caller]
fn assert_balanced(locks: &LockManager) {
    let s = locks.stats();
    assert_eq!(s.granted, s.released + s.dropped + s.expired + s.forced + s.lost + s.shut_down + s.active, "{s:?}");
    let left = s.handoffs + s.timed_out_in_queue + s.cancelled_in_queue + s.refused_by_shutdown;
    assert_eq!(s.queued, left + s.deadlocked + s.session_ended + s.waiting, "{s:?}");
}

#[actix_rt::test]
async fn of_two_that_wait_for_each_other_the_second_is_told_and_the_first_goes_on() {
    let (locks, _) = manager();
    // Other keys each time, for other shards.
    for round in 0..50 {
        let [a, b] = [format!("a{round}"), format!("b{round}")];
        let [me, you] = sessions(&locks, ["me", "you"]);
        let mine = me.lock(a.as_str()).await.unwrap();
        let yours = you.lock(b.as_str()).await.unwrap();
        let mut first = waits(me.lock(b.as_str())).await;
        let told = cycle(you.lock(a.as_str()).wait_forever().await);
        assert_eq!(told, edges([("you", &a), ("me", &b)]));
        assert!(poll!(&mut first).is_pending() && mine.is_held() && yours.is_held(), "nobody lost anything");
        drop(yours);
        assert!(first.await.is_ok());
    }
    assert_eq!((locks.stats().deadlocked, locks.stats().active), (50, 0));
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn a_cycle_of_three_is_named_in_its_order_and_the_other_two_go_on() {
    let (locks, _) = manager();
    for round in 0..50 {
        let [a, b, c] = ["a", "b", "c"].map(|key| format!("{key}{round}"));
        let [ann, bob, cat] = sessions(&locks, ["ann", "bob", "cat"]);
        let held_a = ann.lock(a.as_str()).await.unwrap();
        let held_b = bob.lock(b.as_str()).await.unwrap();
        let held_c = cat.lock(c.as_str()).await.unwrap();
        let mut for_b = waits(ann.lock(b.as_str())).await;
        let mut for_c = waits(bob.lock(c.as_str())).await;
        let told = cycle(cat.lock(a.as_str()).wait_forever().await);
        assert_eq!(told, edges([("cat", &a), ("ann", &b), ("bob", &c)]));
        assert!(poll!(&mut for_b).is_pending() && poll!(&mut for_c).is_pending());
        drop(held_c);
        drop(for_c.await.unwrap());
        drop(held_b);
        assert!(for_b.await.is_ok());
        drop(held_a);
    }
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn a_wait_that_would_end_by_itself_is_part_of_a_cycle_all_the_same() {
    let (locks, _) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let (_a, _b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
    let _first = begun(me.lock("b").wait(secs(1))).await;
    assert_eq!(cycle(you.lock("a").wait(secs(1)).await), edges([("you", "a"), ("me", "b")]));
}

#[actix_rt::test]
async fn one_who_only_tries_waits_for_nothing_and_closes_nothing() {
    let (locks, _) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let (_a, _b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
    assert_eq!(me.try_lock("b").await.unwrap_err(), LockError::Held);
    let _waits = waits(you.lock("a")).await;
    assert_eq!(me.try_lock("b").await.unwrap_err(), LockError::Held);
}

/// How time passes: with the timers run, or before any timer had its turn.
const PASSING: [fn(&ManualClock, Duration); 2] = [ManualClock::advance, ManualClock::jump];

/// Peer bug 28: the detector sees the ghost of a wait.
#[actix_rt::test]
async fn a_wait_that_timed_out_or_was_dropped_is_in_no_cycle() {
    for pass in PASSING {
        let (locks, clock) = manager();
        let [me, you] = sessions(&locks, ["me", "you"]);
        let (_a, _b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
        let mut brief = begun(me.lock("b").wait(secs(5))).await;
        pass(&clock, secs(5));
        // Not polled since: whoever comes now finds the wait over, noticed or not.
        let waiting = waits(you.lock("a")).await;
        assert!(matches!(answer(&mut brief).await, Err(LockError::Timeout { .. })));
        drop(waiting);
        let dropped = waits(me.lock("b")).await;
        drop(dropped);
        let _waiting = waits(you.lock("a")).await;
        assert_eq!(locks.stats().deadlocked, 0);
    }
}

/// Peer bug 28: the detector sees the ghost of a holder.
#[actix_rt::test]
async fn a_holder_that_expired_is_in_no_cycle() {
    for pass in PASSING {
        let (locks, clock) = manager();
        let [me, you] = sessions(&locks, ["me", "you"]);
        let _a = me.lock("a").max_hold(secs(5)).await.unwrap();
        let _b = you.lock("b").await.unwrap();
        let mut for_a = waits(you.lock("a")).await;
        pass(&clock, secs(5));
        // Noticed or not, `a` is not mine any more.
        let _for_b = waits(me.lock("b")).await;
        clock.advance(secs(1));
        assert!(answer(&mut for_a).await.is_ok());
        assert_eq!(locks.stats().deadlocked, 0);
    }
}

#[actix_rt::test]
async fn a_permit_that_expired_is_free_for_whoever_waits_for_it() {
    for pass in PASSING {
        let (locks, clock) = manager();
        let [me, you] = sessions(&locks, ["me", "you"]);
        let _one = me.semaphore("pool", 1).permits(1).max_hold(secs(5)).await.unwrap();
        let _b = you.lock("b").await.unwrap();
        let mut permit = waits(you.semaphore("pool", 1).permits(1)).await;
        pass(&clock, secs(5));
        let _for_b = waits(me.lock("b")).await;
        clock.advance(secs(1));
        assert!(answer(&mut permit).await.is_ok());
    }
}

#[actix_rt::test]
async fn a_session_that_ran_out_or_was_ended_is_in_no_cycle() {
    for pass in PASSING {
        let (locks, clock) = manager();
        let [ann, bob] = sessions(&locks, ["ann", "bob"]);
        let brief = locks.session("cat").ttl(secs(5));
        let (_a, _b, _c) = (ann.lock("a").await.unwrap(), bob.lock("b").await.unwrap(), brief.lock("c").await.unwrap());
        let _for_c = waits(bob.lock("c")).await;
        let _for_a = waits(brief.lock("a")).await;
        pass(&clock, secs(5));
        let _for_b = waits(ann.lock("b")).await;
        assert_eq!(locks.stats().deadlocked, 0);
    }
    let (locks, _) = manager();
    let [ann, bob, cat] = sessions(&locks, ["ann", "bob", "cat"]);
    let (_a, _b, _c) = (ann.lock("a").await.unwrap(), bob.lock("b").await.unwrap(), cat.lock("c").await.unwrap());
    let _for_c = waits(bob.lock("c")).await;
    let _for_a = waits(cat.lock("a")).await;
    cat.end().await;
    let _for_b = waits(ann.lock("b")).await;
}

#[actix_rt::test]
async fn a_lock_that_was_forced_or_unlocked_is_in_no_cycle() {
    let (locks, _) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    for how in ["forced", "unlocked", "dropped"] {
        let a = me.lock("a").await.unwrap();
        let b = you.lock("b").await.unwrap();
        let for_a = waits(you.lock("a")).await;
        match how {
            "forced" => drop(locks.force_release("a").await.unwrap()),
            "unlocked" => drop(a.unlock().await),
            _ => drop(a),
        }
        let for_b = waits(me.lock("b")).await;
        drop(for_a.await.unwrap());
        drop(b);
        drop(for_b.await.unwrap());
    }
    assert_eq!(locks.stats().deadlocked, 0);
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn a_grant_that_closes_a_cycle_refuses_another_wait_of_its_owner() {
    let (locks, _) = manager();
    let [me, you, other] = sessions(&locks, ["me", "you", "other"]);
    let x = other.lock("x").await.unwrap();
    let y = you.lock("y").await.unwrap();
    let mut for_x = waits(me.lock("x")).await;
    let mut for_y = waits(me.lock("y")).await;
    let mut behind_me = waits(you.lock("x")).await;
    // The hand-off makes me the holder that you wait for, while I wait for you.
    drop(x);
    assert_eq!(cycle(answer(&mut for_y).await), edges([("me", "y"), ("you", "x")]));
    let mine = answer(&mut for_x).await.unwrap();
    assert!(poll!(&mut behind_me).is_pending());
    drop(mine);
    assert!(answer(&mut behind_me).await.is_ok());
    assert!(y.is_held());
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn those_behind_a_refused_wait_go_in_at_once() {
    let (locks, _) = manager();
    let [me, you, other] = sessions(&locks, ["me", "you", "other"]);
    let x = other.lock("x").await.unwrap();
    let share = you.read("k").await.unwrap();
    let mut for_x = waits(me.lock("x")).await;
    let mut writer = waits(me.write("k")).await;
    let mut reader = waits(locks.read("k")).await;
    let _behind_me = waits(you.lock("x")).await;
    drop(x);
    assert_eq!(cycle(answer(&mut writer).await), edges([("me", "k"), ("you", "x")]));
    let readers = (share, answer(&mut reader).await.unwrap());
    assert!(answer(&mut for_x).await.is_ok());
    drop(readers);
}

#[actix_rt::test]
async fn two_who_share_a_key_and_both_want_it_alone_are_a_deadlock() {
    let (locks, _) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let (mine, yours) = (me.read("k").await.unwrap(), you.read("k").await.unwrap());
    // Alone it waits for its own share already.
    assert_eq!(cycle(me.write("k").wait_forever().await), edges([("me", "k")]));
    drop((mine, yours));
}

#[actix_rt::test]
async fn a_writer_waits_for_every_reader_also_for_one_that_waits_for_it() {
    let (locks, _) = manager();
    let [ann, bob, cat] = sessions(&locks, ["ann", "bob", "cat"]);
    let (anns, bobs) = (ann.read("k").await.unwrap(), bob.read("k").await.unwrap());
    let _c = cat.lock("c").await.unwrap();
    let mut writer = waits(cat.write("k")).await;
    // That bob can go on does not help: all of them must let go.
    assert_eq!(cycle(ann.lock("c").wait_forever().await), edges([("ann", "c"), ("cat", "k")]));
    drop(bobs);
    assert!(poll!(&mut writer).is_pending());
    drop(anns);
    assert!(answer(&mut writer).await.is_ok());
}

#[actix_rt::test]
async fn a_reader_behind_a_writer_is_held_up_by_the_readers_before_it() {
    let (locks, _) = manager();
    let [ann, bob] = sessions(&locks, ["ann", "bob"]);
    let _k = ann.read("k").await.unwrap();
    let _b = bob.lock("b").await.unwrap();
    let _writer = waits(locks.write("k")).await;
    let _for_b = waits(ann.lock("b")).await;
    assert_eq!(cycle(bob.read("k").wait_forever().await), edges([("bob", "k"), ("ann", "b")]));
}

#[actix_rt::test]
async fn a_wait_for_permits_is_dead_only_if_nobody_who_can_run_frees_enough() {
    let (locks, _) = manager();
    let [ann, bob, cat] = sessions(&locks, ["ann", "bob", "cat"]);
    let b = bob.lock("b").await.unwrap();
    let [of_ann, of_bob, of_cat] = [&ann, &bob, &cat].map(|who| who.semaphore("pool", 3));
    let one = of_ann.permits(1).await.unwrap();
    let two = of_bob.permits(1).await.unwrap();
    let three = of_cat.permits(1).await.unwrap();
    let _for_b = waits(ann.lock("b")).await;
    let mut for_one = waits(of_bob.permits(1)).await;
    assert!(poll!(&mut for_one).is_pending(), "cat can run, and frees one");
    // Until cat waits for bob as well.
    assert_eq!(cycle(cat.lock("b").wait_forever().await), edges([("cat", "b"), ("bob", "pool")]));
    drop(for_one);
    // Two permits are more than cat can free, and the others are ann's, who waits, and bob's own.
    assert_eq!(cycle(of_bob.permits(2).wait_forever().await), edges([("bob", "pool")]));
    drop((one, two, three, b));
}

#[actix_rt::test]
async fn permits_of_nobody_in_particular_come_free_some_time() {
    let (locks, _) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let _b = you.lock("b").await.unwrap();
    let _mine = me.semaphore("pool", 2).permits(1).await.unwrap();
    let anybody = locks.semaphore("pool", 2).permits(1).await.unwrap();
    let _for_b = waits(me.lock("b")).await;
    let mut permit = waits(you.semaphore("pool", 2).permits(1)).await;
    drop(anybody);
    assert!(answer(&mut permit).await.is_ok());
    assert_eq!(locks.stats().deadlocked, 0);
}

#[actix_rt::test]
async fn a_poller_closes_a_cycle_and_is_part_of_one() {
    let (locks, clock) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let every = || FixedInterval::new(secs(1), 1_000);
    let (a, b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
    let queued = waits(me.lock("b")).await;
    assert_eq!(cycle(you.lock("a").retry(every()).await), edges([("you", "a"), ("me", "b")]));
    drop(queued);
    let mut polls = begun(me.lock("b").retry(every())).await;
    assert_eq!(cycle(you.lock("a").wait_forever().await), edges([("you", "a"), ("me", "b")]));
    assert_eq!(cycle(you.lock("a").retry(every()).await), edges([("you", "a"), ("me", "b")]));
    drop(b);
    clock.advance(secs(1));
    drop(answer(&mut polls).await.unwrap());
    // What polls no more waits for nothing.
    let b = you.lock("b").await.unwrap();
    let gone = begun(me.lock("b").retry(every())).await;
    drop(gone);
    let mut given_up = begun(me.lock("b").retry(FixedInterval::new(secs(1), 1))).await;
    clock.advance(secs(1));
    assert!(matches!(answer(&mut given_up).await, Err(LockError::Timeout { .. })));
    let _waits = waits(you.lock("a")).await;
    drop((a, b));
}

#[actix_rt::test]
async fn a_poller_that_a_grant_makes_part_of_a_cycle_hears_of_it_at_its_next_try() {
    let (locks, clock) = manager();
    let [me, you] = sessions(&locks, ["me", "you"]);
    let x = locks.lock("x").await.unwrap();
    let y = you.lock("y").await.unwrap();
    let mut for_x = waits(me.lock("x")).await;
    let mut for_y = begun(me.lock("y").retry(FixedInterval::new(secs(1), 1_000))).await;
    let _behind_me = waits(you.lock("x")).await;
    drop(x);
    let mine = answer(&mut for_x).await.unwrap();
    clock.advance(secs(1));
    assert_eq!(cycle(answer(&mut for_y).await), edges([("me", "y"), ("you", "x")]));
    drop((mine, y));
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn callbacks_that_lock_each_others_keys_are_told_and_one_of_them_gets_through() {
    let (locks, _) = manager();
    let nested = |outer: &'static str, inner: &'static str| {
        let locks = &locks;
        locks.run(outer, async move |_| {
            tokio::task::yield_now().await;
            locks.run(inner, async |_| ()).wait_forever().await.map(drop)
        })
    };
    let mut first = Box::pin(nested("a", "b").into_future());
    let mut second = Box::pin(nested("b", "a").into_future());
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    assert!(poll!(&mut first).is_pending(), "it waits for b");
    let told = answer(&mut second).await.unwrap().value.unwrap_err();
    assert!(matches!(&told, LockError::Deadlock { cycle } if cycle.len() == 2), "{told}");
    assert_eq!(answer(&mut first).await.unwrap().value, Ok(()));
    assert_eq!(locks.stats().active, 0);
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn a_callback_that_locks_its_own_key_is_told_at_once_and_runs_if_it_is_reentrant() {
    let (locks, _) = manager();
    let ran = locks.run("k", async |_| locks.run("k", async |_| ()).wait_forever().await.map(drop)).await.unwrap();
    assert!(matches!(ran.value, Err(LockError::Deadlock { ref cycle }) if cycle.len() == 1), "{ran:?}");
    let plain = locks.run("k", async |_| locks.lock("k").wait_forever().await.map(drop)).await.unwrap();
    assert!(matches!(plain.value, Err(LockError::Deadlock { .. })), "{plain:?}");
    let outer = locks.run("k", async |outer| {
        let inner = locks.run("k", async |inner| inner.fencing_token()).reentrant().await.unwrap();
        assert!(outer.is_held(), "the inner one lets go of its own part only");
        (outer.fencing_token(), inner.value)
    });
    let (outer, inner) = outer.await.unwrap().value;
    assert_eq!(outer, inner);
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn with_revoke_youngest_the_last_granted_lock_of_the_cycle_is_taken() {
    let clock = ManualClock::new();
    let policy = DeadlockPolicy::RevokeYoungest;
    let locks = LockManager::builder().clock(clock.clock()).on_deadlock(policy).build().unwrap();
    let [old, young] = sessions(&locks, ["old", "young"]);
    let a = old.lock("a").await.unwrap();
    clock.advance(secs(1));
    let b = young.lock("b").await.unwrap();
    let (a_lost, b_lost) = (a.lost(), b.lost());
    let mut for_b = waits(old.lock("b")).await;
    // Closed by the young one, which loses what the old one waits for, and waits on.
    let mut for_a = waits(young.lock("a")).await;
    assert_eq!(b_lost.await, Some(Loss::Revoked));
    let got_b = answer(&mut for_b).await.unwrap();
    assert!(a.is_held() && poll!(&mut for_a).is_pending());
    drop((a, got_b));
    let a = answer(&mut for_a).await.unwrap();
    assert_eq!(a_lost.await, None);
    drop((a, b));
    assert_eq!((locks.stats().lost, locks.stats().deadlocked), (1, 0));

    // Closed by the old one: its request gets the key.
    let a = old.lock("a").await.unwrap();
    clock.advance(secs(1));
    let b = young.lock("b").await.unwrap();
    let _for_a = waits(young.lock("a")).await;
    let got_b = old.lock("b").wait_forever().await.unwrap();
    assert_eq!(b.ensure_held(), Err(LockError::Lost(Loss::Revoked)));
    assert!(a.is_held() && got_b.is_held());
    assert_eq!(locks.stats().lost, 2);
    assert_balanced(&locks);
}

#[actix_rt::test]
async fn nobody_takes_a_lock_from_itself_to_break_a_deadlock() {
    let locks = LockManager::builder().on_deadlock(DeadlockPolicy::RevokeYoungest).build().unwrap();
    let me = locks.session("me");
    let held = me.lock("k").await.unwrap();
    assert_eq!(cycle(me.lock("k").await), edges([("me", "k")]));
    assert!(held.is_held());
    let ran = locks.run("x", async |held| (locks.lock("x").await.is_err(), held.is_held())).await.unwrap();
    assert_eq!((ran.value, ran.release), ((true, true), leasehold::Release::Released));
    let share = me.read("shared").await.unwrap();
    assert_eq!(cycle(me.write("shared").await), edges([("me", "shared")]));
    drop(share);
}

#[actix_rt::test]
async fn anonymous_requests_are_never_part_of_a_cycle() {
    let (locks, _) = manager();
    let me = locks.session("me");
    let _a = me.lock("a").await.unwrap();
    let b = locks.lock("b").owner("me").await.unwrap();
    let mut for_b = waits(me.lock("b")).await;
    let for_a = waits(locks.lock("a").owner("me")).await;
    let for_own = waits(locks.lock("b").owner("me")).await;
    drop((for_a, b));
    assert!(answer(&mut for_b).await.is_ok());
    drop(for_own);
    assert_eq!(locks.stats().deadlocked, 0);
}

/// Ends the process if it is not dropped in time: a deadlock that was missed would otherwise hang the test.
struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    fn after(patience: Duration, what: &'static str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&done);
        let began = Instant::now();
        std::thread::spawn(move || {
            while !watched.load(Ordering::SeqCst) {
                if began.elapsed() > patience {
                    eprintln!("a deadlock was missed: {what} did not end within {patience:?}");
                    std::process::abort();
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        Self(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn two_waits_that_close_a_cycle_at_once_from_two_threads_have_one_victim() {
    let _watchdog = Watchdog::after(secs(60), "two closing waits");
    let locks = LockManager::builder().build().unwrap();
    for round in 0..500 {
        let [a, b] = [format!("a{round}"), format!("b{round}")];
        let [me, you] = [locks.session("me"), locks.session("you")];
        let mine = me.lock(a.as_str()).block().unwrap();
        let yours = you.lock(b.as_str()).block().unwrap();
        let start = Barrier::new(2);
        let close = |who: &Session, own: Lock, other: &str| {
            start.wait();
            let answer = who.lock(other).wait_forever().block();
            // The victim lets go, so that the other one gets its key.
            drop(own);
            answer.map(drop)
        };
        let answers = std::thread::scope(|scope| {
            let first = scope.spawn(|| close(&me, mine, &b));
            let second = scope.spawn(|| close(&you, yours, &a));
            [first.join().unwrap(), second.join().unwrap()]
        });
        let victims = answers.iter().filter(|answer| matches!(answer, Err(LockError::Deadlock { .. }))).count();
        let granted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!((victims, granted), (1, 1), "round {round}: {answers:?}");
    }
    assert_eq!((locks.stats().active, locks.stats().waiting, locks.stats().deadlocked), (0, 0, 500));
    assert_balanced(&locks);
}

/// Draws numbers below `end`; the same ones for the same seed.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |end| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    }
}

#[test]
fn sessions_that_lock_random_pairs_and_try_again_when_refused_all_end() {
    const KEYS: u64 = 8;
    const PAIRS: usize = 400;
    let _watchdog = Watchdog::after(secs(120), "the random pairs");
    let locks = LockManager::builder().build().unwrap();
    let sessions: Vec<Session> = (0..6).map(|n| locks.session(format!("session {n}"))).collect();
    std::thread::scope(|scope| {
        // Two of the sessions are shared by two threads each.
        for (seed, session) in [0, 1, 2, 3, 4, 5, 0, 1].into_iter().enumerate() {
            let session = &sessions[session];
            scope.spawn(move || {
                let mut draw = dice(seed as u64 + 1);
                for _ in 0..PAIRS {
                    let first = draw(KEYS);
                    let second = (first + 1 + draw(KEYS - 1)) % KEYS;
                    let ask = |key: u64| match key % 4 {
                        0 => session.read(format!("k{key}")),
                        _ => session.lock(format!("k{key}")),
                    };
                    loop {
                        match ask(first).wait_forever().block() {
                            Ok(_outer) => match ask(second).wait_forever().block() {
                                Ok(_inner) => break,
                                Err(LockError::Deadlock { .. }) => {}
                                Err(other) => panic!("{other}"),
                            },
                            Err(LockError::Deadlock { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    let stats = locks.stats();
    assert_eq!((stats.active, stats.waiting, stats.expired), (0, 0, 0));
    assert!(stats.granted >= (8 * PAIRS * 2) as u64);
    assert!(sessions.iter().all(|session| session.locks() == 0));
    assert_balanced(&locks);
}
