//! Fear: the Debian package installs what does not start, ends locks when it is upgraded, or leaves a server behind when it
//! is removed.

use crate::binary::{Did, leasehold};
use crate::built::packages;
use crate::kit::until_or;
use crate::machine::{Machine, in_mnt};

const TOKEN: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const START: &str = "systemctl start leasehold";

/// A machine with the package on it.
fn installed() -> Machine {
    let machine = bare();
    machine.sh("dpkg --install /mnt/leasehold-1.deb");
    machine
}

fn bare() -> Machine {
    let [first, second] = packages();
    Machine::boot(&[&first, &second])
}

/// Whether the lock is held that these tests take.
fn is_held(machine: &Machine) -> bool {
    machine.did(&["leasehold", "show", "order:42"]).said().contains("ours")
}

fn take(machine: &Machine) {
    machine.sh(&format!("leasehold acquire order:42 --owner ours --lock-token {TOKEN} --ttl 1h"));
    assert!(is_held(machine));
}

/// Waits until it serves: a restart by systemd comes when it comes.
fn until_ready(machine: &Machine) {
    machine.becomes("a server that is ready", || (machine.did(&["leasehold", "health"]).code == 0).then_some(()));
}

#[test]
fn what_was_just_installed_starts_nothing_by_itself() {
    let machine = installed();
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.property("UnitFileState"), "disabled");
    assert_eq!(machine.sh("stat --format %U:%G:%a /etc/leasehold").trim(), "root:leasehold:750");
}

#[test]
fn the_server_is_started_confined_and_works() {
    let machine = installed();
    // The unit is of Type=notify: this returns when the server says that it serves.
    machine.sh(START);
    assert_eq!(machine.sh("leasehold health").trim(), "ready");
    take(&machine);
    machine.sh(&format!("leasehold heartbeat order:42 {TOKEN} --ttl 1h && leasehold release order:42 {TOKEN}"));

    let status = machine.sh(&format!("cat /proc/{}/status", machine.property("MainPID")));
    let user = machine.sh("id --user leasehold");
    for (name, value) in [
        ("Uid", user.trim()),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
    ] {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{line}");
    }
    let log = machine.sh("journalctl --unit leasehold");
    assert!(!["WARN", "ERROR", "panic"].iter().any(|word| log.contains(word)), "{log}");
    // They are read from what little of /proc it still sees.
    let metrics = machine.get("/metrics");
    for family in ["process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
        assert!(metrics.lines().any(|line| line.starts_with(family)), "{family}: {metrics}");
    }
}

#[test]
fn the_settings_are_those_of_the_binary_and_none_of_them_is_set() {
    let machine = installed();
    let file = "/etc/leasehold/leasehold.toml";
    assert_eq!(machine.sh("leasehold config print"), machine.sh(&format!("leasehold config print --config {file}")));
    // Each line that names a value is one that the server takes.
    machine.sh(&format!("sed -i 's/^# \\([a-z-]* = .\\+\\)/\\1/' {file}"));
    let all = machine.sh(&format!("grep -c '^[a-z]' {file}"));
    assert!(all.trim().parse::<u32>().unwrap() > 20, "{all}");
    machine.sh(START);
    assert_eq!(machine.sh("leasehold health").trim(), "ready");
}

#[test]
fn pages_and_completions_are_those_of_the_binary() {
    let machine = installed();
    let there = machine.sh("ls /usr/share/man/man1 | sed -n 's/^leasehold-\\(.*\\)\\.1\\(\\.gz\\)\\?$/\\1/p'");
    let help = Did::of(leasehold(&["--help"])).ok();
    let verbs = help.split("\nCommands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with([' ', '\u{1b}']));
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split(' ').next()).filter(|verb| *verb != "help").collect();
    assert!(verbs.len() > 12, "{help}");
    for verb in verbs {
        assert!(there.lines().any(|page| page == verb), "{verb} has no page: {there}");
    }
    let pages = machine.sh("zcat --force /usr/share/man/man1/leasehold-run.1*");
    assert_eq!(pages, Did::of(leasehold(&["man", "run"])).ok());
    for (shell, file) in [
        ("bash", "bash-completion/completions/leasehold"),
        ("zsh", "zsh/vendor-completions/_leasehold"),
        ("fish", "fish/vendor_completions.d/leasehold.fish"),
    ] {
        assert_eq!(machine.sh(&format!("cat /usr/share/{file}")), Did::of(leasehold(&["completions", shell])).ok());
    }
}

#[test]
fn an_upgrade_ends_no_lock_and_says_what_still_runs() {
    let machine = installed();
    machine.sh(START);
    machine.sh("sed -i 's/^# grace = .*/grace = \"4s\"/' /etc/leasehold/leasehold.toml");
    take(&machine);
    let process = machine.property("MainPID");

    let said = machine.sh("dpkg --install /mnt/leasehold-2.deb");
    assert!(said.contains(&format!("process {process} goes on with version 0.1.0-1")), "{said}");
    assert!(said.contains("systemctl restart leasehold"), "{said}");
    assert!(is_held(&machine));
    assert_eq!(machine.property("MainPID"), process);
    machine.sh("grep '^grace = \"4s\"' /etc/leasehold/leasehold.toml");

    // In memory: what a restart is for, and why it is not made unasked.
    machine.sh("systemctl restart leasehold");
    assert!(!is_held(&machine));
    let said = machine.sh("dpkg --install /mnt/leasehold-2.deb");
    assert!(said.contains("goes on"), "it was replaced again: {said}");
}

#[test]
fn an_upgrade_of_what_does_not_run_says_nothing() {
    let machine = installed();
    let said = machine.sh("dpkg --install /mnt/leasehold-2.deb");
    assert!(!said.contains("goes on") && !said.contains("restart"), "{said}");
}

