//! A real Prometheus, and what the dashboard and the rules ask of it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::kit;

pub(crate) fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(grafana().join(path)).unwrap()
}

pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&read("dashboards/leasehold.json")).unwrap()
}

/// The panels, those of folded rows too, rows themselves not.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    let inner = all.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    all.iter().chain(inner).filter(|panel| panel["type"] != "row").collect()
}

/// The titles and queries of all panels.
pub(crate) fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels(dashboard).into_iter().flat_map(of).collect()
}

/// A query as Grafana would send it with everything chosen.
pub(crate) fn with_everything_chosen(query: &str, interval: &str) -> String {
    ["job", "instance", "manager", "lock_namespace"]
        .iter()
        .fold(query.replace("$__rate_interval", interval), |query, name| query.replace(&format!("${name}"), ".*"))
}

/// What the Prometheus Operator labels its targets with: a label of ours with such a name would be taken for it.
pub(crate) const TARGET_LABELS: [&str; 5] = ["namespace", "pod", "container", "service", "endpoint"];

/// The values of those labels.
pub(crate) const OF_TARGET: &str = "of-the-target";

/// Ended with the test.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) url: String,
    client: reqwest::Client,
    _port: kit::port::Port,
    _dir: kit::Dir,
}

impl Prometheus {
    /// Scrapes each target (its job, its address) and evaluates the rules of these files (their names and texts).
    pub(crate) fn start(interval: &str, targets: &[(&str, &str)], rules: &[(&str, String)]) -> Self {
        let (port, dir) = (kit::port::Port::choose(), kit::Dir::make());
        let address = format!("127.0.0.1:{}", port.number);
        let mut config =
            format!("global: {{ scrape_interval: {interval}, evaluation_interval: {interval} }}\nrule_files:\n");
        for (name, text) in rules {
            std::fs::write(dir.path().join(name), text).unwrap();
            writeln!(config, "  - {name}").unwrap();
        }
        config.push_str("scrape_configs:\n");
        for (job, target) in targets {
            let target = target.strip_prefix("http://").unwrap_or(target);
            let labels = TARGET_LABELS.map(|label| format!("{label}: {OF_TARGET}")).join(", ");
            let target = format!("targets: [\"{target}\"], labels: {{ {labels} }}");
            writeln!(config, "  - {{ job_name: {job}, static_configs: [{{ {target} }}] }}").unwrap();
        }
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is there: tests/run installs it");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, url: format!("http://{address}"), client, _port: port, _dir: dir }
    }

    /// What it answers on a path of its interface, if it is up and does not refuse.
    pub(crate) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let encoded = parameters.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let body = encoded.collect::<Vec<_>>().join("&");
        let url = format!("{}/api/v1/{path}?{body}", self.url);
        let answer = self.client.get(url).send().await.map_err(|why| why.to_string())?;
        let answer: Value = answer.json().await.map_err(|why| why.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    }

    /// The values that a query has now, as far as they are numbers.
    pub(crate) async fn ask(&self, query: &str) -> Result<Vec<f64>, String> {
        let answer = self.get("query", &[("query", query)]).await?;
        let results = answer["result"].as_array().ok_or_else(|| answer.to_string())?;
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

/// The expressions of a file of rules, each with its name.
pub(crate) fn rules(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_block = false;
    for line in text.lines() {
        let words = line.trim();
        let is_name = ["- alert: ", "- record: "].iter().find_map(|start| words.strip_prefix(start));
        if let Some(name) = is_name {
            found.push((name.to_owned(), String::new()));
        } else if let Some(expression) = words.strip_prefix("expr:") {
            is_block = expression.trim() == "|";
            if !is_block {
                found.last_mut().unwrap().1 = expression.trim().to_owned();
            }
        } else if is_block && line.starts_with("          ") {
            let expression = &mut found.last_mut().unwrap().1;
            expression.push_str(words);
            expression.push(' ');
        } else {
            is_block = false;
        }
    }
    found
}
