//! Fear: two holders at once.

use std::time::Duration;

use leasehold::{LockError, LockManager};

#[actix_rt::test]
async fn a_held_lock_is_refused_and_a_released_one_is_granted_again() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("order:42").await.unwrap();
    assert_eq!(locks.try_lock("order:42").await.unwrap_err(), LockError::Held);
    assert!(locks.try_lock("order:43").await.is_ok(), "another key is another lock");
    let first = lock.fencing_token();
    drop(lock);
    let again = locks.lock("order:42").wait(Duration::from_secs(1)).await.unwrap();
    assert!(again.fencing_token() > first);
}
