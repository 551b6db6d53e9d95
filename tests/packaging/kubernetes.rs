//! Fear: the manifests are no manifests, miss each other, or start what their own probes find ill.
//!
//! There is no cluster here: `kubectl` puts them together, Kubernetes' own schemas are asked about every field, and their
//! containers start with their settings, users and mounts on a machine of their own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::{BINARY, Did, command};
use crate::built::{prepared, read_yaml, root, yaml};
use crate::image::{Image, texts};
use crate::kit::Dir;
use crate::machine::Machine;

const FOLDERS: [&str; 2] = ["over-redis", "in-memory"];
const CRON_JOB: &str = "packaging/kubernetes/cron-job.yaml";
/// The oldest release that they are said to be for, and the newest that the schemas know.
const RELEASES: [&str; 2] = ["1.29", "1.37"];
const TOKEN: &str = "0123456789abcdef0123";

/// What `kubectl apply --kustomize` would send.
fn put_together(folder: &str) -> (Dir, PathBuf) {
    let path = root().join("packaging/kubernetes").join(folder);
    let text = Did::of(command("kubectl", &["kustomize", path.to_str().unwrap()])).ok();
    let dir = Dir::make();
    let file = dir.path().join("all.yaml");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

fn objects(folder: &str) -> Vec<Value> {
    let (_dir, file) = put_together(folder);
    read_yaml(&file, None)
}

#[track_caller]
fn object<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The object that has the container, and it.
fn workload(objects: &[Value]) -> (&Value, &Value) {
    let found = objects.iter().find(|object| object["spec"]["template"]["spec"]["containers"].is_array()).unwrap();
    (found, &found["spec"]["template"]["spec"]["containers"][0])
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    let validate = prepared("python/bin/kubernetes-validate");
    for release in RELEASES {
        for folder in FOLDERS {
            let (_dir, file) = put_together(folder);
            let mut objects = read_yaml(&file, None);
            // Not of Kubernetes itself.
            objects.retain(|object| object["kind"] != "ServiceMonitor");
            for object in objects {
                std::fs::write(&file, object.to_string()).unwrap();
                let words = ["--strict", "--quiet", "-k", release, file.to_str().unwrap()];
                Did::of(command(validate.to_str().unwrap(), &words)).ok();
            }
        }
        let job = root().join(CRON_JOB);
        let words = ["--strict", "--quiet", "-k", release, job.to_str().unwrap()];
        Did::of(command(validate.to_str().unwrap(), &words)).ok();
    }
}

#[test]
fn the_service_monitor_is_one_of_the_prometheus_operator() {
    let objects = objects("over-redis");
    let monitor = object(&objects, "ServiceMonitor");
    let check = |monitor: &Value| {
        let mut check = Command::new("node");
        check.arg(root().join("tests/packaging/service_monitor.mjs")).arg(prepared("node"));
        let mut check = check.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(monitor.to_string().as_bytes()).unwrap();
        check.wait().unwrap().success()
    };
    assert!(check(monitor));
    let mut wrong = monitor.clone();
    wrong["spec"]["endpoints"][0]["interval"] = Value::from(15);
    assert!(!check(&wrong), "the schema was not asked");
}

#[test]
fn what_belongs_together_names_each_other() {
    for folder in FOLDERS {
        let objects = objects(folder);
        let (workload, container) = workload(&objects);
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
        let service = object(&objects, "Service");
        assert_eq!(&service["spec"]["selector"], labels);
        assert_eq!(&service["metadata"]["labels"], labels, "the ServiceMonitor looks for it by these");
        let port = &container["ports"][0];
        assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], port["name"], "{probe}");
        }
        for (kind, selector) in
            [("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("ServiceMonitor", "selector")]
        {
            for object in objects.iter().filter(|object| object["kind"] == kind) {
                assert_eq!(&object["spec"][selector]["matchLabels"], labels, "{kind}");
            }
        }
        let image = container["image"].as_str().unwrap();
        assert_eq!(image, concat!("leasehold:", env!("CARGO_PKG_VERSION")));
    }
    let objects = objects("over-redis");
    let port = &object(&objects, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"];
    assert_eq!(port, &object(&objects, "ServiceMonitor")["spec"]["endpoints"][0]["port"]);
}

/// Two that keep locks in memory would both grant.
#[test]
fn in_memory_there_is_never_a_second_server() {
    let objects = objects("in-memory");
    let (workload, container) = workload(&objects);
    assert_eq!((&workload["kind"], &workload["spec"]["replicas"]), (&"StatefulSet".into(), &1.into()));
    let value = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(value("LEASEHOLD_STORE"), "memory");
    // What the last one granted is over by then.
    assert_eq!(value("LEASEHOLD_START_DELAY"), value("LEASEHOLD_MAX_TTL"));
}

/// The settings of a container; what comes out of the secret is given here.
fn variables(container: &Value) -> Vec<(String, String)> {
    let all = container["env"].as_array().unwrap();
    let of_secret = |name: &str| {
        let url = "redis://127.0.0.1:6379".to_owned();
        if ["LEASEHOLD_STORE", "REDIS_URL"].contains(&name) { url } else { panic!("{name}") }
    };
    all.iter()
        .map(|one| {
            let name = one["name"].as_str().unwrap();
            let value = one["value"].as_str().map_or_else(|| of_secret(name), str::to_owned);
            (name.to_owned(), value)
        })
        .collect()
}

fn started(folder: &str) -> (Value, Machine, Dir) {
    let objects = objects(folder);
    let (_, container) = workload(&objects);
    let image = Image::read();
    let pod = &workload(&objects).0["spec"]["template"]["spec"];
    let user = format!("{}:{}", pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]);
    assert_eq!(image.one("USER"), user);
    let dir = Dir::make();
    let tokens = dir.path().join("tokens.json");
    let list = format!(r#"[{{"name":"jobs","token":"{TOKEN}","rights":["acquire","read"]}}]"#);
    std::fs::write(&tokens, list).unwrap();
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/leasehold");
    let files = [(tokens, "/etc/leasehold/tokens.json".to_owned())];
    let machine = image.start(Some(texts(&container["args"])), &variables(container), &files);
    (container.clone(), machine, dir)
}

fn answers(machine: &Machine, container: &Value, probe: &str) -> bool {
    let path = container[probe]["httpGet"]["path"].as_str().unwrap();
    // By the address, as the kubelet asks, and without a token.
    machine.asks(&format!("http://127.0.0.1:7420{path}")).code == 0
}

#[test]
fn the_servers_over_redis_start_as_they_are_told_and_their_probes_tell_the_store_from_the_server() {
    let (container, machine, _dir) = started("over-redis");
    machine.becomes("a server", || answers(&machine, &container, "startupProbe").then_some(()));
    assert!(answers(&machine, &container, "livenessProbe"), "without Redis it lives");
    assert!(!answers(&machine, &container, "readinessProbe"), "and is not ready");
    machine.sh("cd /tmp && redis-server --daemonize yes --save ''");
    machine.becomes("a ready server", || answers(&machine, &container, "readinessProbe").then_some(()));
    machine.sh(&format!("LEASEHOLD_TOKEN={TOKEN} leasehold run --key order:42 -- true"));
    let before_its_end = texts(&container["lifecycle"]["preStop"]["exec"]["command"]);
    machine.sh(&format!("command -v {}", before_its_end[0]));
    assert_eq!(machine.end("TERM"), 0);
}

#[test]
fn the_server_in_memory_starts_as_it_is_told() {
    let (container, machine, _dir) = started("in-memory");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        machine.becomes(probe, || answers(&machine, &container, probe).then_some(()));
    }
    // It grants nothing yet.
    let refused = format!("LEASEHOLD_TOKEN={TOKEN} leasehold run --key order:42 --nonblock -- true");
    machine.did(&["sh", "-c", &refused]).fails(69, "just started");
    assert_eq!(machine.end("TERM"), 0);
}

