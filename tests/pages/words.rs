//! Fear: the status page takes a name for markup, asks about another key than the one it shows, or hides who else holds
//! and waits.

use std::time::Duration;

use fantoccini::key::Key;
use leasehold::http::{Access, Limits};
use leasehold::{LockManager, readable};
use serde_json::json;

use crate::http_server::{self, Server};
use crate::page::{hold, open, open_live, shows, wait, was_quiet};

#[actix_rt::test]
async fn names_are_text_whatever_they_look_like() {
    let server = Server::start();
    let key = "<img src=x>&key=b#c%41+d?e/\u{202e}é 1";
    let _other = hold(&server.locks, "<img src=x>", "other").await;
    let _held = hold(&server.locks, key, "<b>bold</b>&amp;").await;
    let browser = open_live(server.address, "/").await;
    let row = format!("[...document.querySelectorAll('tr.lock')].find(row => row.dataset.key === {})", json!(key));
    browser.until(&row).await;
    browser.until(&format!("{row}.cells[2].innerText === '<b>bold</b>&amp;'")).await;
    let waiter = wait(&server.locks, key, "<i>third</i>");
    browser.value(&format!("{row}.querySelector('.open').click()")).await;
    browser.until("document.querySelector('.detail li')?.innerText.includes('<i>third</i>')").await;
    assert_eq!(browser.value("document.querySelectorAll('#rows :is(img, b, i)').length").await, 0);
    browser.click(".detail .danger").await;
    let asked = browser.value("document.getElementById('force-text').innerText").await;
    let asked = asked.as_str().unwrap();
    assert!(asked.contains("<b>bold</b>&amp;; one waits") && asked.contains(&*readable(key)), "{asked}");
    browser.click("#force .danger").await;
    let said = json!(format!("{} was released by force", readable(key)));
    browser.until(&format!("document.getElementById('said').textContent === {said}")).await;
    assert!(server.locks.is_locked("<img src=x>").await.unwrap(), "another key than the one that was meant");
    browser.until(&format!("{row}.cells[2].innerText === '<i>third</i>'")).await;
    waiter.abort();
    was_quiet(&browser, server.address).await;
}

/// Two keys that looked the same, also to whoever was asked which of them to release.
#[actix_rt::test]
async fn what_cannot_be_seen_in_a_name_is_written_out() {
    let server = Server::start();
    let keys = [
        "pay:1",
        "pay:1\u{200b}",
        " pay:1",
        "pay:1 ",
        "pay:\u{202e}1",
        "pay:1\u{301}",
        "pay:\u{3164}1",
        "pay:\u{a0}1",
        "pay:  1",
        "pay: 1",
        r"pay:\u{200b}1",
        "größe:鍵",
    ];
    for key in keys {
        let _ = hold(&server.locks, key, key).await.detach();
    }
    let browser = open_live(server.address, "/").await;
    browser.until(&format!("document.querySelectorAll('tr.lock').length === {}", keys.len())).await;
    let cells = "[...document.querySelectorAll('tr.lock')].map(row => [row.dataset.key, row.cells[0].innerText, row.cells[2].innerText])";
    for row in browser.value(cells).await.as_array().unwrap() {
        let shown = json!(readable(row[0].as_str().unwrap()));
        assert_eq!((&row[1], &row[2]), (&shown, &shown));
    }
}

/// It said that nothing was locked while another server held something.
#[cfg(feature = "redis")]
#[actix_rt::test]
async fn over_a_store_the_page_says_whose_locks_it_shows() {
    let redis = crate::kit::Server::start(&[]);
    let over = async || {
        let store = leasehold::store::redis::RedisStore::new(redis.url().as_str()).unwrap();
        LockManager::builder().store(store).build_and_connect().await.unwrap()
    };
    let (server, other) = (Server::over(over().await), over().await);
    let _theirs = hold(&other, "theirs", "other").await;
    let browser = open_live(server.address, "/").await;
    browser.until(&shows("No lock is held through this server. Others may hold some in the store.")).await;
    let _ours = hold(&server.locks, "lock:ours", "me").await;
    browser.until(&shows("all 1 held through this server")).await;
    browser.until("document.querySelector('tr.lock .open').innerText === 'ours'").await;
    browser.until("document.getElementById('held-sub').innerText === 'through this server'").await;
    // Of those who share a key all are shown, with what is known of each.
    let ttl = Duration::from_secs(60);
    let mine = server.locks.try_read("config").owner("me").ttl(ttl).await.unwrap();
    let theirs = other.try_read("config").owner("other").ttl(ttl).await.unwrap();
    browser.until("document.querySelector('tr.lock[data-key=config]') !== null").await;
    browser.click("tr.lock[data-key=config] .open").await;
    browser.until(&shows("Held by 2")).await;
    let holders = browser.value("[...document.querySelectorAll('.detail li')].map(li => li.innerText)").await;
    let fence = |lock: &leasehold::Lock| lock.fencing_token().unwrap().to_string();
    for (line, who, fence) in [(0, "me", fence(&mine)), (1, "another process", fence(&theirs))] {
        let line = holders[line].as_str().unwrap();
        assert!([who, "shared", &fence].iter().all(|part| line.contains(part)), "{line:?}");
    }
}

