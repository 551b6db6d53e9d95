//! Fear: the status page shows what is not so, is silent when it knows nothing, lets the wrong one force, or talks to
//! somebody else.

use std::net::SocketAddr;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use fantoccini::key::Key;
use leasehold::http::{Access, Limits, configure};
use leasehold::{Lock, LockManager, Session};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::http_server::{self, Server};
use crate::page::{LIVE, hold, note, open, open_live, shows, wait, was_quiet};

const MAY_FORCE: &str = "operator-0123456789";
const MAY_READ: &str = "reader-0123456789";

fn access() -> Access {
    let list = json!([
        { "name": "operator", "token": MAY_FORCE, "rights": ["read", "force"] },
        { "name": "reader", "token": MAY_READ, "rights": ["read"], "namespaces": ["order:"] },
    ]);
    Access::from_json(&list.to_string()).unwrap()
}

fn guarded() -> Server {
    let locks = LockManager::builder().namespaces(access().namespaces()).build().unwrap();
    Server::with_access(locks, Limits::new(), access())
}

fn manager() -> LockManager {
    LockManager::builder().build().unwrap()
}

async fn sign_in(browser: &Browser, secret: &str) {
    browser.until("document.activeElement.id === 'token'").await;
    browser.type_in(secret).await;
    browser.press(Key::Enter).await;
    browser.until(LIVE).await;
}