#[test]
fn locks_in_memory_outlast_a_restart_where_their_holders_give_them_back() {
    let machine = installed();
    // In what is left of a longer grace time heartbeats would be told that the locks have ended.
    machine.sh("echo LEASEHOLD_GRACE=0s > /etc/default/leasehold");
    machine.sh(START);
    machine.sh("leasehold run --key order:42 --owner ours --ttl 20s -- sleep 600 > /run/command 2>&1 &");
    machine.becomes("the lock", || is_held(&machine).then_some(()));
    machine.sh("echo LEASEHOLD_START_DELAY=20s > /etc/default/leasehold");
    machine.sh("dpkg --install /mnt/leasehold-2.deb && systemctl restart leasehold");
    let known = || machine.did(&["sh", "-c", "cat /run/command; journalctl --unit leasehold --lines 20"]).said();
    until_or("a heartbeat", known, || is_held(&machine).then_some(()));
    // Nor has the command heard of it.
    machine.sh("grep '^sleep' /proc/[0-9]*/comm");
}

#[test]
fn locks_in_redis_outlast_the_server() {
    let machine = installed();
    machine.sh("systemctl start redis-server");
    machine.sh("echo LEASEHOLD_STORE=redis://127.0.0.1:6379 > /etc/default/leasehold");
    machine.sh(START);
    until_ready(&machine);
    take(&machine);
    machine.sh("dpkg --install /mnt/leasehold-2.deb && systemctl restart leasehold");
    until_ready(&machine);
    machine.did(&["leasehold", "acquire", "order:42", "--nonblock"]).fails(1, "");
    // To the new server it is its holder's, whether that asks for it again or not.
    let heartbeat = ["leasehold", "heartbeat", "order:42", TOKEN];
    machine.did(&heartbeat).ok();
    take(&machine);
    machine.did(&heartbeat).ok();
    machine.sh(&format!("leasehold release order:42 {TOKEN}"));
}

#[test]
fn a_stop_gives_holders_their_time_and_ends_well() {
    let machine = installed();
    machine.sh("echo LEASEHOLD_GRACE=1s > /etc/default/leasehold");
    machine.sh(START);
    take(&machine);
    machine.sh("systemctl stop leasehold");
    assert_eq!(machine.property("Result"), "success");
    let log = machine.sh("journalctl --unit leasehold");
    assert!(log.contains("locks were still held"), "{log}");
}

#[test]
fn a_server_that_dies_is_started_again_and_one_that_is_set_wrong_is_not() {
    let machine = installed();
    machine.sh(START);
    let first = machine.property("MainPID");
    machine.sh("systemctl kill --signal KILL leasehold");
    machine.becomes("another server", || (machine.property("NRestarts") == "1").then_some(()));
    until_ready(&machine);
    assert_ne!(machine.property("MainPID"), first);

    machine.sh("systemctl stop leasehold; echo 'ttl = \"soon\"' > /etc/leasehold/leasehold.toml");
    machine.did(&["systemctl", "start", "leasehold"]).fails(1, "exited with error code");
    assert_eq!([machine.property("ExecMainStatus"), machine.property("ActiveState")], ["64", "failed"]);
    let log = machine.sh("journalctl --unit leasehold");
    assert!(log.contains("/etc/leasehold/leasehold.toml: ") && log.contains("--ttl"), "{log}");
}

#[test]
fn tokens_beside_the_settings_can_be_read_and_are_read_again() {
    let machine = installed();
    let tokens = "/etc/leasehold/tokens.json";
    let list = |name: &str| {
        let list = format!(r#"[{{"name":"{name}","token":"{name}-0123456789abcdef","rights":["acquire","read"]}}]"#);
        machine.sh(&format!("install -m 640 -g leasehold /dev/stdin {tokens} << 'E'\n{list}\nE"));
    };
    let may = |name: &str| {
        let ask = format!("LEASEHOLD_TOKEN={name}-0123456789abcdef leasehold ls");
        machine.did(&["sh", "-c", &ask]).code == 0
    };
    list("old");
    machine.sh(&format!("echo 'tokens-file = \"{tokens}\"' >> /etc/leasehold/leasehold.toml"));
    machine.sh(START);
    assert!(may("old") && !may("new"));
    list("new");
    machine.sh("systemctl reload leasehold");
    machine.becomes("the other token", || may("new").then_some(()));
    assert!(!may("old"));
}

#[test]
fn a_removal_ends_the_server_and_a_purge_leaves_what_others_put_there() {
    let machine = installed();
    machine.sh("systemctl enable --now leasehold && touch /etc/leasehold/tokens.json");
    machine.sh("dpkg --remove leasehold");
    assert_ne!(machine.property("ActiveState"), "active");
    assert_eq!(machine.did(&["sh", "-c", "ls /etc/systemd/system/*/leasehold.service"]).stdout, "");
    assert!(machine.sh("ls /etc/leasehold").contains("leasehold.toml"), "settings stay until a purge");
    // What is removed can come back.
    machine.sh("dpkg --install /mnt/leasehold-1.deb");
    machine.sh(START);
    machine.sh("dpkg --purge leasehold");
    assert_eq!(machine.sh("ls /etc/leasehold").trim(), "tokens.json");
    assert_eq!(machine.did(&["sh", "-c", "command -v leasehold"]).stdout, "");
}

#[test]
fn the_program_works_where_no_systemd_runs() {
    let [package, _] = packages();
    let machine = Machine::start(&in_mnt(&[&package]), &["sleep", "infinity"]);
    machine.sh("dpkg --install /mnt/leasehold-1.deb");
    assert_eq!(machine.sh("leasehold --version"), Did::of(leasehold(&["--version"])).ok());
    machine.sh("dpkg --purge leasehold");
}
