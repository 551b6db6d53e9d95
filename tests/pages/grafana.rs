//! Fear: the dashboard shows nothing, or what is not there; the alerts sleep.
#![cfg(all(feature = "server", unix))]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use leasehold::metrics::{FAMILIES, Family, FamilyKind};
use promql_parser::parser::{Expr, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::json;

use crate::kit;
use crate::prometheus::{
    OF_TARGET, Prometheus, TARGET_LABELS, dashboard, grafana, panels, queries, read, rules, with_everything_chosen,
};
use crate::scraped::Process;

/// What a query selects: the names of series, and the labels that it asks something of.
fn selected(query: &str) -> Vec<(String, BTreeSet<String>)> {
    struct Selectors(Vec<(String, BTreeSet<String>)>);
    impl ExprVisitor for Selectors {
        type Error = std::convert::Infallible;
        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
            let selector = match expression {
                Expr::VectorSelector(selector) => selector,
                Expr::MatrixSelector(matrix) => &matrix.vs,
                _ => return Ok(true),
            };
            let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone());
            self.0.push((selector.name.clone().expect("every selector names its series"), labels.collect()));
            Ok(true)
        }
    }
    let parsed = parse(query).unwrap_or_else(|why| panic!("{query}: {why}"));
    let mut found = Selectors(Vec::new());
    let Ok(_) = walk_expr(&mut found, &parsed);
    assert!(!found.0.is_empty(), "{query}");
    found.0
}

fn dashboard_queries() -> Vec<(String, String)> {
    queries(&dashboard()).into_iter().map(|(title, query)| (title, with_everything_chosen(&query, "5m"))).collect()
}

/// The names in a text that look like ours.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !word(c)).filter(|name| name.starts_with("leasehold_")).map(str::to_owned).collect()
}

/// The names under which the families' series are asked for.
fn series() -> BTreeSet<String> {
    let of = |family: &Family| match family.kind {
        FamilyKind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", family.name)).to_vec(),
        _ => vec![family.name.to_owned()],
    };
    FAMILIES.iter().flat_map(of).collect()
}

fn promtool(words: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(words).current_dir(grafana());
    feed(command, input)
}

fn feed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is there: tests/run installs it");
    // It may have heard enough before the end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The family that a series belongs to.
fn family(series: &str) -> Option<&'static Family> {
    let of = |family: &&Family| {
        let rest = series.strip_prefix(family.name);
        rest.is_some_and(|rest| rest.is_empty() || ["_bucket", "_sum", "_count"].contains(&rest))
    };
    FAMILIES.iter().find(of)
}

#[test]
fn what_is_shown_is_declared_and_what_is_declared_is_shown() {
    let shown: BTreeSet<_> =
        dashboard_queries().iter().flat_map(|(_, query)| selected(query)).map(|(name, _)| name).collect();
    let ruled: Vec<_> = ["rules.yml", "alerts.yml"].iter().flat_map(|file| rules(&read(file))).collect();
    let records: BTreeSet<_> = rules(&read("rules.yml")).into_iter().map(|(name, _)| name).collect();
    let asked = ruled.iter().flat_map(|(_, query)| selected(query)).map(|(name, _)| name);
    let known = series();
    for name in shown.iter().cloned().chain(asked) {
        let is_foreign = name == "up" || name.starts_with("process_");
        assert!(known.contains(&name) || records.contains(&name) || is_foreign, "{name} is not declared");
    }
    for family in FAMILIES {
        assert!(shown.iter().any(|name| name.starts_with(family.name)), "{} is not shown", family.name);
    }
    // Nothing was missed by the reading of the files.
    let written: BTreeSet<_> = ["rules.yml", "alerts.yml"].into_iter().flat_map(|file| named(&read(file))).collect();
    assert!(written.iter().all(|name| known.contains(name)), "{written:?}");
    for text in [read("README.md"), std::fs::read_to_string(grafana().join("../README.md")).unwrap()] {
        assert!(named(&text).iter().all(|name| known.contains(name) || FAMILIES.iter().any(|f| f.name == name)));
    }
}

