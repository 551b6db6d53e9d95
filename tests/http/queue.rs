//! Fear: a client that waits is passed over, or one that has gone stays in the queue.

use std::net::{Shutdown, SocketAddr};

use serde_json::json;

use crate::http_server::{Server, text, until};

#[actix_rt::test]
async fn clients_are_served_in_the_order_in_which_they_came() {
    let server = Server::start();
    let mut holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let mut waiters = Vec::new();
    for at in 1..=5_u64 {
        let body = json!({ "key": "a", "wait_ms": 60_000, "owner": format!("w{at}") });
        waiters.push(server.post_later("/acquire", body));
        until("its place", || server.waiting() == at).await;
    }
    for (at, waiter) in waiters.into_iter().enumerate() {
        server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
        let info = server.locks.inspect("a").await.unwrap().unwrap();
        assert_eq!(info.owner.as_deref(), Some(format!("w{}", at + 1).as_str()), "the key was never free in between");
        holder = waiter.await.unwrap().ok();
        assert_eq!(text(&holder, "owner"), format!("w{}", at + 1));
    }
}

/// Peer bug 29: the handler went on waiting when its client had gone, and was granted the lock.
#[actix_rt::test]
async fn a_waiter_whose_client_has_gone_leaves_the_queue_and_is_granted_nothing() {
    let server = Server::start();
    let holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let body = r#"{"key":"a","wait_ms":60000,"owner":"gone"}"#;
    let gone = server.raw_acquire(body.len(), body);
    until("the waiter", || server.waiting() == 1).await;
    drop(gone);
    until("its leaving", || server.waiting() == 0).await;
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
    let stats = server.locks.stats();
    assert_eq!((stats.handoffs, stats.cancelled, stats.active), (0, 1, 0));
}

#[actix_rt::test]
async fn a_release_right_after_a_waiters_client_has_gone_does_not_lock_the_key_for_nobody() {
    let server = Server::start();
    let token = r#","token":"0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001"}"#;
    for (round, end) in ["}", token].into_iter().cycle().take(100).enumerate() {
        let key = format!("key {round}");
        let holder = server.locks.try_lock(key.as_str()).await.unwrap();
        let body = format!(r#"{{"key":"{key}","wait_ms":60000,"ttl_ms":86400000{end}"#);
        let gone = server.raw_acquire(body.len(), &body);
        until("the waiter", || server.waiting() == 1).await;
        let address = gone.local_addr().unwrap();
        drop(gone);
        hear_of_the_close(address);
        holder.unlock().await;
        until("the key's freedom", || server.locks.stats().active == 0).await;
    }
}

#[actix_rt::test]
async fn a_client_that_closes_its_writing_half_counts_as_gone() {
    let server = Server::start();
    let holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let body = r#"{"key":"a","wait_ms":60000}"#;
    let half = server.raw_acquire(body.len(), body);
    until("the waiter", || server.waiting() == 1).await;
    half.shutdown(Shutdown::Write).unwrap();
    until("its leaving", || server.waiting() == 0).await;
    assert_eq!(server.locks.stats().cancelled, 1);
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
}

#[actix_rt::test]
async fn a_client_whose_connection_is_reset_counts_as_gone() {
    let server = Server::start();
    server.post("/acquire", json!({ "key": "a" })).await.ok();
    let body = r#"{"key":"a","wait_ms":60000}"#;
    let reset = server.raw_acquire(body.len(), body);
    until("the waiter", || server.waiting() == 1).await;
    reset.set_nonblocking(true).unwrap();
    let reset = tokio::net::TcpStream::from_std(reset).unwrap();
    reset.set_zero_linger().unwrap();
    drop(reset);
    until("its leaving", || server.waiting() == 0).await;
    assert_eq!(server.locks.stats().cancelled, 1);
}

#[actix_rt::test]
async fn the_one_behind_a_waiter_that_has_gone_moves_up() {
    let server = Server::start();
    let holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let body = r#"{"key":"a","wait_ms":60000}"#;
    let gone = server.raw_acquire(body.len(), body);
    until("the first waiter", || server.waiting() == 1).await;
    let behind = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 60_000, "owner": "behind" }));
    until("the second", || server.waiting() == 2).await;
    drop(gone);
    until("the leaving of the first", || server.waiting() == 1).await;
    let shown = server.get("/locks/a").await.ok();
    assert_eq!(shown["queue"][0]["owner"], "behind");
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
    assert_eq!(text(&behind.await.unwrap().ok(), "owner"), "behind");
}

/// Waits, without giving the server a turn, until the kernel has brought it the end of a client's connection: under
/// load that is later than the close itself.
fn hear_of_the_close(client: SocketAddr) {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", client.port());
    let unheard = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|socket| {
            socket.get(2).is_some_and(|remote| remote.ends_with(&port)) && socket.get(3) == Some(&ESTABLISHED)
        })
    };
    while unheard() {
        std::thread::yield_now();
    }
}
