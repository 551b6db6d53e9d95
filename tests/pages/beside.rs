//! Fear: what stands beside the table (hot keys, sessions, events, what server it is) is not so, is somebody else's, or
//! shows a name as something that it is not.

use std::time::Duration;

use fantoccini::key::Key;
use leasehold::http::{Access, Limits};
use leasehold::{Account, LockManager, readable};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::http_server::{self, Server};
use crate::page::{LIVE, hold, note, open, open_live, shows, wait, was_quiet};

const ALL: &str = "operator-0123456789";
const SOME: &str = "reader-0123456789";

/// Turns the direction of writing, and cannot be seen.
const DISGUISED: &str = "pay:\u{202e}1\u{200b}";

async fn lines(browser: &Browser, list: &str) -> Vec<String> {
    let lines = browser.value(&format!("[...document.querySelectorAll('#{list} > li')].map(li => li.innerText)")).await;
    lines.as_array().unwrap().iter().map(|line| line.as_str().unwrap().replace('\n', " ")).collect()
}

fn line(list: &str, text: &str) -> String {
    let text = json!(text);
    format!("[...document.querySelectorAll('#{list} > li')].some(li => li.innerText.includes({text}))")
}

#[actix_rt::test]
async fn hot_keys_are_named_the_worst_first_and_lead_to_their_queues() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    browser.until("document.getElementById('hot-note').textContent.startsWith('Nobody has had to wait')").await;
    let _locks = [hold(&server.locks, "calm", "a").await, hold(&server.locks, "warm", "b").await];
    let _hot = hold(&server.locks, DISGUISED, "c").await;
    for (key, times) in [(DISGUISED, 7), ("warm", 3)] {
        for _ in 0..times {
            assert!(server.locks.try_lock(key).await.is_err());
        }
    }
    browser.until(&line("hot", "7")).await;
    let rows = lines(&browser, "hot").await;
    assert_eq!(rows, [format!("{} 7", readable(DISGUISED)), "warm 3".to_owned()]);
    browser.click("#hot .link").await;
    browser.until("document.querySelector('.facts')").await;
    browser.until(&shows("Nobody waits")).await;
    let opened = browser.value("document.querySelector('tr.lock.open').dataset.key").await;
    assert_eq!(opened, DISGUISED, "the key that it is, not the one that is shown");
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn sessions_are_shown_with_what_they_hold_and_wait_for_until_they_end() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    browser.until("document.getElementById('sessions-note').textContent === 'None is open.'").await;
    let (one, two) = (server.locks.session("worker-7"), server.locks.session("w\u{202e}\u{200b}"));
    [&one, &two].into_iter().for_each(|session| session.register().unwrap());
    let _held = [one.lock("a").await.unwrap(), one.lock("b").await.unwrap(), two.lock("c").await.unwrap()];
    let waiting = two.clone();
    let waiter = actix_rt::spawn(async move { waiting.lock("a").wait_forever().await.map(drop) });
    http_server::until("a waiter", || server.waiting() == 1).await;
    browser.until(&line("sessions", "waits for 1")).await;
    let rows = lines(&browser, "sessions").await;
    assert!(
        rows[0].starts_with(&*readable("w\u{202e}\u{200b}")) && rows[0].contains("1 lock, waits for 1"),
        "{rows:?}"
    );
    assert!(rows[1].starts_with("worker-7") && rows[1].contains("2 locks") && rows[1].contains("s left"), "{rows:?}");
    let source = browser.page.source().await.unwrap();
    assert!(!source.contains(&one.id().to_string()), "whoever has the id may end the session");
    waiter.abort();
    one.end().await;
    browser.until(&format!("!{}", line("sessions", "worker-7"))).await;
    browser.until("document.getElementById('sessions-note').textContent === '1 open'").await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn events_are_shown_the_newest_first_and_stand_still_while_they_are_paused() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    let lock = hold(&server.locks, DISGUISED, "w\u{202e}1").await;
    browser.until(&line("events", "granted")).await;
    let rows = lines(&browser, "events").await;
    let named = format!("granted {} to {}, exclusive, for 5 m 00 s", readable(DISGUISED), readable("w\u{202e}1"));
    assert!(rows.len() == 1 && rows[0].ends_with(&named), "{rows:?}");
    drop(lock);
    browser.until(&line("events", "released")).await;
    let _other = hold(&server.locks, "b", "x").await;
    server.locks.force_release("b").await.unwrap();
    browser.until("document.querySelectorAll('#events > li').length === 4").await;
    let kinds = browser.value("[...document.querySelectorAll('#events .kind')].map(kind => kind.textContent)").await;
    assert_eq!(kinds, json!(["forced", "granted", "released", "granted"]));
    let trouble = browser.value("document.querySelectorAll('#events .trouble').length").await;
    assert_eq!(trouble, 1, "what nobody who had a lock asked for");

    browser.click("#pause").await;
    let _third = hold(&server.locks, "c", "y").await;
    browser.until("document.getElementById('events-note').textContent === 'Paused; 1 new'").await;
    assert_eq!(browser.value(&line("events", "to y")).await, false);
    assert_eq!(browser.value("document.getElementById('pause').ariaPressed").await, "true");
    browser.click("#pause").await;
    browser.until(&line("events", "to y")).await;
    // And no more of them than anybody reads.
    for number in 0..200 {
        drop(hold(&server.locks, &format!("k{number}"), "z").await);
        actix_rt::time::sleep(Duration::from_millis(10)).await;
    }
    browser.until("/; \\d+ more came than are told$/.test(document.getElementById('events-note').textContent)").await;
    browser.until("document.querySelectorAll('#events > li').length === 15").await;
    // Nobody wants to hear them all.
    let live =
        browser.value("document.getElementById('events').closest('[aria-live], [role=log], [role=status]')").await;
    assert_eq!(live, Value::Null);
    was_quiet(&browser, server.address).await;
}