#[actix_rt::test]
async fn locks_come_and_go_on_the_page_by_themselves_and_a_row_opens_its_queue() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    browser.until(&shows("No lock is held")).await;
    browser.picture("empty").await;
    let lock = hold(&server.locks, "order:42", "worker-7").await;
    browser.until("document.querySelector('tr.lock')?.innerText.includes('worker-7')").await;
    browser.click("tr.lock .open").await;
    browser.until(&shows("Nobody waits")).await;
    let waiters = [wait(&server.locks, "order:42", "worker-8"), wait(&server.locks, "order:42", "worker-9")];
    browser.until("[...document.querySelectorAll('.detail li')].length === 2").await;
    let queue = browser.value("[...document.querySelectorAll('.detail li')].map(li => li.innerText)").await;
    let rows: Vec<&str> = queue.as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert!(rows[0].starts_with("1.") && rows[0].contains("worker-8"), "{rows:?}");
    assert!(rows[1].starts_with("2.") && rows[1].contains("worker-9"), "{rows:?}");
    let fence = lock.fencing_token().unwrap().to_string();
    browser.until(&shows(&fence)).await;
    let token = lock.token().to_string();
    assert!(!browser.page.source().await.unwrap().contains(&token), "a token is nobody's to see");
    drop(lock);
    browser.until("document.querySelector('tr.lock')?.innerText.includes('worker-8')").await;
    for waiter in waiters {
        waiter.abort();
    }
    server.locks.force_release("order:42").await.unwrap();
    server.locks.force_release("order:42").await.unwrap();
    browser.until(&shows("order:42 is free now")).await;
    browser.press(Key::Escape).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn a_token_that_may_force_releases_after_a_question_and_a_no_releases_nothing() {
    let server = guarded();
    let _lock = hold(&server.locks, "order:42", "worker-7").await;
    let browser = open(server.address, "/").await;
    sign_in(&browser, MAY_FORCE).await;
    browser.until(&shows("worker-7")).await;
    browser.click("tr.lock .open").await;
    let button = "document.querySelector('.detail .danger')";
    browser.until(button).await;
    browser.click(".detail .danger").await;
    browser.until("document.getElementById('force').open").await;
    browser.picture("force").await;
    let focused = browser.value("document.activeElement.value").await;
    assert_eq!(focused, "no", "a hasty Enter releases nothing");
    browser.press(Key::Enter).await;
    browser.until("!document.getElementById('force').open").await;
    assert!(server.locks.is_locked("order:42").await.unwrap());
    browser.click(".detail .danger").await;
    browser.press(Key::Escape).await;
    browser.until("!document.getElementById('force').open").await;
    assert!(server.locks.is_locked("order:42").await.unwrap());
    browser.click(".detail .danger").await;
    browser.click("#force .danger").await;
    browser.until("document.getElementById('said').textContent === 'order:42 was released by force'").await;
    assert!(!server.locks.is_locked("order:42").await.unwrap());
    assert_eq!(server.locks.stats().forced, 1);
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn a_token_that_may_only_read_sees_its_keys_and_no_button() {
    let server = guarded();
    let _locks = [hold(&server.locks, "order:42", "a").await, hold(&server.locks, "secret:1", "b").await];
    let browser = open(server.address, "/").await;
    sign_in(&browser, MAY_READ).await;
    browser.until("document.getElementById('who').textContent.includes('reader')").await;
    browser.until("document.querySelector('tr.lock')").await;
    browser.click("tr.lock .open").await;
    browser.until(&shows("Nobody waits")).await;
    assert_eq!(browser.value("document.querySelectorAll('.danger:not(dialog *)').length").await, 0);
    assert!(!browser.page.source().await.unwrap().contains("secret:1"));
    was_quiet(&browser, server.address).await;
    // It stays in the tab, and nowhere else.
    assert_eq!(browser.value("localStorage.length + document.cookie.length").await, 0);
    browser.page.refresh().await.unwrap();
    browser.until(LIVE).await;
    browser.click("#sign-out").await;
    browser.until("!document.getElementById('sign-in').hidden && sessionStorage.length === 0").await;
    assert!(!browser.page.source().await.unwrap().contains("order:42"));
}

#[actix_rt::test]
async fn a_wrong_token_is_refused_in_words() {
    let server = guarded();
    let browser = open(server.address, "/").await;
    browser.until("document.activeElement.id === 'token'").await;
    browser.picture("sign-in").await;
    browser.type_in("guess-0123456789").await;
    browser.press(Key::Enter).await;
    browser.until(&shows("The server does not know this token.")).await;
    assert_eq!(browser.value("sessionStorage.length").await, 0);
}

/// A server that can end and come again at the same address.
fn serve(locks: &LockManager, address: (&str, u16)) -> (SocketAddr, ServerHandle) {
    serve_guarded(locks, address, Access::open())
}

fn serve_guarded(locks: &LockManager, address: (&str, u16), access: Access) -> (SocketAddr, ServerHandle) {
    let locks = locks.clone();
    let app = move || App::new().app_data(locks.clone()).app_data(access.clone()).configure(configure);
    let server = HttpServer::new(app).workers(1).h1_allow_half_closed(false).disable_signals().bind(address).unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    (address, handle)
}

#[actix_rt::test]
async fn a_broken_stream_is_told_and_mends_itself() {
    let locks = manager();
    let _lock = hold(&locks, "order:42", "worker-7").await;
    let (address, handle) = serve(&locks, ("127.0.0.1", 0));
    let browser = open_live(address, "/").await;
    browser.until(&shows("worker-7")).await;
    was_quiet(&browser, address).await;
    note(&browser, "#banner").await;
    handle.stop(false).await;
    browser.until("document.getElementById('live').dataset.state === 'broken'").await;
    browser.until("document.getElementById('banner').innerText.includes('What you see was read at')").await;
    // It asks less and less often.
    for pause in [1, 2, 4] {
        browser.until(&format!("told.some(text => text.includes('again in {pause} s'))")).await;
    }
    browser.picture("broken").await;
    let _other = hold(&locks, "order:43", "worker-8").await;
    let (_, handle) = serve(&locks, ("127.0.0.1", address.port()));
    browser.until(LIVE).await;
    browser.until("document.getElementById('banner').hidden").await;
    browser.until(&shows("worker-8")).await;
    let asked = browser.requests().await;
    assert!(asked.iter().any(|url| url.ends_with("/history")), "what happened meanwhile: {asked:?}");
    handle.stop(false).await;
}

#[actix_rt::test]
async fn a_server_that_comes_back_with_tokens_asks_for_one() {
    let locks = manager();
    let _lock = hold(&locks, "order:42", "worker-7").await;
    let (address, handle) = serve(&locks, ("127.0.0.1", 0));
    let browser = open_live(address, "/").await;
    browser.until(&shows("worker-7")).await;
    handle.stop(false).await;
    browser.until("document.getElementById('live').dataset.state === 'broken'").await;
    let (_, handle) = serve_guarded(&locks, ("127.0.0.1", address.port()), access());
    browser.until(&shows("The server no longer knows this token.")).await;
    assert!(!browser.page.source().await.unwrap().contains("worker-7"));
    sign_in(&browser, MAY_READ).await;
    browser.until(&shows("worker-7")).await;
    handle.stop(false).await;
}

#[actix_rt::test]
async fn a_hidden_tab_rests() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    assert_eq!(server.locks.listeners(), 1);
    // What a browser does when another tab is shown.
    let hide = |hidden: bool| {
        format!(
            "[Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}), \
             document.dispatchEvent(new Event('visibilitychange'))]"
        )
    };
    browser.value(&hide(true)).await;
    http_server::until("nobody listens", || {
        // A listener that has gone is noticed by the next event.
        server.locks.try_lock_now("poke").map(drop).unwrap();
        server.locks.listeners() == 0
    })
    .await;
    browser.requests().await;
    actix_rt::time::sleep(Duration::from_millis(100)).await;
    browser.until("document.getElementById('live').innerText === 'Resting'").await;
    browser.value(&hide(false)).await;
    browser.until(LIVE).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn among_ten_thousand_locks_the_server_sorts_filters_and_limits() {
    let server = Server::start();
    let mut held = Vec::new();
    for number in 0..10_000 {
        let owner = format!("worker-{}", number % 97);
        held.push(hold(&server.locks, &format!("order:{number:05}"), &owner).await);
    }
    let waiter = wait(&server.locks, "order:07777", "patient");
    http_server::until("a waiter", || server.waiting() == 1).await;
    let browser = open_live(server.address, "/").await;
    let keys = "[...document.querySelectorAll('tr.lock .open')].map(b => b.textContent)";
    browser.until(&format!("{keys}.length === 100")).await;
    browser.until(&shows("the first 100; there are more")).await;
    browser.until("document.getElementById('held').textContent === '10,000'").await;
    browser.picture("many").await;
    let first = |key: &str| format!("{keys}[0] === {}", json!(key));
    browser.until(&first("order:00000")).await;
    browser.click("[data-sort=waiting]").await;
    browser.until(&first("order:07777")).await;
    let sorted = browser.value("document.querySelector('[data-sort=waiting]').closest('th').ariaSort").await;
    assert_eq!(sorted, "descending");
    browser.click("[data-sort=key]").await;
    browser.click("[data-sort=key]").await;
    browser.until(&first("order:09999")).await;
    browser.press(Key::Tab).await;
    browser.value("document.activeElement.blur()").await;
    browser.page.find(fantoccini::Locator::Css("body")).await.unwrap().send_keys("/").await.unwrap();
    browser.type_in("order:0123").await;
    browser.until(&format!("{keys}.length === 10 && {keys}.every(key => key.startsWith('order:0123'))")).await;
    browser.value("document.getElementById('filter').value = ''").await;
    browser.click("#limit option:last-child").await;
    browser.until(&format!("{keys}.length === 1000")).await;
    waiter.abort();
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn the_keyboard_alone_is_enough() {
    let server = Server::start();
    let mut held = vec![hold(&server.locks, "a", "x").await, hold(&server.locks, "b", "y").await];
    let browser = open_live(server.address, "/").await;
    browser.until(&shows("y")).await;
    let focused = "document.activeElement.textContent.trim()";
    for _ in 0..20 {
        browser.press(Key::Tab).await;
        if browser.value(focused).await == "a" {
            break;
        }
    }
    assert_eq!(browser.value(focused).await, "a", "tabbing gets to the rows");
    let ring = browser.value("getComputedStyle(document.activeElement).outlineStyle").await;
    assert_eq!(ring, "solid", "and shows where it is");
    browser.press(Key::Down).await;
    assert_eq!(browser.value(focused).await, "b");
    browser.press(Key::Enter).await;
    browser.until(&shows("Nobody waits")).await;
    assert_eq!(browser.value("document.activeElement.ariaExpanded").await, "true");
    browser.press(Key::Escape).await;
    browser.until("!document.querySelector('.detail')").await;
    assert_eq!(browser.value(focused).await, "b", "the focus stays where it was");
    // And while rows come and go.
    browser.press(Key::Up).await;
    assert_eq!(browser.value(focused).await, "a");
    drop(held.remove(0));
    browser.until("document.querySelectorAll('tr.lock').length === 1").await;
    assert_eq!(browser.value(focused).await, "b", "what took the place of the row has its focus");
    let third = hold(&server.locks, "aa", "z").await;
    browser.until(&shows("z")).await;
    assert_eq!(browser.value(focused).await, "b");
    drop(third);
    was_quiet(&browser, server.address).await;
}

/// Each visible text's contrast with what is behind it; those below 4.5 (WCAG AA).
const TOO_FAINT: &str = r#"(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (color) => { const [r, g, b] = color.map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
    return [255, 255, 255]; };
  const faint = []; let seen = 0;
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    seen++;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgb(e.namespaceURI.endsWith("svg") ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) faint.push(`${e.tagName}.${e.className} ${e.textContent}: ${ratio.toFixed(2)}`);
  }
  return { seen, faint };
})()"#;

