//! Fear: an example that newcomers copy does not do what it says.

use std::process::Command;

/// What an example prints. Cargo builds the examples along with the tests, next to them.
fn run(name: &str) -> String {
    run_with(name, &[])
}

fn run_with(name: &str, env: &[(&str, &str)]) -> String {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    let output = Command::new(&path)
        .env_remove("REDIS_URL")
        .envs(env.iter().copied())
        .output()
        .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn auto_refresh_keeps_tells_and_caps() {
    let shown = run("auto_refresh");
    assert!(shown.contains("after a second with a TTL of 300 ms: held = true"), "{shown}");
    assert!(shown.contains("refreshing failed: the lock is lost: an operator released it by force"), "{shown}");
    assert!(shown.contains("capped at 500 ms: its deadline passed"), "{shown}");
}

#[test]
fn run_and_try_run_runs_once_and_skips_once() {
    let shown = run("run_and_try_run");
    assert!(shown.contains("one item deducted; the lock was Released"), "{shown}");
    assert!(shown.contains("the first start did the job"), "{shown}");
    assert!(shown.contains("the second start found it running and skipped"), "{shown}");
}

#[test]
fn singleflight_looks_up_once() {
    let shown = run("singleflight");
    assert!(shown.contains("100 answers, all 1999, from 1 look-up"), "{shown}");
    assert!(shown.contains("1 led, 99 shared"), "{shown}");
}

#[test]
fn session_deadlock_names_the_cycle_and_both_finish() {
    let shown = run("session_deadlock");
    assert!(shown.contains("alice is refused: alice waits for account:2, bob waits for account:1"), "{shown}");
    assert!(shown.contains("alice has moved the money"), "{shown}");
    assert!(shown.contains("bob has moved the money"), "{shown}");
    assert!(shown.contains("1 request refused, 0 locks left"), "{shown}");
}

#[cfg(feature = "test-util")]
#[test]
fn a_store_on_files_keeps_the_contract() {
    assert!(run("file_store").contains("a store on files keeps the contract"));
}

const REFUSED: [&str; 4] = [
    "alice holds the report, and is paused",
    "bob was granted it when alice's TTL had run out",
    "alice is refused: the fence ",
    "her lock says so, too: held = false\nin the end there is bob's report",
];

#[test]
fn paused_holder_is_refused_by_the_resource() {
    let shown = run("paused_holder");
    for line in REFUSED {
        assert!(shown.contains(line), "{shown}");
    }
}

#[cfg(feature = "redis")]
#[test]
fn paused_holder_is_refused_by_the_resource_in_redis() {
    let server = crate::kit::Server::start(&[]);
    let shown = run_with("paused_holder", &[("REDIS_URL", &server.url())]);
    for line in REFUSED {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(server.ask::<String>("GET paused_holder:report"), "bob's report");
}
