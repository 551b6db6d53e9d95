//! Fear: on a phone the page is an afterthought: the table far down, labels cut off, buttons that no finger hits.

use serde_json::json;

use crate::browser::Browser;
use crate::http_server::Server;
use crate::page::{LIVE, hold, of_module, shows, was_quiet};

async fn on_a_phone(server: &Server) -> Browser {
    let browser = Browser::start().await;
    browser.size(320, 700).await;
    browser.page.goto(&format!("http://{}/", server.address)).await.unwrap();
    browser.until(LIVE).await;
    browser
}

#[actix_rt::test]
async fn what_is_needed_first_comes_first_and_is_near() {
    let server = Server::start();
    let mut held = Vec::new();
    for number in 10..40 {
        held.push(hold(&server.locks, &format!("order:{number}"), "worker-7").await);
    }
    let browser = on_a_phone(&server).await;
    browser.until(&shows("the first 10; there are more")).await;
    let places = "['held', 'attention-title', 'locks-title', 'rows', 'throughput', 'pressure', 'hot-title', 'sessions-title', \
        'server-title', 'events-title'].map(id => document.getElementById(id).getBoundingClientRect().top + scrollY)";
    let places = browser.value(places).await;
    let places: Vec<f64> = places.as_array().unwrap().iter().map(|top| top.as_f64().unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(places[3] < 700.0, "the first lock is within the first screen: {places:?}");
    let elsewhere = "[...document.querySelectorAll('main:not([hidden]) :is(h2, dl, table, ul, ol, .chart)')].map(e => \
        e.getBoundingClientRect()).filter(place => place.left < 0 || place.right > 320).length";
    assert_eq!(browser.value(elsewhere).await, 0);
    was_quiet(&browser, server.address).await;
}

#[actix_rt::test]
async fn whatever_stands_alone_is_high_enough_for_a_finger() {
    let server = Server::start();
    let _held = [hold(&server.locks, "order:42", "worker-7").await, hold(&server.locks, "order:43", "worker-7").await];
    assert!(server.locks.try_lock("order:42").await.is_err());
    let browser = on_a_phone(&server).await;
    browser.until("document.querySelector('#hot .link') && document.querySelector('tr.lock')").await;
    browser.click("tr.lock .open").await;
    browser.until("document.querySelector('.detail .danger')").await;
    // A row is hit wherever it is touched.
    let low = "[...document.querySelectorAll('button, input, select, a, tr.lock')].filter(one => one.checkVisibility() && \
        !one.matches('tr .open') && one.getBoundingClientRect().height < 43.9).map(one => one.outerHTML)";
    assert_eq!(browser.value(low).await, json!([]));
    assert_eq!(browser.value("document.getAnimations().length").await, 0, "nothing moves by itself");
}

#[actix_rt::test]
async fn no_label_of_an_axis_is_cut_off_however_long_it_is() {
    let server = Server::start();
    let browser = on_a_phone(&server).await;
    let body = "
        const charts = new module.Charts();
        const many = (value) => Array(300).fill(value);
        charts.fill({ age_ms: 100, length_ms: many(2000), granted: many(123456789), ended: many(5), attempts: many(10),
            contended: many(10), handoffs: many(1), waited_ms: many(7_000_000) });
        return [...document.querySelectorAll('.chart')].flatMap((chart) => [...chart.querySelectorAll('text')].map((text) => {
            const [inner, outer] = [text, chart].map((one) => one.getBoundingClientRect());
            return [text.textContent, inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5];
        }));";
    let labels = of_module(&browser, "charts.js", body).await;
    let seen = labels.as_array().unwrap();
    assert!(seen.len() >= 10 && seen.iter().any(|label| label[0] == "2 h 46 m"), "{labels}");
    assert!(seen.iter().all(|label| label[1] == true), "{labels}");
}