#[actix_rt::test]
async fn light_dark_and_narrow_are_legible_and_nothing_scrolls_sideways() {
    let locks = manager();
    let server = Server::over(locks.clone());
    locks.keep_history();
    // Before anybody looks.
    traffic(&locks, Duration::from_secs(pictures())).await;
    let mut held = busy(&locks).await;
    held.push(
        hold(&locks, &format!("tenant:{}", "very-long-name-".repeat(12)), "worker-with-a-long-name-1234567890").await,
    );
    let waiters = [
        wait(&locks, "order:1042", "checkout-3"),
        wait(&locks, "order:1042", "checkout-5"),
        wait(&locks, "job:nightly-report", "cron-2"),
    ];
    let _sessions = sessions(&locks).await;
    let browser = open_live(server.address, "/").await;
    browser.until(&shows("order:1042")).await;
    browser.until("document.querySelectorAll('#sessions > li').length === 3").await;
    // A moment of it on the page, too.
    traffic(&locks, Duration::from_secs(pictures().min(45))).await;
    let row = "[...document.querySelectorAll('tr.lock .open')].find(b => b.textContent === 'order:1042')";
    browser.value(&format!("{row}.click()")).await;
    browser.until("document.querySelectorAll('.detail li').length === 2").await;
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        let ground = browser.value("getComputedStyle(document.body).backgroundColor").await;
        assert_eq!(ground == "rgb(16, 21, 27)", scheme == "dark", "{ground}");
        for (width, height, rows, name) in
            [(1280, 1100, 100, "wide"), (768, 1024, 100, "middle"), (320, 4000, 10, "narrow")]
        {
            browser.size(width, height).await;
            let limit = "document.getElementById('limit')";
            browser.value(&format!("[{limit}.value = '{rows}', {limit}.dispatchEvent(new Event('change'))]")).await;
            browser.until(&format!("(document.querySelectorAll('tr.lock').length <= 10) === ({rows} === 10)")).await;
            let faint = browser.value(TOO_FAINT).await;
            assert!(faint["seen"].as_u64().unwrap() > 40, "{faint}");
            assert_eq!(faint["faint"], json!([]), "{scheme} {name}");
            let wide = browser.value("document.documentElement.scrollWidth").await;
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{name}: {wide}");
            let beyond = format!(
                "[...document.querySelectorAll('main:not([hidden]) *')].filter(e => e.checkVisibility() && \
                 e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 200))"
            );
            assert_eq!(browser.value(&beyond).await, json!([]), "{name}");
            browser.picture(&format!("{scheme}-{name}")).await;
        }
    }
    for waiter in waiters {
        waiter.abort();
    }
    was_quiet(&browser, server.address).await;
}

