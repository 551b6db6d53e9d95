//! Fear: listeners miss what happened, hear it in the wrong order, hear a secret, or slow down what they listen to.
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::poll;
use leasehold::retry::FixedInterval;
use leasehold::{
    DeadlockPolicy, Event, EventKind, Events, Heard, LockError, LockManager, Loss, ManualClock, Mode, Token,
};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

/// The next event, if there is one already.
fn heard(events: &mut Events) -> Option<Heard> {
    let next = std::pin::pin!(events.next());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(heard) => heard,
        Poll::Pending => None,
    }
}

/// All events so far, in the order in which they came.
#[track_caller]
fn all(events: &mut Events) -> Vec<Event> {
    let event = |heard| match heard {
        Heard::Event(event) => event,
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| heard(events).map(event)).collect()
}

/// The next so many events, which the manager's own thread may be about to tell, and no more than these.
async fn told(events: &mut Events, count: usize) -> Vec<Event> {
    let mut told = Vec::new();
    while told.len() < count {
        let next = actix_rt::time::timeout(secs(20), events.next()).await;
        match next.expect("it was never told") {
            Some(Heard::Event(event)) => told.push(event),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all(events), []);
    told
}

/// What kind of events they are, for short.
fn kinds(events: &[Event]) -> Vec<String> {
    let kind = |event: &Event| match &event.kind {
        EventKind::Granted { mode, .. } => format!("granted {mode}"),
        EventKind::Released { .. } => "released".to_owned(),
        EventKind::Expired { .. } => "expired".to_owned(),
        EventKind::Refreshed { .. } => "refreshed".to_owned(),
        EventKind::Forced { .. } => "forced".to_owned(),
        EventKind::Lost { why, .. } => format!("lost: {why}"),
        EventKind::Deadlock { .. } => "deadlock".to_owned(),
        other => format!("{other:?}"),
    };
    events.iter().map(kind).collect()
}

#[actix_rt::test]
async fn every_way_in_which_a_lock_begins_and_ends_is_told_in_its_order() {
    let (locks, clock) = manager();
    let mut events = locks.events();
    let lock = locks.try_lock("k").owner("ann").ttl(secs(10)).await.unwrap();
    let fence = lock.fencing_token();
    clock.advance(secs(3));
    lock.refresh().await.unwrap();
    clock.advance(secs(1));
    lock.unlock().await;
    let [granted, refreshed, released] = told(&mut events, 3).await.try_into().unwrap();
    assert_eq!(granted.kind, EventKind::Granted { mode: Mode::Exclusive, ttl: secs(10) });
    assert_eq!(refreshed.kind, EventKind::Refreshed { remaining: secs(10) });
    assert_eq!(released.kind, EventKind::Released { held: secs(4) });
    for event in [&granted, &refreshed, &released] {
        assert_eq!((event.key.as_str(), event.owner.as_deref(), event.fencing_token), ("k", Some("ann"), fence));
    }
    assert!(granted.sequence < refreshed.sequence && refreshed.sequence < released.sequence);

    let exclusive = "granted exclusive";
    drop(locks.try_lock("k").await.unwrap());
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "released"]);
    let _expires = locks.try_lock("k").ttl(secs(1)).await.unwrap();
    clock.advance(secs(1));
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "expired"]);
    let _forced = locks.try_lock("k").await.unwrap();
    locks.force_release("k").await.unwrap();
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "forced"]);
    let ticket = locks.try_lock("k").ticket().await.unwrap();
    locks.release("k", ticket.token()).await.unwrap();
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "released"]);
    let _noticed = locks.try_lock("k").await.unwrap();
    let _standing = poll!(Box::pin(locks.force_release("k").notice(secs(2)).into_future()));
    clock.advance(secs(2));
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "forced"]);
    let session = locks.session("me");
    let _ends = session.lock("k").await.unwrap();
    session.end().await;
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "released"]);
    let session = locks.session("me").ttl(secs(5));
    let _runs_out = session.lock("k").await.unwrap();
    clock.advance(secs(5));
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "expired"]);
    let (reader, permits) = (locks.read("r").await.unwrap(), locks.semaphore("s", 3).permits(2).await.unwrap());
    drop((reader, permits));
    assert_eq!(
        kinds(&told(&mut events, 4).await),
        ["granted shared", "granted 2 of 3 permits", "released", "released"]
    );
    let _left = locks.try_lock("k").await.unwrap();
    locks.shutdown(Duration::ZERO).await;
    assert_eq!(kinds(&told(&mut events, 2).await), [exclusive, "lost: the manager shut down"]);
}