/// The facts of the server, by their names.
async fn facts(browser: &Browser) -> Value {
    let facts = "Object.fromEntries([...document.querySelectorAll('#server > div')].map(div => \
        [div.firstChild.textContent, div.lastChild.textContent]))";
    browser.value(facts).await
}

#[actix_rt::test]
async fn the_page_says_what_server_it_is_and_who_looks() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    browser.until("document.querySelector('#server > div')").await;
    let facts = facts(&browser).await;
    let version = facts["Version"].as_str().unwrap();
    assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{facts}");
    assert!(facts["Up"].as_str().unwrap().ends_with('s'), "{facts}");
    assert_eq!((&facts["Status"], &facts["Keys"]), (&json!("ready"), &json!("all")));
    assert_eq!(facts["Store"], "memory, within this process");
    assert_eq!(facts["May"], "acquire, read, force");
    assert_eq!(browser.value("document.getElementById('nodes').hidden").await, true);
}

fn access() -> Access {
    let list = json!([
        { "name": "operator", "token": ALL, "rights": ["read", "acquire"] },
        { "name": "reader", "token": SOME, "rights": ["read"], "namespaces": ["order:"] },
    ]);
    Access::from_json(&list.to_string()).unwrap()
}

#[actix_rt::test]
async fn a_token_of_some_keys_sees_nothing_of_the_others_beside_the_table() {
    let locks = LockManager::builder().namespaces(access().namespaces()).build().unwrap();
    let server = Server::with_access(locks, Limits::new(), access());
    server.locks.session("secret-session").register_for(&Account::new("operator")).unwrap();
    server.locks.session("own-session").register_for(&Account::new("reader")).unwrap();
    let browser = open(server.address, "/").await;
    browser.until("document.activeElement.id === 'token'").await;
    browser.type_in(SOME).await;
    browser.press(Key::Enter).await;
    browser.until(LIVE).await;
    for key in ["secret:1", "order:1"] {
        let _held = hold(&server.locks, key, key).await;
        assert!(server.locks.try_lock(key).await.is_err());
    }
    browser.until(&line("hot", "order:1")).await;
    browser.until(&line("sessions", "own-session")).await;
    browser.until(&line("events", "order:1")).await;
    let facts = facts(&browser).await;
    assert_eq!((&facts["You"], &facts["Keys"]), (&json!("reader"), &json!("order:…")), "{facts}");
    assert!(!browser.page.source().await.unwrap().contains("secret"));
    was_quiet(&browser, server.address).await;
    browser.click("#sign-out").await;
    browser.until("!document.getElementById('sign-in').hidden").await;
    let source = browser.page.source().await.unwrap();
    assert!(!source.contains("order:1") && !source.contains("own-session"), "it stays when its reader has gone");
}

