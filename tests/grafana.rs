//! Fear: the dashboard shows nothing, or what is not there; the alerts sleep.
#![cfg(all(feature = "server", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/redis/mod.rs"]
mod kit;
#[path = "support/scraped.rs"]
mod scraped;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use leasehold::metrics::{FAMILIES, FamilyKind};
use scraped::Process;
use serde_json::{Value, json};

fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(grafana().join(path)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("dashboards/leasehold.json")).unwrap()
}

/// The panels, those of folded rows too, rows themselves not.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    let inner = all.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    all.iter().chain(inner).filter(|panel| panel["type"] != "row").collect()
}

fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels(dashboard).into_iter().flat_map(of).collect()
}

/// The names in a text that look like ours.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !word(c)).filter(|name| name.starts_with("leasehold_")).map(str::to_owned).collect()
}

/// The names under which the families' series are asked for.
fn series() -> BTreeSet<String> {
    let of = |family: &leasehold::metrics::Family| match family.kind {
        FamilyKind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", family.name)).to_vec(),
        _ => vec![family.name.to_owned()],
    };
    FAMILIES.iter().flat_map(of).collect()
}

fn promtool(words: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(words).current_dir(grafana()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: tests/run installs it");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_shown_is_declared_and_what_is_declared_is_shown() {
    let shown = named(&queries(&dashboard()).into_iter().map(|(_, query)| query).collect::<Vec<_>>().join(" "));
    let everything: BTreeSet<_> = ["rules.yml", "alerts.yml"].into_iter().flat_map(|file| named(&read(file))).collect();
    let known = series();
    for name in shown.iter().chain(&everything) {
        assert!(known.contains(name), "{name} is not declared");
    }
    for family in FAMILIES {
        assert!(shown.iter().any(|name| name.starts_with(family.name)), "{} is not shown", family.name);
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title}");
        let unit = if panel["type"] == "heatmap" {
            &panel["options"]["yAxis"]["unit"]
        } else {
            &panel["fieldConfig"]["defaults"]["unit"]
        };
        assert!(unit.is_string(), "{title}");
    }
    assert!(dashboard.get("__inputs").is_none() && dashboard["uid"] == "leasehold" && dashboard["graphTooltip"] == 1);
    for (title, query) in queries(&dashboard) {
        assert!(!query.contains("rate(") || query.contains("[$__rate_interval]"), "{title}");
    }
}

#[test]
fn the_rules_are_sound_and_fire_when_they_should() {
    for words in [&["check", "rules", "rules.yml", "alerts.yml"][..], &["test", "rules", "rules_test.yml"]] {
        let output = promtool(words, "");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let (alerts, cases) = (read("alerts.yml"), read("rules_test.yml"));
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for name in &names {
        assert!(cases.contains(&format!("alertname: {name}\n")), "{name} has no case in which it fires");
    }
    for part in ["for:", "severity:", "summary:", "description:"] {
        assert_eq!(alerts.matches(part).count(), names.len(), "{part}");
    }
}

/// A real Prometheus, ended with the test.
struct Prometheus {
    child: Child,
    url: String,
    _port: kit::port::Port,
    _dir: kit::Dir,
}

impl Prometheus {
    fn scrape(target: &str) -> Self {
        let (port, dir) = (kit::port::Port::choose(), kit::Dir::make());
        let address = format!("127.0.0.1:{}", port.number);
        let config = format!(
            "global: {{ scrape_interval: 250ms }}\nscrape_configs:\n  - job_name: leasehold\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is there: tests/run installs it");
        Self { child, url: format!("http://{address}"), _port: port, _dir: dir }
    }

    /// The values that a query has now, as far as they are numbers.
    async fn ask(&self, client: &reqwest::Client, query: &str) -> Result<Vec<f64>, String> {
        let request = client.post(format!("{}/api/v1/query", self.url));
        let body = percent_encoded(query);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(format!("query={body}"));
        let answer = request.send().await.map_err(|why| why.to_string())?;
        let answer: Value = answer.json().await.map_err(|why| why.to_string())?;
        let results = answer["data"]["result"].as_array().ok_or_else(|| answer.to_string())?;
        let values = results.iter().filter_map(|result| result["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| !value.is_nan()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[actix_rt::test]
async fn a_real_prometheus_finds_data_for_every_panel_of_a_server_under_load() {
    let redis = kit::Server::start(&[]);
    let process = Process::serve(&["--store", &redis.url()], &[]);
    let check = promtool(&["check", "metrics"], &process.scrape().await);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let prometheus = Prometheus::scrape(process.url.strip_prefix("http://").unwrap());
    let mut missing = queries(&dashboard());
    assert!(missing.len() > 35);
    let began = Instant::now();
    while !missing.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "no data: {missing:#?}");
        let (status, lock) = process.acquire(json!({ "key": "a" })).await;
        assert_eq!(status, 200);
        let waiter = actix_rt::spawn(
            process.client.post(format!("{}/acquire", process.url)).json(&json!({ "key": "a" })).send(),
        );
        assert_eq!(process.acquire(json!({ "key": "a", "wait_ms": 0 })).await.0, 423);
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        process.release(&lock).await;
        let lock = waiter.await.unwrap().unwrap().json().await.unwrap();
        process.release(&lock).await;
        let mut still = Vec::new();
        for (title, query) in missing {
            let query_now = query
                .replace("$__rate_interval", "5s")
                .replace("\"$job\"", "\".*\"")
                .replace("\"$instance\"", "\".*\"")
                .replace("\"$manager\"", "\".*\"");
            if prometheus.ask(&process.client, &query_now).await.is_ok_and(|values| !values.is_empty()) {
                continue;
            }
            still.push((title, query));
        }
        missing = still;
    }
}
