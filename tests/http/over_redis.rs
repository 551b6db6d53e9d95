//! Fear: over a store the routes answer other than without one, or let somebody reach what is not theirs.
#![cfg(feature = "redis")]

use leasehold::LockManager;
use leasehold::http::{Access, Limits};
use leasehold::store::redis::RedisStore;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{self, Answer, Listener, Server, text};
use crate::kit;

const SECRETS: [&str; 2] = ["operator-secret-0123456789", "ci-secret-0123456789"];

async fn over(redis: &kit::Server, access: Access) -> Server {
    let store = RedisStore::new(redis.url().as_str()).unwrap();
    let locks = LockManager::builder().store(store).build_and_connect().await.unwrap();
    Server::with_access(locks, Limits::new(), access)
}

#[actix_rt::test]
async fn a_session_holds_in_the_store_and_its_end_frees_it_there() {
    let redis = kit::Server::start(&[]);
    let server = over(&redis, Access::open()).await;
    let session = server.post("/sessions", json!({ "name": "w", "ttl_ms": 20_000 })).await.ok();
    let lock = server.post("/acquire", json!({ "key": "a", "session": session["id"] })).await.ok();
    assert_eq!(redis.ask::<String>("GET lock:a"), text(&lock, "token"));
    // It is extended there a third of that before the session's end, at the latest.
    let kept = redis.ask::<u64>("PTTL lock:a");
    assert!((20_000..=30_000).contains(&kept), "{kept} ms in the store, should the server die now");
    let named = json!({ "session": session["id"] });
    server.post("/sessions/heartbeat", named.clone()).await.ok();
    server.post("/sessions/end", named).await.ok();
    http_server::until("the key's end", || redis.ask::<i64>("EXISTS lock:a") == 0).await;
}

#[actix_rt::test]
async fn two_servers_over_one_redis_count_shares_and_permits_together() {
    let redis = kit::Server::start(&[]);
    let (one, other) = (over(&redis, Access::open()).await, over(&redis, Access::open()).await);
    let shared = json!({ "key": "a", "mode": "shared" });
    let first = one.post("/acquire", shared.clone()).await.ok();
    let second = other.post("/acquire", shared).await.ok();
    assert_ne!(first["fencing_token"], second["fencing_token"]);
    other.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(423, "held");
    let seen = one.get("/locks/a").await.ok();
    assert_eq!(seen["held_by"], 2, "{seen}");
    // The other's is told by its mode, fence and end; and a list of the store shows both servers the same.
    let holders = seen["holders"].as_array().unwrap();
    assert_eq!(holders[1]["fencing_token"], second["fencing_token"], "{seen}");
    assert!(holders[1]["remaining_ms"].is_u64() && holders[1]["ttl_ms"].is_null() && holders[0]["ttl_ms"].is_u64());
    let third = over(&redis, Access::open()).await;
    for server in [&one, &other, &third] {
        let listed = server.get("/locks?scope=store").await.ok()["locks"][0].clone();
        assert_eq!((text(&listed, "mode"), &listed["held_by"]), ("shared", &json!(2)), "{listed}");
        assert_eq!(listed["holder"]["fencing_token"], first["fencing_token"]);
    }
    // A share is released by either server, also by the one that has not granted it.
    for lock in [&first, &second] {
        one.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    }
    let permit = |permits: u32| json!({ "key": "b", "mode": "permit", "limit": 3, "permits": permits, "wait_ms": 0 });
    one.post("/acquire", permit(2)).await.ok();
    other.post("/acquire", permit(2)).await.problem(423, "held");
    other.post("/acquire", permit(1)).await.ok();
    let seen = third.get("/locks/b").await.ok();
    let permits: Vec<_> =
        seen["holders"].as_array().unwrap().iter().map(|one| (&one["limit"], &one["permits"])).collect();
    assert_eq!(permits, [(&json!(3), &json!(2)), (&json!(3), &json!(1))], "{seen}");
    assert_eq!((&seen["elsewhere"], &seen["held_by"]), (&json!(true), &json!(2)));
    let other_limit = json!({ "key": "b", "mode": "permit", "limit": 4, "wait_ms": 0 });
    let refused = third.post("/acquire", other_limit).await.problem(409, "wrong_mode");
    assert!(text(&refused, "detail").starts_with("1 of 4 permits are asked for"), "{refused}");
}

