//! Fear: an operator's notice does not reach a holder in another process over a quorum.

use std::time::Duration;

use leasehold::{LockManager, Loss, Release};

use crate::redlock::Nodes;

const SOON: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_mins(1);

async fn manager(nodes: &Nodes) -> LockManager {
    LockManager::builder().ttl(LONG).store(nodes.builder().build().unwrap()).build_and_connect().await.unwrap()
}

/// Waits for what is to come, on the most loaded machine.
async fn comes<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.unwrap_or_else(|_| panic!("it never came: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_reaches_the_holder_in_the_other_process_also_while_a_node_is_down() {
    let mut nodes = Nodes::start(5, &[], LONG);
    let (one, two) = (manager(&nodes).await, manager(&nodes).await);
    nodes.servers[0].kill9();
    let lock = one.lock("k").wait(LONG).await.unwrap();
    let told = tokio::spawn(lock.revocation_notice());
    let order = {
        let two = two.clone();
        tokio::spawn(async move { two.force_release("k").notice(SOON).await })
    };
    comes("the notice", told).await.unwrap().expect("it is asked for before it is taken");
    assert_eq!(comes("the loss", lock.lost()).await, Some(Loss::Forced));
    assert_eq!(comes("the order's end", order).await.unwrap(), Ok(Release::Released));
    drop(comes("the next lock", two.lock("k").wait(LONG).into_future()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lets_go_earlier_ends_the_order_and_a_free_key_has_none() {
    let nodes = Nodes::start(3, &[], LONG);
    let (one, two) = (manager(&nodes).await, manager(&nodes).await);
    assert_eq!(two.force_release("free").notice(LONG).await, Ok(Release::AlreadyGone));
    let lock = one.lock("k").await.unwrap();
    let told = tokio::spawn(lock.revocation_notice());
    let order = tokio::spawn(async move { two.force_release("k").notice(LONG).await });
    comes("the notice", told).await.unwrap().expect("it is asked for before it is taken");
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(comes("the order's end, long before the time", order).await.unwrap(), Ok(Release::Released));
}