/// What a busy afternoon looks like.
async fn busy(locks: &LockManager) -> Vec<Lock> {
    let mut held = Vec::new();
    for (key, owner) in [
        ("cron:digest", "scheduler-1"),
        ("import:customers", "importer"),
        ("invoice:2026-11", "billing-2"),
        ("job:nightly-report", "cron-1"),
        ("order:1042", "checkout-1"),
        ("order:1043", "checkout-2"),
        ("user:77:profile", "api-4"),
    ] {
        held.push(hold(locks, key, owner).await);
    }
    held.push(locks.try_read("config:prices").owner("api-1").ttl(Duration::from_secs(45)).await.unwrap());
    held.push(locks.try_read("config:prices").owner("api-2").ttl(Duration::from_secs(45)).await.unwrap());
    held.push(
        locks.semaphore("pool:smtp", 10).try_permits(3).owner("mailer").ttl(Duration::from_secs(60)).await.unwrap(),
    );
    held
}

/// Three, of which one waits for another.
async fn sessions(locks: &LockManager) -> (Vec<Session>, Vec<Lock>, JoinHandle<()>) {
    let named = |name| locks.session(name).ttl(Duration::from_secs(900));
    let sessions = vec![named("worker-7"), named("worker-9"), named("reports-1")];
    sessions.iter().for_each(|session| session.register().unwrap());
    let held = vec![
        sessions[0].lock("account:3").await.unwrap(),
        sessions[0].lock("account:4").await.unwrap(),
        sessions[1].lock("account:7").await.unwrap(),
    ];
    let waiting = sessions[0].clone();
    let waiter = actix_rt::spawn(async move { drop(waiting.lock("account:7").wait_forever().await) });
    (sessions, held, waiter)
}

