//! Fear: the picture of the dashboard shows something else than the dashboard and the server do.
//!
//! It is drawn by `grafana/preview.html`. To draw the one in `grafana/` anew:
//! `LEASEHOLD_PICTURES=$PWD/grafana cargo test --all-features --test pages grafana_preview` (it takes two minutes then).
#![cfg(all(feature = "server", unix))]

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use actix_rt::time::sleep;
use serde_json::{Map, Value, json};

use crate::browser::Browser;
use crate::kit;
use crate::prometheus::{Prometheus, dashboard, panels, read, with_everything_chosen};
use crate::scraped::Process;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// For how long there is something to see: pictures want more of it than tests.
fn spell() -> Duration {
    Duration::from_secs(if std::env::var_os("LEASEHOLD_PICTURES").is_some() { 90 } else { 3 })
}

async fn post(process: &Process, path: &str, body: Value) -> Value {
    let answer = process.client.post(format!("{}{path}", process.url)).json(&body).send().await.unwrap();
    answer.json().await.unwrap_or_default()
}

async fn release(process: &Process, lock: &Value) {
    if lock["token"].is_string() {
        post(process, "/release", json!({ "key": lock["key"], "token": lock["token"] })).await;
    }
}

/// What the clients of a shop do all day.
fn load(process: &Rc<Process>) -> Vec<actix_rt::task::JoinHandle<()>> {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for worker in 0..10_u64 {
        let process = Rc::clone(process);
        tasks.push(actix_rt::spawn(async move {
            for round in worker.. {
                let key = format!("order:{}", (round * 7 + worker * 3) % 6);
                let lock = post(&process, "/acquire", json!({ "key": key, "wait_ms": 150 })).await;
                // Busier and quieter times.
                let wave = (began.elapsed().as_secs_f64() / 9.0).sin() + 1.2;
                sleep(millis(2 + (worker * 3 + (wave * 14.0) as u64) % 40)).await;
                if round % 31 == 0 && lock["token"].is_string() {
                    post(&process, "/heartbeat", json!({ "key": lock["key"], "token": lock["token"] })).await;
                }
                release(&process, &lock).await;
                sleep(millis(20)).await;
            }
        }));
    }
    let other = Rc::clone(process);
    tasks.push(actix_rt::spawn(async move {
        for round in 0_u64.. {
            post(&other, "/acquire", json!({ "key": format!("cron:{}", round % 3), "wait_ms": 0, "ttl_ms": 1000 }))
                .await;
            sleep(millis(120)).await;
            if round % 23 == 7 {
                other.client.delete(format!("{}/locks/cron:1", other.url)).send().await.unwrap();
            }
        }
    }));
    tasks
}

async fn answers_of(prometheus: &Prometheus, from: f64, to: f64) -> Map<String, Value> {
    let (dashboard, mut all) = (dashboard(), Map::new());
    let (start, end, step) = (from.to_string(), to.to_string(), ((to - from) / 90.0).max(0.5).to_string());
    for panel in panels(&dashboard) {
        let mut series = Vec::new();
        for target in panel["targets"].as_array().unwrap() {
            let query = with_everything_chosen(target["expr"].as_str().unwrap(), "10s");
            let parameters = [("query", &*query), ("start", &start), ("end", &end), ("step", &step)];
            let answer = prometheus.get("query_range", &parameters).await.unwrap();
            for result in answer["result"].as_array().unwrap() {
                let mut name = target["legendFormat"].as_str().unwrap_or_default().to_owned();
                for (label, value) in result["metric"].as_object().unwrap() {
                    name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap());
                }
                let number = |value: &Value| value.as_str()?.parse::<f64>().ok().filter(|value| value.is_finite());
                let points = result["values"].as_array().unwrap().iter();
                let points = points.filter_map(|point| Some(json!([point[0].as_f64()?, number(&point[1])?])));
                series.push(json!({ "name": name, "points": points.collect::<Vec<_>>() }));
            }
        }
        all.insert(panel["id"].to_string(), series.into());
    }
    all
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[actix_rt::test]
async fn the_picture_is_drawn_from_the_dashboards_json_and_what_a_real_prometheus_answers() {
    let redis = kit::Server::start(&[]);
    let process = Rc::new(Process::serve(&["--store", &redis.url(), "--namespaces", "order:,cron:"], &[]));
    let prometheus = Prometheus::start("500ms", &[("leasehold", &process.url)], &[]);
    let tasks = load(&process);
    // Rates want a few scrapes before the first of them is shown.
    while prometheus.ask("rate(leasehold_store_operations_total[10s])").await.map_or(0, |values| values.len()) == 0 {
        sleep(millis(100)).await;
    }
    let from = now() + 2.0;
    sleep(spell()).await;
    let began = Instant::now();
    let mut answers = answers_of(&prometheus, from, now()).await;
    // A machine under load may miss scrapes, and what has happened once may not be in two of them.
    let is_shown = |answers: &Map<String, Value>| {
        let all = Value::from(answers.clone()).to_string();
        answers.values().all(|series| series.to_string().contains("[["))
            && ["acquired", "busy"].iter().all(|outcome| all.contains(&format!("\"{outcome}\"")))
    };
    while !is_shown(&answers) && began.elapsed() < Duration::from_secs(60) {
        sleep(millis(500)).await;
        answers = answers_of(&prometheus, from, now()).await;
    }
    tasks.iter().for_each(|task| task.abort());

    let data = json!({ "dashboard": dashboard(), "answers": answers }).to_string().replace('<', "\\u003c");
    let page =
        read("preview.html").replace("type=\"application/json\">{}<", &format!("type=\"application/json\">{data}<"));
    let dir = kit::Dir::make();
    let file = dir.path().join("preview.html");
    std::fs::write(&file, page).unwrap();
    let browser = Browser::start().await;
    browser.page.goto(&format!("file://{}", file.display())).await.unwrap();
    browser.until("document.body.dataset.drawn === 'yes'").await;
    let height = browser.value("Math.ceil(document.documentElement.getBoundingClientRect().height)").await;
    browser.size(1200, u32::try_from(height.as_u64().unwrap()).unwrap()).await;
    browser.picture("dashboard").await;

    let empty = browser.value("[...document.querySelectorAll('[data-empty]')].map(panel => panel.dataset.empty)").await;
    assert_eq!(empty, json!([]), "panels without data");
    let open = dashboard()["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").count();
    let drawn = "[...document.querySelectorAll('section')].filter(panel => panel.querySelector('path, rect')).length";
    assert_eq!(browser.value(drawn).await, json!(open));
    let text = browser.value("document.body.innerText").await;
    for shown in ["Not a screenshot of Grafana", "Success ratio", "acquired", "busy", "HTTP and process (12 panels)"] {
        assert!(text.as_str().unwrap().contains(shown), "{shown}: {text}");
    }
    let log = browser.log("browser").await;
    assert!(log.is_empty(), "{log:?}");
}
