//! Fear: what was held is forgotten at a restart, or comes back as something else.

use std::time::Duration;

use futures::executor::block_on;
use leasehold::store::file::{Durability, FileStore};
use leasehold::store::{Acquired, Denial, Extended, HoldInfo, Holder, KeyState, Released, Store, StoreError};
use leasehold::{LockError, LockManager, Mode, Release, Token, Ttl};

use crate::kit::{Dir, LONG, Process, ask, key};

fn take(process: &Process, name: &str, token: Token, mode: Mode) -> u64 {
    match block_on(process.store.acquire(ask(&key(name), token, LONG, mode))) {
        Acquired::Granted { fence: Some(fence), .. } => fence,
        answer => panic!("{name}: {answer:?}"),
    }
}

fn holders(process: &Process, name: &str, token: Token) -> Vec<(Holder, Mode, Option<u64>)> {
    let found = block_on(process.store.holders(&key(name), Some(token))).unwrap();
    found.iter().map(|hold: &HoldInfo| (hold.by, hold.mode, hold.fence)).collect()
}

#[test]
fn locks_shares_and_permits_are_there_again_with_their_tokens_fences_and_ends() {
    for durability in [Durability::Synced, Durability::Relaxed { every: Duration::from_secs(60) }] {
        let dir = Dir::new();
        let build = || FileStore::builder(dir.path()).durability(durability).build().unwrap();
        let (alone, shares, permits) = (Token::random(), [(); 3].map(|()| Token::random()), Token::random());
        let two_of_five = Mode::Permits { limit: 5, permits: 2 };
        let before = Process::start(build());
        let fence = take(&before, "alone", alone, Mode::Exclusive);
        let fences = shares.map(|token| take(&before, "shared", token, Mode::Shared));
        let counted = take(&before, "counted", permits, two_of_five);
        assert_eq!(block_on(before.store.release(&key("shared"), shares[1])), Released::Released);
        before.end();

        let after = Process::start(build());
        assert_eq!(holders(&after, "alone", alone), [(Holder::Ours, Mode::Exclusive, Some(fence))]);
        let two = [(Holder::Ours, Mode::Shared, Some(fences[0])), (Holder::Other, Mode::Shared, Some(fences[2]))];
        assert_eq!(holders(&after, "shared", shares[0]), two);
        assert_eq!(holders(&after, "counted", permits), [(Holder::Ours, two_of_five, Some(counted))]);
        let Ok(KeyState::Held { ends_in: Some(left), .. }) = block_on(after.store.look(&key("alone"), None)) else {
            panic!("it is held");
        };
        assert!(left <= LONG && left > LONG - Duration::from_mins(1), "{left:?}");
        // Who holds goes on, and others wait.
        let long = Ttl::new(LONG * 2).unwrap();
        assert!(matches!(block_on(after.store.extend(&key("alone"), alone, long)), Extended::Extended { .. }));
        let denied =
            block_on(after.store.acquire(ask(&key("counted"), alone, LONG, Mode::Permits { limit: 5, permits: 4 })));
        assert!(matches!(denied, Acquired::Denied { why: Denial::Held, .. }), "{denied:?}");
        assert_eq!(block_on(after.store.release(&key("alone"), alone)), Released::Released);
        let again = take(&after, "alone", Token::random(), Mode::Exclusive);
        assert!(again > counted.max(fence), "D6: {again} after {counted}");
    }
}

#[test]
fn what_ran_out_meanwhile_is_free() {
    let dir = Dir::new();
    let (before, token) = (Process::start(dir.store()), Token::random());
    let k = key("k");
    let fence = loop {
        // On a loaded machine the answer may take longer than the lock.
        let request = ask(&k, token, Duration::from_millis(20), Mode::Exclusive);
        if let Acquired::Granted { fence, .. } = block_on(before.store.acquire(request)) {
            break fence;
        }
    };
    before.end();
    loop {
        let after = Process::start(dir.store());
        let seen = block_on(after.store.look(&key("k"), Some(token))).unwrap();
        if seen == KeyState::Free {
            assert!(Some(take(&after, "k", Token::random(), Mode::Exclusive)) > fence);
            return;
        }
        after.end();
    }
}

#[tokio::test]
async fn a_waiter_behind_a_holder_of_the_last_run_is_served_when_that_releases() {
    let dir = Dir::new();
    let manager = async || LockManager::builder().store(dir.store()).build_and_connect().await.unwrap();
    let (before, mut tickets) = (manager().await, Vec::new());
    for round in 0..20 {
        tickets.push(before.lock(format!("k{round}")).ttl(LONG).await.unwrap().detach());
    }
    before.shutdown(Duration::ZERO).await;

    let after = manager().await;
    for (round, ticket) in tickets.iter().enumerate() {
        let name = format!("k{round}");
        assert_eq!(after.try_lock(&name).await.unwrap_err(), LockError::Held);
        let mut waiter = Box::pin(after.lock(&name).wait(Duration::from_secs(30)).into_future());
        // Before it was denied, after that, or as it begins to listen: it polls for none of them.
        for _ in 0..round * 20 {
            assert!(futures::poll!(&mut waiter).is_pending());
            tokio::task::yield_now().await;
        }
        // By its token, as a client of the server does.
        assert_eq!(after.release(&name, ticket.token()).await, Ok(Release::Released));
        let lock = waiter.await.unwrap();
        assert!(lock.fencing_token() > ticket.fencing_token());
    }
    after.shutdown(Duration::ZERO).await;
}

#[test]
fn a_store_that_is_not_started_or_was_stopped_says_so() {
    let dir = Dir::new();
    let store = dir.store();
    let not_running = Acquired::Unknown(StoreError::NotRunning);
    let (k, token) = (key("k"), Token::random());
    assert_eq!(block_on(store.acquire(ask(&k, token, LONG, Mode::Exclusive))), not_running);
    assert!(!dir.path().exists(), "it is opened when it is started");
    let (one, other) = (store.clone(), store.clone());
    block_on(async {
        assert_eq!((one.start().await, other.start().await), (Ok(()), Ok(())));
        one.stop().await;
        assert_eq!(one.acquire(ask(&k, token, LONG, Mode::Exclusive)).await, not_running);
        assert!(matches!(other.acquire(ask(&k, token, LONG, Mode::Exclusive)).await, Acquired::Granted { .. }));
        other.stop().await;
        assert_eq!(other.release(&k, token).await, Released::Unknown(StoreError::NotRunning));
        // It is closed, and is opened again.
        assert_eq!(store.start().await, Ok(()));
        assert!(matches!(store.look(&k, Some(token)).await, Ok(KeyState::Held { by: Holder::Ours, .. })));
        store.stop().await;
    });
}
