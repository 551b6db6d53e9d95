//! Fear: the status page keeps to itself what an operator should see: who waits for long, a store that is away, a server
//! that wants to be asked less.
#![cfg(all(feature = "redis", feature = "test-util"))]

use std::num::NonZeroU32;
use std::time::Duration;

use fantoccini::key::Key;
use leasehold::http::{Access, Limits};
use leasehold::{LockManager, ManualClock};
use serde_json::{Value, json};

use crate::http_server::{self, Server};
use crate::kit;
use crate::page::{LIVE, hold, note, of_module, open, open_live, shows, wait, was_quiet};
use crate::redis_managers;

fn manager() -> LockManager {
    LockManager::builder().build().unwrap()
}

/// The lines of the box that names what needs attention.
const ATTENTION: &str = "[...document.querySelectorAll('#attention li')].map(li => li.className + ': ' + li.innerText)";

fn has_line(pattern: &str) -> String {
    format!("{ATTENTION}.some(line => /{pattern}/.test(line))")
}

#[actix_rt::test]
async fn long_holds_and_long_waits_are_named_and_lead_to_their_locks() {
    let clock = ManualClock::new();
    let server = Server::over(LockManager::builder().clock(clock.clock()).build().unwrap());
    let browser = open_live(server.address, "/").await;
    browser.until(&has_line("^calm: Nothing does")).await;
    // For the page time stands still: it shows the times that it was told.
    browser.value("(now => performance.now = () => now)(performance.now())").await;
    let lock = server.locks.try_lock("job:slow").owner("cron").ttl(Duration::from_secs(20)).await.unwrap();
    let _fresh = server.locks.try_lock("job:fresh").owner("other").ttl(Duration::from_secs(120)).await.unwrap();
    let beat = async |seconds: u64| {
        clock.advance(Duration::from_secs(seconds));
        lock.refresh().await.unwrap();
    };
    for seconds in [15, 15, 15, 14] {
        beat(seconds).await;
    }
    let slow = |cell: u8, text: &str| {
        format!("document.querySelector('tr.lock[data-key=\"job:slow\"]')?.cells[{cell}].innerText === '{text}'")
    };
    browser.until(&slow(3, "59.0 s")).await;
    assert_eq!(browser.value(&has_line("has been held")).await, false, "59 s are not long");
    beat(1).await;
    browser.until(&has_line("^warn: job:slow has been held by cron for 1 m 0\\d s, refreshed 5 times$")).await;
    assert_eq!(browser.value(&has_line("job:fresh")).await, false, "a minute of a TTL of two is not long");

    let waiters = [wait(&server.locks, "job:slow", "one"), wait(&server.locks, "job:slow", "two")];
    http_server::until("two waiters", || server.waiting() == 2).await;
    beat(4).await;
    browser.until(&format!("{} && {}", slow(5, "2"), slow(3, "1 m 04 s"))).await;
    assert_eq!(browser.value(&has_line("oldest waiter")).await, false, "4 s are not long");
    beat(3).await;
    browser.until(&has_line("^warn: job:slow has kept its oldest waiter for 7\\.\\d s, the first of 2$")).await;

    browser.click("#attention button").await;
    browser.until("document.querySelectorAll('.detail li').length === 2").await;
    browser.until(&format!("document.querySelector('.facts').innerText.includes({})", json!("job:slow"))).await;
    waiters.iter().for_each(|waiter| waiter.abort());
    drop(lock);
    browser.until(&has_line("^calm: Nothing does")).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn contention_is_named_while_it_lasts() {
    let server = Server::start();
    let _held = hold(&server.locks, "hot", "one").await;
    let browser = open_live(server.address, "/").await;
    let locks = server.locks.clone();
    let busy = actix_rt::spawn(async move {
        for number in 0_u64.. {
            drop(locks.try_lock(format!("free:{}", number % 8)).await.unwrap());
            for _ in 0..19 {
                assert!(locks.try_lock("hot").await.is_err());
            }
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
    });
    browser.until(&has_line("^warn: (9[3-7]\\.\\d|95) % of the requests now wait or are refused\\.$")).await;
    busy.abort();
    browser.until(&has_line("^calm: Nothing does")).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn a_store_that_is_away_is_told_until_it_is_back() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let server = Server::over(redis_managers::builder(&proxy.url()).build_and_connect().await.unwrap());
    let browser = open_live(server.address, "/").await;
    let store = "document.getElementById('store')";
    browser.until(&format!("/ m?s$/.test({store}.textContent)")).await;
    assert_eq!(browser.value("document.getElementById('store-sub').textContent").await, "to answer");
    browser.until(&has_line("^calm: .* the store answers")).await;
    was_quiet(&browser, server.address).await;

    proxy.cut();
    browser.until(&format!("{store}.textContent === 'Not ready'")).await;
    assert_eq!(browser.value("document.getElementById('store-sub').textContent").await, "cannot grant");
    assert_eq!(browser.value(&format!("{store}.parentElement.classList.contains('bad')")).await, true);
    browser.until(&has_line("^bad: Not ready: .+\\.$")).await;
    assert_eq!(browser.value(&has_line("^calm")).await, false);
    assert_eq!(browser.value(LIVE).await, true, "the page itself is well");
    browser.picture("not-ready").await;

    proxy.heal();
    browser.until(&format!("/ m?s$/.test({store}.textContent)")).await;
    browser.until(&has_line("^calm: .* the store answers")).await;
    assert_eq!(browser.value(&format!("{store}.parentElement.classList.contains('bad')")).await, false);
}

#[actix_rt::test]
async fn a_server_that_has_just_started_says_that_it_grants_nothing_yet() {
    // Longer than any clock counts.
    let server = Server::with_limits(manager(), Limits::new().start_delay(Duration::MAX));
    let browser = open_live(server.address, "/").await;
    browser.until(&has_line("^bad: Not ready: the server has just started")).await;
    browser.until("document.getElementById('store').textContent === 'Not ready'").await;
}

#[actix_rt::test]
async fn a_lock_of_another_process_is_shown_as_such() {
    let redis = kit::Server::start(&[]);
    let server = Server::over(redis_managers::builder(&redis.url()).build_and_connect().await.unwrap());
    let other = redis_managers::builder(&redis.url()).build_and_connect().await.unwrap();
    let ours = hold(&server.locks, "order:42", "near").await;
    let browser = open_live(server.address, "/").await;
    browser.until("document.querySelector('tr.lock')").await;
    browser.click("tr.lock .open").await;
    let facts = "document.querySelector('.facts').innerText";
    browser.until(&format!("document.querySelector('.facts') && /Held since.*TTL/s.test({facts})")).await;
    drop(ours);
    let _theirs = other.lock("order:42").owner("far").ttl(redis_managers::LONG).await.unwrap();
    browser.until(&format!("document.querySelector('.facts') && {facts}.includes('another process')")).await;
    let facts = browser.value(facts).await;
    assert!(!facts.as_str().unwrap().contains("TTL"), "nothing is made up: {facts}");
    browser.click(".detail .danger").await;
    browser
        .until("document.getElementById('force-text').innerText.includes('held by another process; nobody waits')")
        .await;
    browser.press(Key::Escape).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn charts_show_what_was_done_between_two_readings() {
    let server = Server::start();
    let browser = open(server.address, "/").await;
    // Two readings, four seconds apart, drawn by a second pair of charts in the place of the first.
    let body = "
        let now = 1000;
        performance.now = () => now;
        const charts = new module.Charts();
        const stats = { total: 100, unlocked: 90, dropped: 0, expired: 0, forced: 0, lost: 0, shut_down: 0,
            attempts: 200, waiting: 0, queued: 10, busy: 5, handoffs: 10, average_wait_ms: 20 };
        const first = charts.read(stats);
        now += 4000;
        const next = { ...stats, total: 180, unlocked: 120, dropped: 4, expired: 3, forced: 2, lost: 1,
            attempts: 300, waiting: 20, queued: 60, busy: 15, handoffs: 30, average_wait_ms: 50 };
        const point = charts.read(next);
        now += 2000;
        const quiet = charts.read(next);
        now += 2000;
        const restarted = charts.read({ ...stats, total: 5 });
        now += 2000;
        charts.read({ ...stats, total: 25, unlocked: 110 });
        const label = (id) => document.querySelector(`#${id} svg`).getAttribute('aria-label');
        const texts = (id) => [...document.querySelectorAll(`#${id} svg text`)].map((text) => text.textContent);
        const line = (id, kind) => document.querySelector(`#${id} path.${kind}:not(.area)`).getAttribute('d');
        return { first, point, quiet, restarted, said: [label('throughput'), label('pressure')],
            axes: [texts('throughput'), texts('pressure')], lines: [line('throughput', 'a'), line('pressure', 'd')] };";
    browser.until("document.getElementById('board').checkVisibility()").await;
    let seen = of_module(&browser, "charts.js", body).await;
    assert_eq!(seen["first"], Value::Null, "there is nothing to compare with: {seen}");
    let point = json!({ "at": 5000, "granted": 20, "ended": 10, "contended": 0.5, "wait": 65 });
    assert_eq!(seen["point"], point, "80 in 4 s; 40 ended; 60 of 120 contended; 1300 ms over 20 hand-offs");
    assert_eq!(seen["quiet"], json!({ "at": 7000, "granted": 0, "ended": 0, "contended": 0, "wait": null }));
    assert_eq!(seen["restarted"], Value::Null, "fewer than before: another process");
    assert_eq!(seen["said"][0], "Throughput: granted per second 10, ended per second 10");
    assert_eq!(seen["said"][1], "Contention and wait: contended 0%, mean wait none");
    assert_eq!(seen["axes"][0], json!(["20", "0", "10 min ago", "now"]));
    assert_eq!(seen["axes"][1], json!(["50%", "0", "100ms", "0", "10 min ago", "now"]));
    let lines = seen["lines"].as_array().unwrap();
    let points = |line: &Value| line.as_str().unwrap().matches(['M', 'L']).count();
    assert_eq!((points(&lines[0]), points(&lines[1])), (3, 1), "no line over the break: {lines:?}");
    assert!(lines[0].as_str().unwrap().matches('M').count() == 2, "{lines:?}");
}

/// With what was done before anybody looked, in a host that keeps it.
#[actix_rt::test]
async fn charts_are_filled_at_the_first_look() {
    let locks = manager();
    locks.keep_history();
    let steps = || locks.history_within(&[""]).unwrap().steps;
    let server = Server::over(locks.clone());
    http_server::until("a first step", || !steps().is_empty()).await;
    for number in 0..200 {
        drop(hold(&locks, &format!("done:{number}"), "one").await);
    }
    http_server::until("a step with something in it", || steps().iter().any(|step| step.granted == 200)).await;
    let browser = open(server.address, "/").await;
    // A hundred a second, or fifty where two steps are drawn as one.
    browser.until("['50', '100'].includes(document.querySelector('#throughput svg text')?.textContent)").await;
    browser.until("document.querySelector('#throughput path.a:not(.area)').getAttribute('d') !== ''").await;
    browser.until(LIVE).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn cards_and_charts_follow_what_is_done() {
    let server = Server::start();
    let browser = open_live(server.address, "/").await;
    let label = "document.querySelector('#throughput svg').getAttribute('aria-label')";
    browser.until(&format!("{label}.includes('per second 0')")).await;
    note(&browser, "#throughput svg").await;
    let _held = hold(&server.locks, "kept", "one").await;
    for number in 0..200 {
        drop(hold(&server.locks, &format!("done:{number}"), "one").await);
    }
    for _ in 0..50 {
        assert!(server.locks.lock("kept").wait(Duration::from_millis(1)).await.is_err());
    }
    browser.until("told.some(text => /granted per second [1-9].* ended per second [1-9]/.test(text))").await;
    let card = |id: &str, text: &str| format!("document.getElementById('{id}').textContent === '{text}'");
    for (id, text) in
        [("held", "1"), ("waiting", "0"), ("granted", "201"), ("success", "80.1 %"), ("contention", "19.9 %")]
    {
        browser.until(&card(id, text)).await;
    }
    assert_eq!(browser.value("document.getElementById('store').textContent").await, "Memory");
    browser.until(&format!("/granted per second 0, ended per second 0/.test({label})")).await;
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn one_listener_too_many_is_told_and_gets_in_when_another_goes() {
    let server = Server::with_limits(manager(), Limits::new().max_streams(1));
    let taken = server.locks.events();
    let browser = open(server.address, "/").await;
    browser.until("document.getElementById('live').dataset.state === 'broken'").await;
    browser.until("document.getElementById('banner').innerText.includes('too many listen to events already')").await;
    // The totals are read all the same, and the locks with them.
    let _lock = hold(&server.locks, "order:42", "worker-7").await;
    browser.until("document.getElementById('held').textContent === '1'").await;
    browser.until(&shows("worker-7")).await;
    drop(taken);
    browser.until(LIVE).await;
    browser.until("document.getElementById('banner').hidden").await;
}

#[actix_rt::test]
async fn a_page_that_asks_too_often_waits_and_goes_on() {
    // A reading is of three requests.
    let access = Access::open().rate_limit(NonZeroU32::new(3).unwrap());
    let server = Server::with_access(manager(), Limits::new(), access);
    let browser = open(server.address, "/").await;
    let mut held = Vec::new();
    let mut refused = false;
    while !refused {
        assert!(held.len() < 100, "it was never refused");
        let key = format!("order:{}", held.len());
        held.push(hold(&server.locks, &key, "worker-7").await);
        browser.until(&shows(&key)).await;
        refused = browser.log("browser").await.iter().any(|line| line.to_string().contains("429"));
    }
    held.push(hold(&server.locks, "order:last", "worker-7").await);
    browser.until(&shows("order:last")).await;
    browser.until(LIVE).await;
    browser.log("browser").await;

    // For the page time stands still from a refusal on: once refused, it asks for nothing any more.
    let stop_at_a_refusal = "[window.clock = performance.now.bind(performance), window.asked = fetch, \
        window.fetch = async (...all) => { const answer = await asked(...all); \
        if (answer.status === 429 && !window.stopped) { window.stopped = clock(); performance.now = () => stopped; } \
        return answer; }]";
    browser.value(stop_at_a_refusal).await;
    while browser.value("window.stopped === undefined").await == true {
        assert!(held.len() < 200, "it was never refused");
        held.push(hold(&server.locks, &format!("more:{}", held.len()), "worker-7").await);
        actix_rt::time::sleep(Duration::from_millis(100)).await;
    }
    // What was under way may still come: two ticks, in which an unmoved page asks twice.
    browser.requests().await;
    actix_rt::time::sleep(Duration::from_secs(5)).await;
    let asked = browser.requests().await;
    assert!(!asked.iter().any(|url| url.contains("/stats")), "{asked:?}");
    browser.value("[performance.now = clock, window.fetch = asked]").await;
    held.push(hold(&server.locks, "at-last", "worker-7").await);
    browser.until(&shows("at-last")).await;
}

#[cfg(feature = "server")]
#[actix_rt::test]
async fn the_server_itself_has_the_page_on_its_root() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("LEASEHOLD_") || ["LOCK_STORE", "REDIS_URL"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = http_server::KillOnDrop(command.spawn().unwrap());
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let url = lines.next().and_then(|line| Some(line.strip_prefix("listening on ")?.to_owned())).expect("where it is");
    let told = lines.find(|line| line.trim_start().starts_with("page ")).expect("where the page is");
    assert_eq!(told.split_whitespace().nth(1), Some(&*format!("{url}/")));
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    let browser = open_live(address, "/").await;
    browser.until(&shows("No lock is held")).await;
    let body = json!({ "key": "order:42", "owner": "worker-7", "ttl_ms": 600_000 });
    let granted = http_server::client().post(format!("{url}/acquire")).json(&body).send().await.unwrap();
    assert_eq!(granted.status(), 200);
    browser.until(&shows("order:42")).await;
    browser.until(&shows("worker-7")).await;
    was_quiet(&browser, address).await;
}