#[actix_rt::test]
async fn a_hand_off_is_told_as_an_end_and_then_a_beginning() {
    let (locks, _) = manager();
    let holder = locks.try_lock("k").owner("ann").await.unwrap();
    let mut waiter = Box::pin(locks.lock("k").owner("bob").wait_forever().into_future());
    assert!(poll!(&mut waiter).is_pending());
    let mut events = locks.watch("k").unwrap();
    drop(holder);
    let [released, granted] = all(&mut events).try_into().unwrap();
    assert_eq!((released.owner.as_deref(), granted.owner.as_deref()), (Some("ann"), Some("bob")));
    assert!(matches!(released.kind, EventKind::Released { .. }) && matches!(granted.kind, EventKind::Granted { .. }));
    assert!(released.sequence < granted.sequence && released.fencing_token < granted.fencing_token);
    drop(waiter);
    assert_eq!(kinds(&all(&mut events)), ["released"], "a grant that nobody saw has ended too");
}

#[actix_rt::test]
async fn requests_that_get_nothing_are_no_events() {
    let (locks, clock) = manager();
    let _held = locks.try_lock("k").ttl(secs(60)).await.unwrap();
    let mut events = locks.events();
    assert!(locks.try_lock("k").await.is_err());
    let mut waits = Box::pin(locks.lock("k").wait(secs(1)).into_future());
    assert!(poll!(&mut waits).is_pending());
    clock.advance(secs(1));
    assert!(waits.await.is_err());
    assert!(locks.refresh("k", Token::random(), None).await.is_err());
    assert_eq!(locks.session("me").heartbeat().await, Ok(secs(30)));
    assert_eq!(all(&mut events), []);
}

#[actix_rt::test]
async fn who_watches_a_key_hears_of_that_key_only() {
    // One shard, so that the others' events pass by.
    let locks = LockManager::builder().shards(1).build().unwrap();
    let (mut a, mut also_a, mut b) = (locks.watch("a").unwrap(), locks.watch("a").unwrap(), locks.watch("b").unwrap());
    let mut everything = locks.events();
    let keys = ["a", "b", "c"].map(|key| locks.try_lock_now(key).unwrap());
    drop(keys);
    for (events, key) in [(&mut a, "a"), (&mut also_a, "a"), (&mut b, "b")] {
        let events = all(events);
        assert!(events.iter().all(|event| event.key.as_str() == key));
        assert_eq!(kinds(&events), ["granted exclusive", "released"]);
    }
    assert_eq!(all(&mut everything).len(), 6);
    drop(also_a);
    drop(locks.try_lock_now("a").unwrap());
    assert_eq!(all(&mut a).len(), 2, "one of two listeners went");
    assert!(matches!(locks.watch(""), Err(LockError::InvalidKey(_))));
}

/// What the next event's number would be: numbers are given to events that are made, and to no others.
fn next_number(locks: &LockManager) -> u64 {
    let mut events = locks.watch("counted").unwrap();
    drop(locks.try_lock_now("counted").unwrap());
    all(&mut events)[0].sequence
}

#[test]
fn nothing_is_told_while_nobody_listens() {
    let locks = LockManager::builder().shards(1).build().unwrap();
    let before = next_number(&locks);
    for n in 0..100 {
        drop(locks.try_lock_now(format!("k{n}")).unwrap());
    }
    assert_eq!(next_number(&locks), before + 2, "made for nobody");
    // Nor for keys that nobody watches, nor after the last listener went, however many there were.
    let watched = locks.watch("other").unwrap();
    let listeners = (locks.events(), locks.events(), locks.watch("k").unwrap(), locks.watch("k").unwrap());
    drop(listeners);
    for _ in 0..100 {
        drop(locks.try_lock_now("k").unwrap());
    }
    drop(watched);
    drop(locks.try_lock_now("other").unwrap());
    assert_eq!(next_number(&locks), before + 4);
}