/// The first container brings the program, the second one runs under the lock, and who comes second skips its turn.
#[test]
fn the_cron_job_runs_once_at_a_time() {
    let job = yaml(CRON_JOB, None).remove(0);
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let machine =
        Machine::start(&[(PathBuf::from(BINARY), "/usr/local/bin/leasehold".to_owned())], &["sleep", "infinity"]);
    machine.sh("cd /tmp && redis-server --daemonize yes --save '' && mkdir /lease");
    let bring: Vec<String> = texts(&pod["initContainers"][0]["command"]);
    machine.sh(&bring.join(" "));
    let container = &pod["containers"][0];
    let variables = variables(container).into_iter().map(|(name, value)| format!("{name}={value}"));
    let words = ["env".to_owned()].into_iter().chain(variables).chain(texts(&container["command"]));
    let words: Vec<String> = words.chain(texts(&container["args"])).collect();
    let run = || machine.did(&words.iter().map(|word| &**word).collect::<Vec<_>>());
    machine.becomes("Redis", || (machine.did(&["redis-cli", "ping"]).code == 0).then_some(()));
    assert!(run().ok().starts_with("reporting under fencing token "));
    machine.sh("redis-cli set lock:cron:nightly-report somebody px 60000");
    assert_eq!(run().ok(), "");
}
