//! The status page in a browser, and what happens behind it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use leasehold::{Lock, LockManager};
use serde_json::{Value, json};

use super::browser::Browser;

pub(crate) async fn hold(locks: &LockManager, key: &str, owner: &str) -> Lock {
    locks.try_lock(key).owner(owner).ttl(Duration::from_secs(300)).await.unwrap()
}

/// Somebody who waits, and goes away with the handle.
pub(crate) fn wait(locks: &LockManager, key: &'static str, owner: &'static str) -> actix_rt::task::JoinHandle<()> {
    let locks = locks.clone();
    actix_rt::spawn(async move {
        let lock = locks.lock(key).owner(owner).wait_forever().await.unwrap();
        drop(lock.detach());
    })
}

pub(crate) async fn open(address: SocketAddr, path: &str) -> Browser {
    let browser = Browser::start().await;
    browser.page.goto(&format!("http://{address}{path}")).await.unwrap();
    browser
}

pub(crate) async fn open_live(address: SocketAddr, path: &str) -> Browser {
    let browser = open(address, path).await;
    browser.until(LIVE).await;
    browser
}

pub(crate) const LIVE: &str = "document.getElementById('live').dataset.state === 'live'";

pub(crate) fn shows(text: &str) -> String {
    format!("document.querySelector('main:not([hidden])').innerText.includes({})", json!(text))
}

/// Keeps in `told` whatever an element says from now on, so that what is said for a moment only is not missed.
pub(crate) async fn note(browser: &Browser, selector: &str) {
    let element = format!("document.querySelector({})", json!(selector));
    let what = "{ attributes: true, childList: true, characterData: true, subtree: true }";
    let script = format!(
        "[window.told = [], new MutationObserver(() => told.push({element}.getAttribute('aria-label') ?? \
         {element}.textContent)).observe({element}, {what})]"
    );
    browser.value(&script).await;
}

/// Nothing was logged, and nobody else was asked.
pub(crate) async fn was_quiet(browser: &Browser, address: SocketAddr) {
    let log = browser.log("browser").await;
    assert!(log.is_empty(), "{log:?}");
    let asked = browser.requests().await;
    assert!(!asked.is_empty(), "nothing was recorded");
    for url in asked {
        assert!(url.starts_with(&format!("http://{address}/")), "{url}");
    }
}

/// What an expression of the page's own modules answers.
pub(crate) async fn of_module(browser: &Browser, file: &str, body: &str) -> Value {
    let script = format!(
        "const done = arguments[arguments.length - 1]; \
         import(new URL('page/{file}', document.baseURI)).then((module) => {{ {body} }}).then(done, (e) => done(String(e)))"
    );
    browser.page.execute_async(&script, vec![]).await.unwrap()
}
