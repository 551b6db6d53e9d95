//! Fear: an operator's notice does not reach a holder in another process; or what it was not meant for is taken.

use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::store::{Forced, Store};
use leasehold::{Key, LockError, Loss, Release};
use tokio::task::block_in_place;

use crate::kit::{Server, until};
use crate::redis_managers::{LONG, builder, exists, manager, queue, two};

const SOON: Duration = Duration::from_millis(300);

/// Waits for what is to come, on the most loaded machine.
async fn comes<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_reaches_the_holder_in_the_other_process_and_the_lock_is_taken_in_the_end() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let told = tokio::spawn(lock.revocation_notice());
    let order = {
        let two = two.clone();
        tokio::spawn(async move { two.force_release("k").notice(SOON).await })
    };
    let at = comes("the notice", told).await.unwrap().expect("it is asked for before it is taken");
    // No refresh moves it past the notice.
    if let Ok(refreshed) = lock.refresh().await {
        assert!(refreshed.deadline <= at, "{refreshed:?}, {at:?}");
    }
    assert_eq!(comes("the loss", lock.lost()).await, Some(Loss::Forced));
    assert_eq!(comes("the order's end", order).await.unwrap(), Ok(Release::Released));
    drop(comes("the next lock", two.lock("k").wait(LONG).into_future()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_in_the_other_process_that_lets_go_earlier_ends_the_order_and_the_next_one_is_left_alone() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let next = queue(&one, "k");
    let told = tokio::spawn(lock.revocation_notice());
    let order = {
        let two = two.clone();
        tokio::spawn(async move { two.force_release("k").notice(LONG).await })
    };
    comes("the notice", told).await.unwrap().unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(comes("the order's end, long before the time", order).await.unwrap(), Ok(Release::Released));
    let next = comes("the next lock", next).await.unwrap().unwrap();
    assert!(next.remaining() > LONG / 2, "no notice is given to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_nobody_waits_for_is_carried_out_and_so_is_one_whose_holder_hears_nothing() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    // Without rights to the channel of notices.
    server.ask::<()>("ACL SETUSER deaf on >secret ~* resetchannels &leasehold:forced* &leasehold:turn* &{* +@all");
    let url = server.url().replace("redis://", "redis://deaf:secret@");
    let deaf = builder(&url).build_and_connect().await.unwrap();
    let unheard = deaf.lock("unheard").await.unwrap();
    let lock = one.lock("k").await.unwrap();
    for key in ["k", "unheard"] {
        let mut order = std::pin::pin!(two.force_release(key).notice(SOON).into_future());
        assert!(futures::poll!(&mut order).is_pending());
    }
    assert_eq!(comes("the loss", lock.lost()).await, Some(Loss::Forced));
    block_in_place(|| until("the store takes what hears no notice", || !exists(&server, "lock:unheard")));
    assert_eq!(unheard.refresh().await, Err(LockError::Lost(Loss::Vanished)));
    assert_eq!(unheard.revocation_notice().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_about_a_free_key_is_answered_so_and_one_over_a_store_that_is_away_is_unknown() {
    let mut server = Server::start(&[]);
    let locks = manager(&server).await;
    assert_eq!(locks.force_release("k").notice(LONG).await, Ok(Release::AlreadyGone));
    let store = RedisStore::builder(&server.url()).operation_timeout(Duration::from_millis(200)).build().unwrap();
    let away = leasehold::LockManager::builder().store(store).build().unwrap();
    server.kill9();
    assert_eq!(away.force_release("k").notice(LONG).await, Err(LockError::StoreUnavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_ended_by_its_fence_and_the_next_one_is_not() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let store = RedisStore::new(&server.url()).unwrap();
    store.start().await.unwrap();
    let before = locks.lock("k").await.unwrap();
    let fence = before.fencing_token().unwrap().get();
    before.unlock().await;
    let lock = locks.lock("k").await.unwrap();
    let key = store.canonical(&Key::new("k").unwrap()).unwrap();
    assert_eq!(store.force_release_grant(&key, fence).await, Forced::WasFree);
    assert_eq!(lock.refresh().await.map(|_| ()), Ok(()), "it is another grant");
    let fence = lock.fencing_token().unwrap().get();
    assert_eq!(store.force_release_grant(&key, fence).await, Forced::Released);
    assert_eq!(comes("the loss", lock.lost()).await, Some(Loss::Forced));
    store.stop().await;
}
