//! Fear: the charts of the last ten minutes show what was not so, or what somebody else did.

use leasehold::LockManager;
use leasehold::http::{Access, Limits};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{Answer, Server, number, until};

const ALL: &str = "all-of-it-0123456789";
const SOME: &str = "some-of-it-0123456789";
const ACQUIRER: &str = "acquirer-0123456789";

fn access() -> Access {
    let list = json!([
        { "name": "all", "token": ALL, "rights": ["read"] },
        { "name": "some", "token": SOME, "rights": ["read"], "namespaces": ["ci:", "shared/"] },
        { "name": "acquirer", "token": ACQUIRER, "rights": ["acquire"] },
    ]);
    Access::from_json(&list.to_string()).unwrap()
}

async fn get(server: &Server, token: &str) -> Answer {
    Answer::of(server.request(Method::GET, "/history").bearer_auth(token)).await
}

/// All that one of the lists counts.
fn sum(history: &Value, list: &str) -> u64 {
    history[list].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).sum()
}

/// The first step is over: what is done now is in a later one.
async fn begun(locks: &LockManager) {
    until("a step", || !locks.history_within(&[""]).unwrap().steps.is_empty()).await;
}

async fn taken(locks: &LockManager, granted: u64) {
    let all = || locks.history_within(&[""]).unwrap().steps.iter().map(|step| step.granted).sum::<u64>();
    until("the step of what was done", || all() == granted).await;
}

#[actix_rt::test]
async fn it_begins_with_the_first_look_and_has_a_list_for_each_thing_counted() {
    let server = Server::start();
    let before = server.get("/history").await.ok();
    assert_eq!(before["granted"], json!([]), "nobody had asked for it to be kept");
    assert_eq!((number(&before, "every_ms"), number(&before, "keeps"), number(&before, "age_ms")), (2000, 300, 0));
    begun(&server.locks).await;
    let one = server.locks.try_lock("a").await.unwrap();
    assert!(server.locks.try_lock("a").await.is_err());
    drop(one);
    taken(&server.locks, 1).await;
    let history = server.get("/history").await.ok();
    for (list, count) in [("granted", 1), ("ended", 1), ("attempts", 2), ("contended", 1), ("handoffs", 0)] {
        assert_eq!(sum(&history, list), count, "{list}");
    }
    let steps = history["length_ms"].as_array().unwrap();
    assert!(steps.iter().all(|length| length.as_u64() >= Some(1990)), "{history}");
    for list in ["granted", "ended", "attempts", "contended", "handoffs", "waited_ms"] {
        assert_eq!(history[list].as_array().unwrap().len(), steps.len(), "{list}");
    }
}

#[actix_rt::test]
async fn a_token_sees_what_happened_to_its_own_keys() {
    let locks = LockManager::builder().namespaces(access().namespaces()).build().unwrap();
    locks.keep_history();
    let server = Server::with_access(locks, Limits::new(), access());
    begun(&server.locks).await;
    for key in ["ci:a", "prod", "ci:b", "shared/x", "a"] {
        server.locks.try_lock(key).await.unwrap().unlock().await;
    }
    taken(&server.locks, 5).await;
    let granted = async |token: &str| sum(&get(&server, token).await.ok(), "granted");
    assert_eq!((granted(ALL).await, granted(SOME).await), (5, 3));
    get(&server, ACQUIRER).await.problem(403, "forbidden");

    let uncounted = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access());
    get(&uncounted, ALL).await.ok();
    get(&uncounted, SOME).await.problem(403, "forbidden");
    let open = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access().open_stats());
    open.get("/history").await.ok();
}