#[test]
fn every_query_heeds_what_is_chosen_as_far_as_its_series_have_that_label() {
    for (title, query) in dashboard_queries() {
        for (series, labels) in selected(&query) {
            let chosen: BTreeSet<_> = ["job", "instance"]
                .into_iter()
                .chain(
                    ["manager", "lock_namespace"]
                        .into_iter()
                        .filter(|label| family(&series).is_some_and(|f| f.labels.contains(label))),
                )
                .collect();
            let heeded: BTreeSet<_> = labels.iter().map(String::as_str).collect();
            assert!(chosen.is_subset(&heeded), "{title}: {series} {labels:?}");
            let known: BTreeSet<_> = family(&series).map_or(&[][..], |f| f.labels).iter().copied().collect();
            assert!(heeded.iter().all(|label| chosen.contains(label) || known.contains(label)), "{title}: {labels:?}");
        }
    }
    let variables = dashboard()["templating"]["list"].as_array().unwrap().clone();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "manager", "lock_namespace"]);
}

#[test]
fn no_label_of_ours_is_one_that_a_target_has() {
    for family in FAMILIES {
        let taken =
            family.labels.iter().find(|label| TARGET_LABELS.contains(label) || ["job", "instance"].contains(label));
        assert_eq!(taken, None, "{}", family.name);
    }
}

#[test]
fn grafanas_own_schema_reads_the_dashboard_and_writes_the_same() {
    // Beside this binary's `debug/deps`.
    let binary = std::env::current_exe().unwrap();
    let python = binary.ancestors().nth(3).expect("it lies in a target directory").join("python/bin/python");
    assert!(python.exists(), "no {}: run tests/support/foreign/prepare, or tests/run", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign/grafana_sdk.py");
    let checked = |dashboard: &str| {
        let mut command = Command::new(&python);
        command.arg(&script);
        let output = feed(command, dashboard);
        (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat())
    };
    let text = read("dashboards/leasehold.json");
    let (is_sound, said) = checked(&text);
    assert!(is_sound, "{said}");
    for (right, wrong) in [
        ("\"unit\": \"percentunit\"", "\"unitt\": \"percentunit\""),
        ("\"editable\": true", "\"editable\": \"yes\""),
        ("\"graphTooltip\": 1", "\"graphTooltip\": \"1\""),
    ] {
        assert!(text.contains(right) && !checked(&text.replace(right, wrong)).0, "{wrong}");
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
    // Where the container has its files.
    let dir = kit::Dir::make();
    let config = dir.path().join("prometheus.yml");
    let here = format!("{}/", grafana().display());
    std::fs::write(&config, read("prometheus.yml").replace("/etc/prometheus/", &here)).unwrap();
    let output = promtool(&["check", "config", &config.display().to_string()], "");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && found.contains("12 rules found"), "{found}");
    let (alerts, cases) = (read("alerts.yml"), read("rules_test.yml"));
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    for name in &names {
        assert!(cases.contains(&format!("alertname: {name}\n")), "{name} has no case in which it fires");
    }
    for part in ["for:", "severity:", "summary:", "description:"] {
        assert_eq!(alerts.matches(part).count(), names.len(), "{part}");
    }
}

#[actix_rt::test]
async fn a_real_prometheus_finds_data_for_every_panel_of_a_server_under_load() {
    let redis = kit::Server::start(&[]);
    let process = Process::serve(&["--store", &redis.url()], &[]);
    let check = promtool(&["check", "metrics"], &process.scrape().await);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let prometheus = Prometheus::start("250ms", &[("leasehold", &process.url)], &[]);
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
            if prometheus.ask(&with_everything_chosen(&query, "5s")).await.is_ok_and(|values| !values.is_empty()) {
                continue;
            }
            still.push((title, query));
        }
        missing = still;
    }
    for variable in dashboard()["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let query = with_everything_chosen(variable["query"]["query"].as_str().unwrap(), "5s");
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(")")).unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        let values = prometheus.get(&format!("label/{label}/values"), &[("match[]", series)]).await.unwrap();
        let values = values.as_array().unwrap();
        assert!(!values.is_empty() && !values.contains(&json!(OF_TARGET)), "{label}: {values:?}");
    }
    // Prometheus renames what collides.
    let renamed = TARGET_LABELS.map(|label| format!("{{__name__=~'leasehold.*',exported_{label}!=''}}"));
    for query in renamed {
        assert_eq!(prometheus.ask(&query).await.unwrap(), [0.0; 0], "{query}");
    }
}