/// For how many seconds there is something for the charts: pictures want as much as they show, tests none.
fn pictures() -> u64 {
    if std::env::var_os("LEASEHOLD_PICTURES").is_some() { 600 } else { 0 }
}

async fn traffic(locks: &LockManager, span: Duration) {
    let end = std::time::Instant::now() + span;
    let mut beat = 0_u64;
    while std::time::Instant::now() < end {
        beat += 1;
        let first = locks.try_lock(format!("cart:{}", beat % 40)).await;
        let wave = 6 + (beat / 25 % 8) * 3;
        if beat.is_multiple_of(wave) {
            let behind = wait(locks, "stock:shared", "buyer");
            let holder = locks.try_lock("stock:shared").await;
            actix_rt::time::sleep(Duration::from_millis(wave)).await;
            drop(holder);
            let _ = locks.force_release("stock:shared").await;
            behind.abort();
        }
        actix_rt::time::sleep(Duration::from_millis(20 + wave * 2)).await;
        drop(first);
    }
}

#[actix_rt::test]
async fn the_page_works_mounted_in_a_hosts_app_with_and_without_a_slash() {
    let locks = manager();
    let _lock = hold(&locks, "order:42", "worker-7").await;
    let shared = locks.clone();
    let app = move || App::new().app_data(shared.clone()).service(web::scope("/ops/locks").configure(configure));
    let server = HttpServer::new(app).workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    for path in ["/ops/locks", "/ops/locks/"] {
        let browser = open_live(address, path).await;
        browser.until(&shows("worker-7")).await;
        was_quiet(&browser, address).await;
    }
    handle.stop(false).await;
}

#[actix_rt::test]
async fn the_page_is_kept_by_its_tag_and_its_policy_is_strict() {
    let server = Server::start();
    let get = |path: &'static str, tag: Option<String>| {
        let request = server.request(reqwest::Method::GET, path);
        let request = match tag {
            Some(tag) => request.header("if-none-match", tag),
            None => request,
        };
        async move { request.send().await.unwrap() }
    };
    for (path, kind) in [("/", "text/html"), ("/page/page.js", "text/javascript"), ("/page/page.css", "text/css")] {
        let answer = get(path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(kind), "{path}");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        let again = get(path, Some(header("etag"))).await;
        assert_eq!(again.status(), 304, "{path}");
        assert_eq!(again.text().await.unwrap(), "");
        assert_eq!(get(path, Some("\"other\"".to_owned())).await.status(), 200);
    }
    server.get("/page/nothing.js").await.problem(404, "not_found");
}

/// Some time on, by the clock of the locks.
async fn later(lock: &Lock) {
    let until = lock.remaining().saturating_sub(Duration::from_millis(50));
    http_server::until("a later time", || lock.remaining() < until).await;
}