#[actix_rt::test]
async fn a_page_that_is_open_asks_for_little() {
    let server = Server::start();
    let _lock = hold(&server.locks, "order:42", "worker-7").await;
    let session = server.locks.session("worker-7");
    session.register().unwrap();
    let browser = open_live(server.address, "/").await;
    browser.until(&line("sessions", "worker-7")).await;
    browser.requests().await;
    // Nothing happens: what is asked for is by the clock alone.
    actix_rt::time::sleep(Duration::from_secs(9)).await;
    let asked = browser.requests().await;
    let count = |path: &str| asked.iter().filter(|url| url.contains(path)).count();
    assert!((2..=5).contains(&count("/stats")) && count("/server") <= 5, "{asked:?}");
    assert!(count("/locks") + count("/sessions") <= 5 && count("/history") == 0, "{asked:?}");
}

/// That the reader of a screen hears of trouble once, and of nothing that goes on.
#[actix_rt::test]
async fn trouble_is_read_out_once() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    note(&browser, "#said").await;
    let _held = hold(&server.locks, "order:42", "worker-7").await;
    let waiter = wait(&server.locks, "order:42", "patient");
    browser.until("document.getElementById('attention').innerText.includes('has kept its oldest waiter for 7')").await;
    assert_eq!(browser.value("told").await, json!(["One thing needs attention"]));
    waiter.abort();
    was_quiet(&browser, server.address).await;
}

#[cfg(all(feature = "redis", feature = "test-util"))]
mod over_a_quorum {
    use leasehold::store::redlock::RedlockStore;

    use super::*;
    use crate::kit;

    #[actix_rt::test]
    async fn each_server_of_the_store_is_shown_with_its_votes_and_whether_it_is_trusted_yet() {
        let mut nodes: Vec<kit::Server> = (0..3).map(|_| kit::Server::start(&[])).collect();
        let urls: Vec<String> = nodes.iter().map(kit::Server::url).collect();
        let max_ttl = Duration::from_secs(6);
        let store = RedlockStore::builder(urls).max_ttl(max_ttl).build().unwrap();
        let locks =
            LockManager::builder().store(store).ttl(max_ttl).max_ttl(max_ttl).build_and_connect().await.unwrap();
        let server = Server::over(locks);
        let browser = open_live(server.address, "/").await;
        // They were started just now: they may have forgotten locks.
        browser.until(&line("nodes", "not trusted yet")).await;
        assert_eq!(lines(&browser, "nodes").await.len(), 3);
        let all = |text: &str| {
            format!("[...document.querySelectorAll('#nodes > li')].every(li => li.innerText.includes({}))", json!(text))
        };
        browser.until(&all("answers in")).await;
        let lock = server.locks.lock("order:42").await.unwrap();
        browser.until(&line("nodes", "Votes: gave 1")).await;
        drop(lock);
        let (away, address) = (nodes.remove(0), nodes.len());
        let name = away.address().to_string();
        drop(away);
        browser.until(&line("nodes", "away")).await;
        let rows = lines(&browser, "nodes").await;
        let of =
            |name: &str| rows.iter().find(|row| row.starts_with(name)).unwrap_or_else(|| panic!("{name}: {rows:?}"));
        assert!(of(&name).contains("away, for"), "{rows:?}");
        let told = json!(format!("{name}, a server of the store, is away, for "));
        browser.until(&format!("document.getElementById('attention').innerText.includes({told})")).await;
        assert_eq!(rows.iter().filter(|row| row.contains("answers in")).count(), address, "{rows:?}");
        browser.until("document.getElementById('store').textContent.endsWith('s')").await;
    }
}
