//! Fear: the systemd unit lets the server do what it never does, or gives it less than its settings ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::binary::{Did, command, leasehold};
use crate::built::{root, text};

const UNIT: &str = "packaging/debian/leasehold.service";

/// The lines of the unit that set something.
fn unit() -> BTreeMap<String, String> {
    let text = text(UNIT);
    let set = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A setting of the server as it is by default.
fn default_of(name: &str) -> String {
    let settings = Did::of(leasehold(&["config", "print"])).ok();
    let line = settings.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")).map(str::to_owned));
    line.unwrap().split("  #").next().unwrap().trim_matches('"').to_owned()
}

#[test]
fn systemd_finds_the_unit_well_confined() {
    let path = root().join(UNIT);
    let said = Did::of(command("systemd-analyze", &["security", "--offline=true", path.to_str().unwrap()])).ok();
    let level = said.lines().find_map(|line| line.split("exposure level for leasehold.service: ").nth(1)).unwrap();
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level < 2.0, "{said}");
}

#[test]
fn the_server_has_the_time_and_the_files_that_its_settings_ask_for() {
    let unit = unit();
    let time = |text: &str| humantime::parse_duration(text).unwrap();
    // What is logged last is waited for, too.
    assert!(time(&unit["TimeoutStopSec"]) > time(&default_of("grace")) + Duration::from_secs(1));
    let files: u64 = unit["LimitNOFILE"].parse().unwrap();
    let connections: u64 = default_of("max-connections").parse().unwrap();
    assert!(files >= connections + 1024, "listeners, pollers, stores");
}

#[test]
fn a_usage_error_is_the_one_exit_that_is_not_tried_again() {
    let code: i32 = unit()["RestartPreventExitStatus"].parse().unwrap();
    Did::of(leasehold(&["serve", "--ttl", "soon"])).fails(code, "--ttl");
}