#[actix_rt::test]
async fn whoami_tells_rights_and_lists_come_in_the_order_asked_for() {
    let server = guarded();
    let ask = |path: &'static str, secret: &str| {
        http_server::Answer::of(server.request(reqwest::Method::GET, path).bearer_auth(secret))
    };
    let me = ask("/whoami", MAY_READ).await.ok();
    assert_eq!(me, json!({ "name": "reader", "rights": ["read"], "namespaces": ["order:"] }));
    assert_eq!(ask("/whoami", MAY_FORCE).await.ok()["namespaces"], Value::Null);
    let nobody = json!({ "name": null, "rights": [], "namespaces": [] });
    assert_eq!(server.get("/whoami").await.ok(), nobody);
    ask("/whoami", "guess-0123456789").await.problem(401, "unauthenticated");
    let everybody = Server::start().get("/whoami").await.ok();
    assert_eq!(everybody, json!({ "name": null, "rights": ["acquire", "read", "force"], "namespaces": null }));

    let mut held = Vec::new();
    for (key, owner, ttl) in [("order:1", "c", 30), ("order:2", "a", 10), ("order:3", "b", 20)] {
        held.push(server.locks.try_lock(key).owner(owner).ttl(Duration::from_secs(ttl)).await.unwrap());
        // Locks are looked at shard by shard: what is to be told apart must lie further apart than that takes.
        later(held.last().unwrap()).await;
    }
    let mut waiters = Vec::new();
    for (key, owner) in [("order:3", "x"), ("order:2", "y"), ("order:2", "z")] {
        waiters.push(wait(&server.locks, key, owner));
        http_server::until("a waiter", || server.waiting() == waiters.len() as u64).await;
        later(held.last().unwrap()).await;
    }
    for (path, order) in [
        ("/locks?sort=key&limit=2", "1 2"),
        ("/locks?sort=-key&limit=2", "3 2"),
        ("/locks?sort=owner", "2 3 1"),
        ("/locks?sort=-owner", "1 3 2"),
        ("/locks?sort=age&limit=1", "1"),
        ("/locks?sort=-age&limit=1", "3"),
        ("/locks?sort=remaining", "2 3 1"),
        ("/locks?sort=-remaining", "1 3 2"),
        ("/locks?sort=waiting", "2 3 1"),
        ("/locks?sort=-waiting", "1 3 2"),
        ("/locks?sort=wait&limit=2", "3 2"),
    ] {
        let list = ask(path, MAY_READ).await.ok();
        let keys: Vec<_> = list["locks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lock| &http_server::text(lock, "key")["order:".len()..])
            .collect();
        assert_eq!(keys.join(" "), order, "{path}");
    }
    ask("/locks?sort=size", MAY_READ).await.problem(400, "invalid_query");
    for waiter in waiters {
        waiter.abort();
    }
}

/// A page whose name was made to lead to this server: to the browser it is of one site with the server.
#[actix_rt::test]
async fn a_page_whose_name_leads_here_takes_and_sees_nothing() {
    let server = Server::start();
    let lock = hold(&server.locks, "order:42", "worker-7").await;
    let browser = Browser::start_with(&["--host-resolver-rules=MAP rebound.example 127.0.0.1"]).await;
    let port = server.address.port();
    browser.page.goto(&format!("http://rebound.example:{port}/page/icon.svg")).await.unwrap();
    let asks = "(async (path, method, body) => { const headers = { 'content-type': 'application/json' }; const answer = \
        await fetch(path, { method, headers, body: body && JSON.stringify(body) }); \
        return `${answer.status} ${(await answer.json()).code}`; })";
    for (path, method, body) in [
        ("/acquire", "POST", json!({ "key": "mine" })),
        ("/locks", "GET", json!(null)),
        ("/locks/order:42", "DELETE", json!(null)),
        ("/events", "GET", json!(null)),
        ("/", "GET", json!(null)),
    ] {
        let call = format!("{asks}({}, {}, {body})", json!(path), json!(method));
        assert_eq!(browser.value(&call).await, json!("403 forbidden_host"), "{method} {path}");
    }
    // Of another site it may not even send what a browser sends unasked; but a link may be followed.
    let elsewhere = format!("http://{}", server.address);
    let call = format!("fetch('{elsewhere}/healthz', {{ mode: 'no-cors' }}).then(answer => answer.type)");
    assert_eq!(browser.value(&call).await, json!("opaque"));
    browser.value(&format!("fetch('{elsewhere}/locks', {{ mode: 'no-cors' }}).then(() => 'sent')")).await;
    assert!(lock.is_held() && server.locks.stats().attempts == 1);
    browser.value(&format!("(location.href = '{elsewhere}/', null)")).await;
    browser.until(LIVE).await;
    browser.until(&shows("order:42")).await;
}

#[actix_rt::test]
async fn the_docs_are_readable_on_the_narrowest_screens() {
    let server = Server::start();
    let browser = Browser::start().await;
    browser.size(320, 700).await;
    browser.page.goto(&format!("http://{}/docs", server.address)).await.unwrap();
    browser.value("document.querySelectorAll('details').forEach(details => { details.open = true; })").await;
    let wide = "[...document.querySelectorAll('*')].filter(one => one.scrollWidth > one.clientWidth + 1 && \
        one.clientWidth > 0 && getComputedStyle(one).display !== 'inline').map(one => one.outerHTML.slice(0, 80))";
    assert_eq!(browser.value(wide).await, json!([]));
    assert_eq!(browser.value("document.documentElement.scrollWidth").await, json!(320));
    browser.picture("docs-320").await;
}