#[actix_rt::test]
async fn of_sessions_of_two_servers_that_wait_for_each_other_one_is_refused() {
    let redis = kit::Server::start(&[]);
    let servers = [over(&redis, Access::open()).await, over(&redis, Access::open()).await];
    let mut waits = Vec::new();
    let mut sessions = Vec::new();
    for (server, key) in servers.iter().zip(["a", "b"]) {
        let session = server.post("/sessions", json!({ "name": key, "ttl_ms": 120_000 })).await.ok()["id"].clone();
        server.post("/acquire", json!({ "key": key, "session": session })).await.ok();
        sessions.push(session);
    }
    for ((server, key), session) in servers.iter().zip(["b", "a"]).zip(&sessions) {
        waits.push(server.post_later("/acquire", json!({ "key": key, "session": session, "wait_ms": 60_000 })));
    }
    let (refused, at, rest) = futures::future::select_all(waits).await;
    let cycle = refused.unwrap().problem(409, "deadlock")["cycle"].clone();
    let own = if at == 0 { ["a b", "b a"] } else { ["b a", "a b"] };
    let told = cycle.as_array().unwrap().iter().map(|edge| format!("{} {}", text(edge, "owner"), text(edge, "key")));
    assert_eq!(told.collect::<Vec<_>>(), own);
    servers[at].post("/sessions/end", json!({ "session": sessions[at] })).await.ok();
    for granted in rest {
        granted.await.unwrap().ok();
    }
}