#[test]
fn a_listener_hears_nothing_from_before_it_came() {
    let (locks, _) = manager();
    let mut early = locks.events();
    let lock = locks.try_lock_now("k").unwrap();
    let mut late = locks.events();
    drop(lock);
    assert_eq!((all(&mut early).len(), kinds(&all(&mut late))), (2, vec!["released".to_owned()]));
}

#[test]
fn a_slow_listener_learns_how_many_it_missed_and_gets_the_latest() {
    let locks = LockManager::builder().event_buffer(8).build().unwrap();
    let (mut slow, mut quick) = (locks.events(), locks.events());
    let mut last = 0;
    for _ in 0..50 {
        drop(locks.try_lock_now("k").unwrap());
        last = all(&mut quick).last().unwrap().sequence;
    }
    assert_eq!(heard(&mut slow), Some(Heard::Lagged(92)));
    let rest = all(&mut slow);
    assert_eq!((rest.len(), rest.last().unwrap().sequence), (8, last), "the latest eight of a hundred");
    assert!(rest.is_sorted_by_key(|event| event.sequence));
    let mut of_a_key = locks.watch("k").unwrap();
    for _ in 0..50 {
        drop(locks.try_lock_now("k").unwrap());
    }
    assert_eq!(heard(&mut of_a_key), Some(Heard::Lagged(36)), "64 are kept");
}

#[actix_rt::test]
async fn a_poller_that_is_refused_to_break_a_deadlock_is_told_of() {
    let locks = LockManager::builder().build().unwrap();
    let (me, you) = (locks.session("me"), locks.session("you"));
    let (_a, _b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
    let mut first = Box::pin(me.lock("b").wait_forever().into_future());
    assert!(poll!(&mut first).is_pending());
    let mut events = locks.events();
    let polls = you.lock("a").wait_forever().retry(FixedInterval::new(Duration::from_millis(1), 9));
    assert!(matches!(polls.await, Err(LockError::Deadlock { .. })));
    let told = all(&mut events);
    let EventKind::Deadlock { cycle } = &told[0].kind else { panic!("{told:?}") };
    let edges: Vec<_> = cycle.iter().map(|edge| (&*edge.owner, edge.key.as_str())).collect();
    assert_eq!(edges, [("you", "a"), ("me", "b")]);
    assert_eq!((told.len(), told[0].key.as_str(), told[0].owner.as_deref()), (1, "a", Some("you")));
}

#[actix_rt::test]
async fn a_deadlock_is_told_with_its_cycle_whether_it_refuses_or_revokes() {
    for policy in [DeadlockPolicy::RefuseRequest, DeadlockPolicy::RevokeYoungest] {
        let locks = LockManager::builder().on_deadlock(policy).build().unwrap();
        let (me, you) = (locks.session("me"), locks.session("you"));
        let (_a, _b) = (me.lock("a").await.unwrap(), you.lock("b").await.unwrap());
        let mut first = Box::pin(me.lock("b").wait_forever().into_future());
        assert!(poll!(&mut first).is_pending());
        let mut events = locks.events();
        let mut second = Box::pin(you.lock("a").wait_forever().into_future());
        let _ = poll!(&mut second);
        let told = all(&mut events);
        let EventKind::Deadlock { cycle } = &told[0].kind else { panic!("{told:?}") };
        let edges: Vec<_> = cycle.iter().map(|edge| (&*edge.owner, edge.key.as_str())).collect();
        assert_eq!(edges, [("you", "a"), ("me", "b")]);
        if policy == DeadlockPolicy::RefuseRequest {
            assert_eq!(
                (told[0].key.as_str(), told[0].owner.as_deref(), told[0].fencing_token),
                ("a", Some("you"), None)
            );
            assert_eq!(told.len(), 1);
        } else {
            assert!(told[0].fencing_token.is_some(), "the grant that was revoked");
            let revoked = matches!(told[1].kind, EventKind::Lost { why: Loss::Revoked, .. });
            assert!(revoked && matches!(told[2].kind, EventKind::Granted { .. }), "{told:?}");
        }
    }
}

#[actix_rt::test]
async fn no_event_shows_a_token() {
    let (locks, clock) = manager();
    let (mut events, mut watched) = (locks.events(), locks.watch("k").unwrap());
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let lock = locks.try_lock("k").owner("ann").ttl(secs(9)).token(Token::random()).await.unwrap();
        lock.refresh().await.unwrap();
        tokens.push(lock.token());
        match tokens.len() {
            1 => drop(lock),
            2 => clock.advance(secs(9)),
            _ => drop(locks.force_release("k").await),
        }
    }
    let shown = format!("{events:?} {watched:?} {:?} {:?}", all(&mut events), all(&mut watched));
    assert!(shown.contains("Forced") && shown.contains("ann"));
    for token in tokens {
        let text = token.to_string();
        assert!(!shown.contains(&text) && !shown.contains(&text.replace('-', "")), "{shown}");
    }
}