#[actix_rt::test]
async fn all_who_hold_and_all_who_wait_are_counted() {
    let server = Server::start();
    let locks: &LockManager = &server.locks;
    let ttl = Duration::from_secs(60);
    let mut held = Vec::new();
    for owner in ["api-1", "api-2", "api-3"] {
        held.push(locks.try_read("config").owner(owner).ttl(ttl).await.unwrap());
    }
    for (owner, permits) in [("mailer-1", 3), ("mailer-2", 2)] {
        let pool = locks.semaphore("pool", 10);
        held.push(pool.try_permits(permits).owner(owner).ttl(ttl).await.unwrap());
    }
    let browser = open_live(server.address, "/").await;
    let cells = |key: &str| {
        format!("[...document.querySelectorAll('tr.lock[data-key={key}] td')].map(td => td.innerText).join('|')")
    };
    browser.until(&format!("{}.includes('|shared|api-1 and 2 more|')", cells("config"))).await;
    browser.until(&format!("{}.includes('|permit 3/10|mailer-1 and 1 more|')", cells("pool"))).await;
    browser.click("tr.lock[data-key=config] .open").await;
    browser.until(&shows("Held by 3")).await;
    let holders = browser.value("[...document.querySelectorAll('.detail li')].map(li => li.innerText)").await;
    let holders: Vec<_> = holders.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(holders.len() == 3 && holders[2].contains("api-3") && holders[2].contains("shared"), "{holders:?}");

    // The bar goes down between the readings, too.
    let bar = "document.querySelector('tr.lock[data-key=pool] .fill').style.transform.match(/[\\d.]+/)[0]";
    browser.until(&format!("Number({bar}) < 0.97 && Number({bar}) > 0.1")).await;

    let waiters: Vec<_> = (0..103).map(|_| wait(locks, "config", "writer")).collect();
    browser.until(&shows("The first 100 of 103 in the queue")).await;
    let queue = "document.querySelectorAll('.detail li').length";
    browser.until(&format!("{queue} === 3 + 100")).await;
    browser.until(&format!("{}.endsWith('|103')", cells("config"))).await;
    waiters.iter().for_each(|waiter| waiter.abort());
    browser.until(&shows("Nobody waits")).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn an_event_alone_brings_a_lock_to_the_page() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    browser.until(&shows("No lock is held")).await;
    // For the page time stands still: nothing is read because it is old.
    browser.value("(now => performance.now = () => now)(performance.now())").await;
    let _held = hold(&server.locks, "order:42", "worker-7").await;
    browser.until(&shows("order:42")).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn a_release_by_force_that_comes_too_late_says_so() {
    let server = Server::start();
    let lock = hold(&server.locks, "order:42", "worker-7").await;
    let browser = open_live(server.address, "/").await;
    browser.until("document.querySelector('tr.lock')").await;
    browser.click("tr.lock .open").await;
    browser.until("document.querySelector('.detail .danger')").await;
    browser.click(".detail .danger").await;
    browser.until("document.getElementById('force').open").await;
    drop(lock);
    http_server::until("the end of the lock", || server.locks.stats().active == 0).await;
    browser.click("#force .danger").await;
    browser
        .until("document.getElementById('said').textContent === 'order:42 was not released: nobody holds this key'")
        .await;
    browser.until(&shows("order:42 is free now")).await;
    assert_eq!(server.locks.stats().forced, 0);
}

#[actix_rt::test]
async fn a_token_that_may_not_read_is_told_so() {
    const SECRET: &str = "writer-0123456789";
    let list = json!([{ "name": "writer", "token": SECRET, "rights": ["acquire"] }]);
    let access = Access::from_json(&list.to_string()).unwrap();
    let server = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access);
    let browser = open(server.address, "/").await;
    browser.until("document.activeElement.id === 'token'").await;
    browser.type_in(SECRET).await;
    browser.press(Key::Enter).await;
    browser.until(&shows("This token does not have the right to read.")).await;
    assert_eq!(browser.value("sessionStorage.length").await, 0, "it is not kept");
}