#[actix_rt::test]
async fn it_is_ready_while_the_store_answers() {
    let mut redis = kit::Server::start(&[]);
    let server = over(&redis, Access::open()).await;
    let ready = server.get("/readyz").await.ok();
    assert!(ready["store_ms"].is_f64(), "{ready}");
    redis.kill9();
    // The answer of a second ago may still be good enough.
    while server.get("/readyz").await.status == 200 {
        actix_rt::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.get("/readyz").await.problem(503, "store_unavailable");
    server.get("/healthz").await.ok();
    server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(503, "store_unavailable");
}

#[actix_rt::test]
async fn a_key_is_spelt_the_same_wherever_it_is_told() {
    let redis = kit::Server::start(&[]);
    let server = over(&redis, Access::open()).await;
    let mut events = server.events("/events").await;
    for (asked, told) in [("job:1", "job:1"), ("lock:job:2", "job:2")] {
        let lock = server.post("/acquire", json!({ "key": asked })).await.ok();
        assert_eq!(text(&lock, "key"), told);
        assert_eq!(redis.ask::<String>(&format!("GET lock:{told}")), text(&lock, "token"));
        assert_eq!(text(&events.next().await, "key"), told);
        for spelt in [told.to_owned(), format!("lock:{told}")] {
            server.post("/acquire", json!({ "key": spelt, "wait_ms": 0 })).await.problem(423, "held");
            assert_eq!(text(&server.get(&format!("/locks/{spelt}")).await.ok(), "key"), told);
            assert_eq!(text(&server.get(&format!("/stats?key={spelt}")).await.ok(), "key"), told);
        }
        let list = server.get(&format!("/locks?prefix={told}")).await.ok();
        assert_eq!((text(&list["locks"][0], "key"), &list["scope"]), (told, &json!("server")));
    }
    let hot = server.get("/stats").await.ok()["hot_keys"].clone();
    assert!(hot.as_array().unwrap().iter().all(|hot| text(hot, "key").starts_with("job:")), "{hot}");
    server.delete("/locks/lock:job:1").await.ok();
    let forced = events.next().await;
    assert_eq!((text(&forced, "kind"), text(&forced, "key")), ("forced", "job:1"));
}

#[actix_rt::test]
async fn a_list_of_the_store_shows_what_others_hold_and_claims_to_know_no_more_than_it_does() {
    let redis = kit::Server::start(&[]);
    let (server, other) = (over(&redis, Access::open()).await, over(&redis, Access::open()).await);
    server.post("/acquire", json!({ "key": "ours", "owner": "me" })).await.ok();
    for n in 0..30 {
        other.post("/acquire", json!({ "key": format!("theirs:{n}"), "ttl_ms": 60_000 })).await.ok();
    }
    redis.ask::<()>("SET lock:for-ever x");
    redis.ask::<()>("SET unrelated x");
    assert_eq!(server.get("/locks").await.ok()["locks"].as_array().unwrap().len(), 1);
    let (mut locks, mut cursor) = (std::collections::BTreeMap::new(), String::new());
    loop {
        let page = server.get(&format!("/locks?scope=store&limit=10{cursor}")).await.ok();
        assert_eq!(page["scope"], "store");
        for lock in page["locks"].as_array().unwrap() {
            locks.insert(text(lock, "key").to_owned(), lock.clone());
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(locks.len(), 32, "{:?}", locks.keys());
    let (ours, theirs) = (&locks["ours"], &locks["theirs:7"]);
    assert_eq!((text(&ours["holder"], "owner"), ours["elsewhere"].is_null()), ("me", true));
    assert_eq!(theirs["elsewhere"], true);
    assert!((1..=60_000).contains(&theirs["holder"]["remaining_ms"].as_u64().unwrap()), "{theirs}");
    let shown = server.get("/locks/theirs:7").await.ok();
    for holder in [&theirs["holder"], &shown["holder"], &shown["holders"][0]] {
        for unknown in ["owner", "age_ms", "since_unix_ms", "ttl_ms", "refresh_count"] {
            assert!(holder[unknown].is_null(), "{unknown}: {holder}");
        }
    }
    assert!(locks["for-ever"]["holder"]["remaining_ms"].is_null());
    let busy = server.post("/acquire", json!({ "key": "for-ever", "wait_ms": 0 })).await;
    assert_eq!(busy.headers["retry-after"], "3600", "it may be taken away all the same");
    assert!(busy.problem(423, "held")["holder"]["remaining_ms"].is_null());
    let free = server.get("/locks?key=free&missing=empty").await.ok();
    assert_eq!((&free["locks"], &free["scope"]), (&json!([]), &json!("server")));
    for bad in ["scope=all", "scope=store&sort=age", "scope=store&cursor=x", "key=a&scope=store"] {
        server.get(&format!("/locks?{bad}")).await.problem(400, "invalid_query");
    }
    server.get("/locks?scope=store&cursor=6162").await.problem(422, "invalid_option");
    assert_eq!(server.get("/locks?scope=store&prefix=our").await.ok()["locks"].as_array().unwrap().len(), 1);
}

#[actix_rt::test]
async fn however_many_probes_come_the_store_is_asked_once_a_second() {
    let redis = kit::Server::start(&[]);
    let server = over(&redis, Access::open()).await;
    let asked = || {
        let text = redis.ask::<String>("INFO stats");
        let line = text.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    let (before, began) = (asked(), std::time::Instant::now());
    for _ in 0..20 {
        let probes: Vec<_> =
            (0..20).map(|_| actix_rt::spawn(Answer::of(server.request(Method::GET, "/readyz")))).collect();
        for probe in probes {
            probe.await.unwrap().ok();
        }
    }
    let (count, seconds) = (asked() - before, began.elapsed().as_secs() + 1);
    assert!(count < 40 * seconds, "{count} commands in {seconds} s for 400 probes");
}

#[actix_rt::test]
async fn a_release_that_the_store_has_not_answered_is_not_said_to_be_done() {
    let redis = kit::Server::start(&[]);
    let server = over(&redis, Access::open()).await;
    let session = server.post("/sessions", json!({ "name": "w", "ttl_ms": 60_000 })).await.ok();
    let lock = server.post("/acquire", json!({ "key": "a" })).await.ok();
    server.post("/acquire", json!({ "key": "b", "session": session["id"] })).await.ok();
    redis.stop();
    server.post("/release", json!({ "key": "a", "token": lock["token"] })).await.problem(503, "store_unavailable");
    server.post("/sessions/end", json!({ "session": session["id"] })).await.problem(503, "store_unavailable");
    redis.cont();
    // What was asked for is done all the same, by the store itself.
    http_server::until("the end of both keys", || redis.ask::<i64>("EXISTS lock:a lock:b") == 0).await;
    let again = server.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    assert_eq!(text(&again, "outcome"), "already_gone");
}

#[actix_rt::test]
async fn prefixes_and_namespaces_mean_keys_as_clients_spell_them() {
    let redis = kit::Server::start(&[]);
    let list = json!([
        { "name": "operator", "token": SECRETS[0], "rights": ["acquire", "read", "force"] },
        { "name": "ci", "token": SECRETS[1], "rights": ["acquire", "read"], "namespaces": ["ci:", "lock:ci:x:", "lo-"] },
    ]);
    let server = over(&redis, Access::from_json(&list.to_string()).unwrap()).await;
    let post = |secret: &str, key: &str| {
        Answer::of(
            server.request(Method::POST, "/acquire").bearer_auth(secret).json(&json!({ "key": key, "wait_ms": 0 })),
        )
    };
    let get = |secret: &str, path: &str| Answer::of(server.request(Method::GET, path).bearer_auth(secret));
    let mut events = Listener::of(server.request(Method::GET, "/events?prefix=c").bearer_auth(SECRETS[1])).await;
    post(SECRETS[0], "prod").await.ok();
    post(SECRETS[0], "calm").await.ok();
    post(SECRETS[1], "ci:a").await.ok();
    post(SECRETS[1], "lock:ci:b").await.ok();
    // Two spellings of one name, and a name that only looks as if it were within.
    post(SECRETS[1], "lock:ci:a").await.problem(423, "held");
    for key in ["prod", "lock:prod", "l"] {
        post(SECRETS[1], key).await.problem(403, "forbidden");
    }
    let keys = async |secret: &str, path: &str| {
        let list = get(secret, path).await.ok();
        let keys: Vec<String> =
            list["locks"].as_array().unwrap().iter().map(|row: &Value| text(row, "key").to_owned()).collect();
        keys.join(" ")
    };
    assert_eq!(keys(SECRETS[0], "/locks").await, "calm ci:a ci:b prod");
    assert_eq!(keys(SECRETS[0], "/locks?prefix=c").await, "calm ci:a ci:b");
    assert_eq!(keys(SECRETS[0], "/locks?prefix=lock:c").await, "calm ci:a ci:b");
    assert_eq!(keys(SECRETS[1], "/locks").await, "ci:a ci:b");
    assert_eq!(text(&events.next().await, "key"), "ci:a");
    get(SECRETS[1], "/locks/ci:a").await.ok();
    get(SECRETS[1], "/locks/prod").await.problem(403, "forbidden");
}

/// A token that a client chose is one lock through every server: what one of them extends, no other ends or loses. It
/// did, at the end of the time that it knew of itself: two clients held the key.
#[actix_rt::test]
async fn a_token_taken_through_two_servers_is_one_lock_for_both() {
    let redis = kit::Server::start(&[]);
    for beats_through in [0, 1] {
        let servers = [over(&redis, Access::open()).await, over(&redis, Access::open()).await];
        let third = over(&redis, Access::open()).await;
        let token = leasehold::Token::random().to_string();
        let key = format!("k{beats_through}");
        let take = json!({ "key": key, "token": token, "ttl_ms": 1_500, "wait_ms": 0 });
        let beat = json!({ "key": key, "token": token });
        for server in &servers {
            server.post("/acquire", take.clone()).await.ok();
        }
        // Three lives of what the other server knew when it was asked.
        for _ in 0..18 {
            servers[beats_through].post("/heartbeat", beat.clone()).await.ok();
            third.post("/acquire", json!({ "key": key, "wait_ms": 0 })).await.problem(423, "held");
            actix_rt::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        servers[1 - beats_through].post("/heartbeat", beat.clone()).await.ok();
        // Released through one, it is over in both.
        servers[beats_through].post("/release", beat.clone()).await.ok();
        third.post("/acquire", json!({ "key": key, "wait_ms": 0 })).await.ok();
        servers[1 - beats_through].post("/heartbeat", beat.clone()).await.problem(409, "lost");
    }
}

/// And one for which nobody asks any more ends in its time, and the key with it.
/// It was answered `lost`, by which `leasehold run` ended its command.
#[actix_rt::test]
async fn a_server_that_ends_says_so_and_not_that_the_lock_is_lost() {
    let redis = kit::Server::start(&[]);
    let memory = Server::over(LockManager::builder().build().unwrap());
    for (server, is_memory) in [(over(&redis, Access::open()).await, false), (memory, true)] {
        let lock = server.post("/acquire", json!({ "key": "a" })).await.ok();
        server.locks.shutdown(std::time::Duration::ZERO).await;
        let mine = json!({ "key": "a", "token": lock["token"] });
        server.post("/heartbeat", mine.clone()).await.problem(503, "shutting_down");
        if !is_memory {
            server.post("/release", mine).await.problem(503, "shutting_down");
        }
    }
    assert_eq!(redis.ask::<i64>("EXISTS lock:a"), 1, "who holds it goes on");
}

#[actix_rt::test]
async fn a_heartbeat_through_a_server_that_has_not_granted_the_lock_reaches_the_store() {
    let redis = kit::Server::start(&[]);
    let (one, other) = (over(&redis, Access::open()).await, over(&redis, Access::open()).await);
    let lock = one.post("/acquire", json!({ "key": "a", "ttl_ms": 20_000 })).await.ok();
    let share = one.post("/acquire", json!({ "key": "s", "mode": "shared", "ttl_ms": 20_000 })).await.ok();
    drop(one);
    for lock in [&lock, &share] {
        let beat = json!({ "key": lock["key"], "token": lock["token"], "ttl_ms": 60_000 });
        let answer = other.post("/heartbeat", beat).await.ok();
        let left = answer["remaining_ms"].as_u64().unwrap();
        assert!((50_000..60_000).contains(&left), "{answer}");
    }
    assert!(redis.ask::<i64>("PTTL lock:a") > 50_000);
    // What is known nowhere, or has ended, is not revived.
    let stranger = json!({ "key": "a", "token": leasehold::Token::random().to_string() });
    other.post("/heartbeat", stranger).await.problem(409, "lost");
    other.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    other.post("/heartbeat", json!({ "key": "a", "token": lock["token"] })).await.problem(409, "lost");
    assert_eq!(redis.ask::<i64>("EXISTS lock:a"), 0);
}

#[actix_rt::test]
async fn a_token_taken_through_two_servers_ends_when_its_time_is_over() {
    let redis = kit::Server::start(&[]);
    let servers = [over(&redis, Access::open()).await, over(&redis, Access::open()).await];
    let token = leasehold::Token::random().to_string();
    for server in &servers {
        let take = json!({ "key": "k", "token": token, "ttl_ms": 400, "wait_ms": 0 });
        server.post("/acquire", take).await.ok();
    }
    servers[1].post("/acquire", json!({ "key": "k", "wait_ms": 20_000 })).await.ok();
    for server in &servers {
        server.post("/heartbeat", json!({ "key": "k", "token": token })).await.problem(409, "lost");
    }
}

#[actix_rt::test]
async fn the_server_says_how_its_store_is_and_where_only_to_those_of_all_keys() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let list = json!([
        { "name": "operator", "token": SECRETS[0], "rights": ["read"] },
        { "name": "ci", "token": SECRETS[1], "rights": ["read"], "namespaces": ["ci:"] },
    ]);
    let store = RedisStore::new(proxy.url().as_str()).unwrap();
    let locks = LockManager::builder().store(store).build_and_connect().await.unwrap();
    let server = Server::with_access(locks, Limits::new(), Access::from_json(&list.to_string()).unwrap());
    let ask = async |of: usize| Answer::of(server.request(Method::GET, "/server").bearer_auth(SECRETS[of])).await.ok();
    let well = ask(0).await;
    assert_eq!((text(&well, "status"), &well["why"], text(&well["store"], "kind")), ("ready", &json!(null), "redis"));
    assert_eq!(text(&well, "version"), env!("CARGO_PKG_VERSION"));
    let node = &well["store"]["nodes"][0];
    assert_eq!((text(node, "name"), text(node, "state")), (&*proxy.address().to_string(), "answers"), "{well}");
    assert!(node["answer_ms"].is_f64() && node["unchanged_ms"].is_u64() && node["votes"].is_null(), "{well}");
    let less = ask(1).await;
    assert_eq!((text(&less, "status"), &less["store"]["nodes"]), ("ready", &json!([])), "{less}");
    assert!(less["store"]["answer_ms"].is_f64() && !less.to_string().contains(&proxy.address().to_string()), "{less}");

    proxy.cut();
    let away = loop {
        let answer = ask(0).await;
        if answer["status"] == "store_unavailable" {
            break answer;
        }
        assert_eq!(answer["status"], "ready", "an answer is good for a second");
    };
    assert!(!text(&away, "why").is_empty() && away["store"]["answer_ms"].is_null(), "{away}");
    assert_eq!(text(&away["store"]["nodes"][0], "state"), "away", "{away}");
    let less = ask(1).await;
    assert_eq!(
        (text(&less, "status"), &less["why"]),
        ("store_unavailable", &json!(null)),
        "where it is, is not for all"
    );
    proxy.heal();
    while ask(1).await["status"] != "ready" {}
}