#[actix_rt::test]
async fn a_dropped_wait_for_the_next_event_loses_none() {
    let (locks, _) = manager();
    let mut events = locks.events();
    for _ in 0..10 {
        {
            let mut next = Box::pin(events.next());
            assert!(poll!(&mut next).is_pending());
            drop(locks.try_lock("k").await.unwrap());
            // Woken, and dropped all the same.
        }
        assert_eq!(all(&mut events).len(), 2);
    }
}

#[actix_rt::test]
async fn the_stream_ends_with_the_shutdown_though_somebody_keeps_the_manager() {
    let locks = LockManager::builder().build().unwrap();
    let (mut events, mut watched) = (locks.events(), locks.watch("k").unwrap());
    let _left = locks.try_lock("k").await.unwrap();
    locks.shutdown(Duration::ZERO).await;
    for stream in [&mut events, &mut watched] {
        assert_eq!(kinds(&told(stream, 2).await), ["granted exclusive", "lost: the manager shut down"]);
        assert_eq!(stream.next().await, None);
        assert_eq!(stream.next().await, None, "for good");
    }
    assert_eq!(locks.events().next().await, None, "and so does one that begins later");
}

#[actix_rt::test]
async fn the_stream_ends_with_its_manager() {
    let locks = LockManager::builder().build().unwrap();
    let (mut events, mut watched) = (locks.events(), locks.watch("k").unwrap());
    drop(locks.try_lock("k").await.unwrap());
    locks.shutdown(Duration::ZERO).await;
    drop(locks);
    for stream in [&mut events, &mut watched] {
        let mut count = 0;
        while let Some(heard) = stream.next().await {
            assert!(matches!(heard, Heard::Event(_)));
            count += 1;
        }
        assert_eq!(count, 2, "what was told before is still there");
    }
}

#[test]
fn listeners_that_come_and_go_while_events_fly_hear_each_key_in_order() {
    let locks = LockManager::builder().event_buffer(65_536).build().unwrap();
    let mut steady = locks.events();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let locks = &locks;
            scope.spawn(move || {
                for n in 0..2_000 {
                    let lock = locks.lock(format!("k{}", (worker + n) % 3)).wait_forever().block().unwrap();
                    drop(lock);
                }
            });
        }
        let locks = &locks;
        scope.spawn(move || {
            for n in 0..2_000 {
                let (mut one, other) = (locks.watch(format!("k{}", n % 3)).unwrap(), locks.events());
                let mut next = Box::pin(one.next());
                let _ = Pin::new(&mut next).poll(&mut Context::from_waker(Waker::noop()));
                drop(next);
                drop((other, one));
            }
        });
    });
    let mut told = all(&mut steady);
    assert_eq!(told.len(), 12_000, "every grant and every end of 6,000 locks");
    told.sort_unstable_by_key(|event| event.sequence);
    for key in ["k0", "k1", "k2"] {
        let of_key: Vec<_> = told.iter().filter(|event| event.key.as_str() == key).collect();
        for pair in of_key.chunks(2) {
            assert!(matches!(pair[0].kind, EventKind::Granted { .. }), "{pair:?}");
            assert!(matches!(pair[1].kind, EventKind::Released { .. }), "{pair:?}");
            assert_eq!(pair[0].fencing_token, pair[1].fencing_token, "nobody in between");
        }
    }
    drop(steady);
    let before = next_number(&locks);
    drop(locks.try_lock_now("k0").unwrap());
    assert_eq!(next_number(&locks), before + 2, "all have gone");
}
