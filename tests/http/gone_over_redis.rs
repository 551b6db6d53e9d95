//! Fear: an HTTP client goes away while its lock is on the way, and the key stays behind in Redis.
#![cfg(feature = "redis")]

use std::io::Write;

use crate::http_server::{Server, until};
use crate::kit::{self, Direction};
use crate::redis_managers::{builder, exists};

/// Peer bug 10: the clean-up runs in the request that was cancelled, and dies with it.
#[actix_rt::test]
async fn a_client_that_leaves_before_its_answer_leaves_no_key() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let server = Server::over(builder(&proxy.url()).build_and_connect().await.unwrap());
    let body = r#"{"key":"k","ttl_ms":600000}"#;
    // Redis knows the scripts from now on: else the answer that is held would be that it does not.
    drop(server.locks.lock("warm").await.unwrap());
    for _ in 0..5 {
        proxy.hold(Direction::ToClient);
        let mut client = server.raw_acquire(body.len(), body);
        client.flush().unwrap();
        until("the grant that nobody hears of", || exists(&redis, "lock:k")).await;
        drop(client);
        proxy.heal();
        until("the end of the key", || !exists(&redis, "lock:k")).await;
        assert_eq!((server.locks.stats().active, server.waiting()), (0, 0));
    }
    let locked = server.locks.lock("k").await;
    assert!(locked.unwrap().is_held());
}
