//! Fear: `leasehold run` runs a command without the lock, lets it live longer than the lock, or tells a script the wrong
//! thing. The terminal part is in `terminal`.

use std::io::Write;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{BINARY, Did, Running, Server, command, file, lives};
use crate::kit::{self, until};

fn wall_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let server = Server::start(&[]);
    let rows: [(&[&str], i32); 9] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -SEGV $$"], 128 + 11),
        (&["no-such-command"], 127),
        (&["/no/such/command"], 127),
        (&["/etc/passwd"], 126),
    ];
    for (words, code) in rows {
        let did = server.did(&[&["run", "--key", "k", "--"], words].concat());
        assert_eq!(did.code, code, "{words:?}: {did:?}");
        assert_eq!(server.total("active"), 0, "{words:?}: it is released whatever happened");
    }
    assert_eq!(server.total("total"), 9);
}

#[test]
fn a_lock_that_others_hold_ends_with_1_or_what_was_said() {
    let server = Server::start(&[]);
    let held = server.holds("k", &["--owner", "the other"]);
    let run = |words: &[&str]| server.did(&[&["run", "--key", "k"], words, &["--", "echo", "ran"]].concat());
    for words in [&["--nonblock"][..], &["--wait", "20ms"], &["--wait", "0s"]] {
        let did = run(words).fails(1, "k: ");
        assert!(did.stderr.contains("the other") && did.stdout.is_empty(), "{did:?}");
    }
    run(&["--nonblock", "--conflict-exit-code", "0"]).fails(0, "");
    run(&["--nonblock", "--conflict-exit-code", "111"]).fails(111, "held");
    let waits = server.starts(&["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    until("the waiter", || server.total("waiting") == 1);
    held.signal("TERM");
    assert_eq!(waits.end().ok(), "ran\n");
}

#[test]
fn what_makes_no_sense_ends_with_64_and_runs_nothing() {
    let server = Server::start(&[]);
    let rows: [(&[&str], &str); 15] = [
        (&["--", "echo"], "--key"),
        (&["--key", "k"], "COMMAND"),
        (&["--key", "k", "--ttl", "soon", "--", "echo"], "soon"),
        (&["--key", "k", "--ttl", "4s", "--kill-after", "2s", "--", "echo"], "--kill-after"),
        (&["--key", "k", "--nonblock", "--wait", "1s", "--", "echo"], "--nonblock"),
        (&["--key", "k", "--shared", "--limit", "2", "--", "echo"], "--limit"),
        (&["--key", "k", "--limit", "0", "--", "echo"], "--limit"),
        (&["--key", "k", "--permits", "2", "--", "echo"], "--limit"),
        (&["--key", "k", "--limit", "2", "--permits", "0", "--", "echo"], "--permits"),
        (&["--key", "k", "--limit", "2", "--permits", "3", "--", "echo"], "permits"),
        (&["--key", "k", "--store", "memory", "--", "echo"], "memory"),
        (&["--key", "k", "--store", "redis://x", "--server", "http://x", "--", "echo"], "--server"),
        (&["--key", "k", "--server", "ftp://x", "--", "echo"], "--server"),
        (&["--key", "", "--", "echo"], "key"),
        (&["--key", "k", "--ttl", "25h", "--", "echo"], "ttl"),
    ];
    for (words, why) in rows {
        let did = server.did(&[&["run"], words].concat()).fails(64, why);
        assert!(did.stdout.is_empty(), "{did:?}");
    }
    assert_eq!(server.total("total"), 0);
}

#[test]
fn a_server_that_grants_nothing_yet_ends_with_69() {
    let server = Server::start(&["--start-delay", "1h"]);
    server.did(&["run", "--key", "k", "--nonblock", "--", "echo"]).fails(69, "just started");
}

#[test]
fn the_command_holds_the_lock_and_is_told_of_it() {
    let server = Server::start(&[]);
    let script =
        "echo $LEASEHOLD_KEY $LEASEHOLD_FENCING_TOKEN $LEASEHOLD_DEADLINE; \"$0\" ls; cut -d' ' -f1,5 /proc/$$/stat";
    let before = wall_ms();
    let out =
        server.did(&["run", "--key", "a key", "--ttl", "20s", "--owner", "me", "--", "sh", "-c", script, BINARY]).ok();
    let lines: Vec<&str> = out.lines().collect();
    let [told, listed, ids] = lines[..] else { panic!("{out}") };
    let columns: Vec<&str> = listed.split('\t').collect();
    assert_eq!((columns[0], columns[1], columns[2]), ("a key", "exclusive", "me"));
    let words: Vec<&str> = told.rsplitn(3, ' ').collect();
    assert_eq!((words[2], words[1]), ("a key", columns[7]), "{told}");
    let deadline: u128 = words[0].parse().unwrap();
    assert!((before..=wall_ms() + 20_000).contains(&deadline), "{deadline}");
    let (process, group) = ids.split_once(' ').unwrap();
    assert_eq!(process, group, "it has a group of its own");
}

#[test]
fn stdin_stdout_and_words_are_the_commands_own() {
    let server = Server::start(&[]);
    let script = "cat; for word; do echo \"[$word]\"; done; echo err >&2";
    let mut command = server.command(&["run", "--key", "k", "--", "sh", "-c", script, "sh", "--key", "*", "a b", ""]);
    let mut run = Running(command.stdin(Stdio::piped()).spawn().unwrap());
    run.0.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let did = run.end();
    assert_eq!((did.stdout.as_str(), did.stderr.as_str()), ("typed\n[--key]\n[*]\n[a b]\n[]\n", "err\n"));
}

#[test]
fn heartbeats_keep_the_lock_beyond_its_ttl() {
    let server = Server::start(&[]);
    let beaten = "until [ $(\"$0\" stats | sed -n 's/^refreshed\\t//p') -ge 5 ]; do sleep 0.05; done; \"$0\" stats";
    let out = server.did(&["run", "--key", "k", "--ttl", "900ms", "--", "sh", "-c", beaten, BINARY]).ok();
    assert!(out.contains("active\t1\n") && out.contains("expired\t0\n"), "{out}");
}

#[test]
fn shared_and_limited_locks_are_held_by_several() {
    let server = Server::start(&[]);
    let rows: [(&[&str], &[&str], &[&str]); 4] = [
        (&["--limit", "5", "--permits", "3"], &["--limit", "5"], &["--limit", "5", "--permits", "2"]),
        (&["--shared"], &["--shared"], &[]),
        (&["--limit", "2"], &["--limit", "2"], &["--limit", "2"]),
        (&["--limit", "1"], &[], &["--limit", "1"]),
    ];
    for (first, joins, refused) in rows {
        let first = server.holds("k", first);
        let second = (!joins.is_empty()).then(|| server.holds("k", joins));
        server.did(&[&["run", "--key", "k", "--nonblock"], refused, &["--", "true"]].concat()).fails(1, "held");
        drop((first, second));
        until("a free key", || server.total("active") == 0);
    }
}

/// A command that takes no notice of SIGTERM but to say so, and writes down when it was last alive.
const STUBBORN: &str = "trap 'echo told >> \"$0.told\"' TERM; echo $LEASEHOLD_DEADLINE $$ > \"$0\"; \
                        while :; do date +%s%3N > \"$0.new\"; mv \"$0.new\" \"$0.last\"; sleep 0.02; done";

/// Peer bug 39: the command ran on when its lock was lost, and the exit code did not say so.
#[test]
fn a_lock_that_was_taken_away_kills_the_command_at_once() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let name = path.to_str().unwrap();
    let run = server.starts(&["run", "--key", "k", "--ttl", "3s", "--", "sh", "-c", STUBBORN, name]);
    let started = file(&path);
    server.did(&["force-release", "k", "--yes"]).ok();
    let did = run.end().fails(75, "lost");
    assert!(did.stderr.contains("operator"), "{did:?}");
    let (_, process) = started.trim().split_once(' ').unwrap();
    assert!(!lives(process));
    assert!(!server.path("command.told").exists(), "there is nothing left to be tidied up under the lock");
}

#[test]
fn without_heartbeats_the_command_is_told_to_end_and_killed_before_the_deadline() {
    for cut in ["STOP", "KILL"] {
        let server = Server::start(&[]);
        let path = server.path("command");
        let name = path.to_str().unwrap();
        let words = ["run", "--key", "k", "--ttl", "4s", "--kill-after", "700ms", "--", "sh", "-c", STUBBORN, name];
        let run = server.starts(&words);
        // Before the first heartbeat: the deadline stays what the command was told.
        let started = file(&path);
        server.process.signal(cut);
        let did = run.end();
        let (deadline, process) = started.trim().split_once(' ').unwrap();
        assert_eq!(did.code, 75, "{did:?}");
        assert!(!lives(process), "{cut}");
        assert_eq!(file(&server.path("command.told")), "told\n", "{cut}");
        let last: u128 = file(&server.path("command.last")).trim().parse().unwrap();
        assert!(last < deadline.parse().unwrap(), "{cut}: alive at {last}, deadline {deadline}");
    }
}

#[test]
fn a_command_that_ends_when_told_is_not_killed_and_its_children_hear_it_too() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let script = "trap 'wait; echo tidied >> \"$0\"; exit 0' TERM; sleep 60 & echo $! > \"$0\"; wait";
    let run = server.starts(&["run", "--key", "k", "--ttl", "3s", "--", "sh", "-c", script, path.to_str().unwrap()]);
    let started = file(&path);
    server.process.signal("STOP");
    assert_eq!(run.end().code, 75, "it ended well, and without the lock");
    assert!(file(&path).ends_with("tidied\n"));
    assert!(!lives(&started), "the group was told");
    server.process.signal("CONT");
}

#[test]
fn a_run_that_was_frozen_past_its_deadline_kills_the_command_when_it_thaws() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let words = ["run", "--key", "k", "--ttl", "1s", "--", "sh", "-c", STUBBORN, path.to_str().unwrap()];
    let run = server.starts(&words);
    let started = file(&path);
    run.signal("STOP");
    until("the end of the lock", || server.total("expired") == 1);
    let (_, process) = started.trim().split_once(' ').unwrap();
    assert!(lives(process));
    run.signal("CONT");
    run.end().fails(75, "lost");
    assert!(!lives(process) && !server.path("command.told").exists());
}

#[test]
fn a_server_that_comes_back_in_time_costs_nothing() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let script = "echo > \"$0\"; until [ -s \"$0.go\" ]; do sleep 0.02; done; exit 3";
    let run = server.starts(&["run", "--key", "k", "--ttl", "6s", "--", "sh", "-c", script, path.to_str().unwrap()]);
    file(&path);
    let before = server.total("refreshed");
    server.process.signal("STOP");
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    server.process.signal("CONT");
    until("a heartbeat", || server.total("refreshed") > before);
    std::fs::write(server.path("command.go"), "go\n").unwrap();
    assert_eq!(run.end().code, 3);
}

#[test]
fn a_lock_that_ended_under_the_commands_last_steps_is_not_passed_over() {
    let server = Server::start(&[]);
    let script = "\"$0\" force-release k --yes; exit 0";
    server.did(&["run", "--key", "k", "--", "sh", "-c", script, BINARY]).fails(75, "before it was released");
}

#[test]
fn signals_go_to_the_command() {
    let server = Server::start(&[]);
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3), ("USR1", 10), ("USR2", 12)] {
        let path = server.path(name);
        let traps = format!("trap 'exit {}' {name}; echo > \"$0\"; while :; do sleep 0.02; done", 40 + number);
        let run = server.starts(&["run", "--key", name, "--", "sh", "-c", &traps, path.to_str().unwrap()]);
        file(&path);
        run.signal(name);
        assert_eq!(run.end().code, 40 + number, "{name}");
        let path = server.path(&format!("{name}-untrapped"));
        let plain = "echo > \"$0\"; while :; do sleep 0.02; done";
        let run = server.starts(&["run", "--key", name, "--", "sh", "-c", plain, path.to_str().unwrap()]);
        file(&path);
        run.signal(name);
        assert_eq!(run.end().code, 128 + number, "{name}");
    }
    assert_eq!(server.total("active"), 0);
}

#[test]
fn a_signal_ends_the_waiting_and_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let waits = server.starts(&["run", "--key", "k", "--", "echo", "ran"]);
        until("the waiter", || server.total("waiting") == 1);
        waits.signal(name);
        let did = waits.end();
        assert_eq!((did.code, did.stdout.as_str()), (128 + number, ""), "{name}");
        until("an empty queue", || server.total("waiting") == 0);
    }
}

#[test]
fn a_signal_that_was_ignored_stays_so_as_under_nohup() {
    let server = Server::start(&[]);
    let script = "trap '' HUP; exec \"$0\" run --key k -- sh -c 'kill -HUP $PPID; kill -HUP $$; echo lives'";
    let mut shell = command("sh", &["-c", script, BINARY]);
    shell.env("LEASEHOLD_SERVER", &server.url);
    assert_eq!(Did::of(shell).ok(), "lives\n");
}

#[test]
fn over_redis_the_lock_is_that_of_all_who_use_it() {
    let redis = kit::Server::start(&[]);
    let url = redis.url();
    let run = |words: &[&str]| command(BINARY, &[&["run", "--key", "k", "--store", &url], words].concat());
    let mut by_name =
        command(BINARY, &["run", "--key", "k", "--store", "redis", "--", "sh", "-c", "echo $LEASEHOLD_FENCING_TOKEN"]);
    by_name.env("REDIS_URL", &url);
    let fence: u64 = Did::of(by_name).ok().trim().parse().unwrap();
    assert!(fence > 0);
    assert_eq!(redis.ask::<i64>("EXISTS lock:k"), 0, "it is released");
    let held = Running(run(&["--", "sleep", "60"]).spawn().unwrap());
    until("the holder", || redis.ask::<i64>("EXISTS lock:k") == 1);
    Did::of(run(&["--nonblock", "--", "echo"])).fails(1, "held");
    Did::of(run(&["--wait", "500ms", "--", "echo"])).fails(1, "k");
    Did::of(run(&["--shared", "--nonblock", "--", "echo"])).fails(1, "held");
    held.signal("TERM");
    assert_eq!(held.end().code, 128 + 15);
    assert_eq!(redis.ask::<i64>("EXISTS lock:k"), 0);
    // It is shared between processes, too.
    let reads = Running(run(&["--shared", "--", "sleep", "60"]).spawn().unwrap());
    until("a reader", || redis.ask::<i64>("EXISTS lock:k") == 1);
    Did::of(run(&["--nonblock", "--", "echo"])).fails(1, "held");
    assert_eq!(Did::of(run(&["--shared", "--nonblock", "--", "echo", "read"])).ok().trim(), "read");
    reads.signal("TERM");
    assert_eq!(reads.end().code, 128 + 15);
}

#[test]
fn over_redis_a_lock_that_was_deleted_or_cannot_be_kept_ends_the_command() {
    let mut redis = kit::Server::start(&[]);
    let dir = kit::Dir::make();
    let url = redis.url();
    for (name, ttl) in [("deleted", "2s"), ("dead", "4s")] {
        let path = dir.path().join(name);
        let words = ["run", "--key", "k", "--store", &url, "--ttl", ttl, "--", "sh", "-c", STUBBORN];
        let run = Running(command(BINARY, &[&words[..], &[path.to_str().unwrap()]].concat()).spawn().unwrap());
        let started = file(&path);
        match name {
            "deleted" => assert_eq!(redis.ask::<i64>("DEL lock:k"), 1),
            _ => redis.kill9(),
        }
        let did = run.end();
        assert_eq!(did.code, 75, "{name}: {did:?}");
        let (deadline, process) = started.trim().split_once(' ').unwrap();
        assert!(!lives(process), "{name}");
        if name == "dead" {
            let last: u128 = file(&dir.path().join("dead.last")).trim().parse().unwrap();
            assert!(last < deadline.parse().unwrap(), "alive at {last}, deadline {deadline}");
        }
    }
}

#[cfg(feature = "test-util")]
#[test]
fn over_redlock_a_majority_holds_the_lock_while_the_command_runs() {
    let nodes = crate::redlock::Nodes::start(3, &[], crate::redlock::MAX_TTL);
    let store = format!("redlock:{}", nodes.urls().join(","));
    let words = ["run", "--key", "k", "--store", &store, "--redlock-max-ttl", "3s", "--ttl", "2s"];
    let held = Running(command(BINARY, &[&words[..], &["--", "sleep", "60"]].concat()).spawn().unwrap());
    until("the holder", || nodes.holders("k") >= 2);
    let mut other = command(BINARY, &[&words[..], &["--nonblock", "--", "echo"]].concat());
    other.env("LEASEHOLD_SERVER", "http://127.0.0.1:1");
    Did::of(other).fails(1, "held");
    held.signal("INT");
    assert_eq!(held.end().code, 128 + 2);
    nodes.until_free("k");
}

#[test]
fn a_skipped_turn_is_quiet_if_it_is_told_to_be() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    for wait in [&["--nonblock"][..], &["--wait", "50ms"]] {
        let did = server.did(&[&["run", "--key", "k", "--quiet"], wait, &["--", "true"]].concat());
        assert_eq!((did.code, did.said().as_str()), (1, ""), "{did:?}");
    }
    let did = server.did(&["run", "--key", "free", "--quiet", "--", "no-such-command"]);
    did.fails(127, "no-such-command");
}

#[test]
fn several_keys_are_held_all_or_none() {
    let server = Server::start(&[]);
    fn run<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--key", "c", "--key", "a", "--key", "c", "--key", "b"], more].concat()
    }
    let script = "echo \"$LEASEHOLD_KEY\"; echo \"$LEASEHOLD_FENCING_TOKEN\"; \"$0\" ls | cut -f1,8";
    let out = server.did(&run(&["--", "sh", "-c", script, BINARY])).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["a", "b", "c"]);
    let listed: Vec<String> = (0..3).map(|at| format!("{}\t{}", lines[at], lines[3 + at])).collect();
    assert_eq!(lines[6..], listed, "{out}");
    assert_eq!(server.total("active"), 0, "they are released together");
    let held = server.holds("b", &[]);
    server.did(&run(&["--nonblock", "--", "true"])).fails(1, "a, b, c: ");
    assert_eq!(server.total("active"), 1, "none is kept");
    let waits = server.starts(&run(&["--ttl", "600ms", "--wait", "10m", "--", "echo", "ran"]));
    until("the first of them", || server.total("active") == 2 && server.total("waiting") == 1);
    let before = server.total("refreshed");
    until("heartbeats beyond its TTL", || server.total("refreshed") >= before + 5);
    assert_eq!(server.total("expired"), 0);
    held.signal("TERM");
    assert_eq!(waits.end().ok(), "ran\n");
    assert_eq!(server.total("active"), 0);
}

#[test]
fn a_lock_of_several_that_is_taken_away_ends_the_command_and_frees_the_others() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let words = ["run", "--key", "a", "--key", "b", "--ttl", "900ms", "--", "sh", "-c", STUBBORN];
    let run = server.starts(&[&words[..], &[path.to_str().unwrap()]].concat());
    let (_, process) = file(&path).trim().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    server.did(&["force-release", "b", "--yes"]).ok();
    run.end().fails(75, "lost");
    assert!(!lives(&process));
    assert_eq!(server.total("active"), 0);
}

#[test]
fn a_command_that_holds_its_lock_for_too_long_is_ended_and_the_lock_released() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let words = ["run", "--key", "k", "--max-hold", "500ms", "--kill-after", "500ms", "--ttl", "1h", "--", "sh", "-c"];
    let run = server.starts(&[&words[..], &[STUBBORN, path.to_str().unwrap()]].concat());
    let started = file(&path);
    run.end().fails(124, "too long");
    let (_, process) = started.trim().split_once(' ').unwrap();
    assert!(!lives(process));
    assert_eq!(file(&server.path("command.told")), "told\n", "it had time to end");
    assert_eq!(server.total("active"), 0);
    server.did(&["run", "--key", "k", "--max-hold", "1m", "--", "sh", "-c", "exit 3"]).fails(3, "");
}

#[test]
fn a_whole_group_is_waited_for_if_that_is_asked() {
    let server = Server::start(&[]);
    let path = server.path("late");
    let script = "(until [ -e \"$0.go\" ]; do sleep 0.02; done; echo $$ > \"$0\") & exit 3";
    let words = |more: &[&'static str]| {
        let name = path.to_str().unwrap().to_owned();
        let words = [&["run", "--key", "k"], more, &["--", "sh", "-c", script]].concat();
        words.into_iter().map(str::to_owned).chain([name]).collect::<Vec<_>>()
    };
    let strs = |words: &[String]| server.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let spawn = |mut command: std::process::Command| {
        // What is left in the background would keep a pipe open.
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let waits = spawn(strs(&words(&["--wait-group", "--ttl", "600ms"])));
    until("heartbeats after the end of the first process", || server.total("refreshed") >= 3);
    assert_eq!(server.total("active"), 1);
    std::fs::write(server.path("late.go"), "").unwrap();
    assert_eq!(waits.end().code, 3);
    file(&path);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(server.path("late.go")).unwrap();
    assert_eq!(spawn(strs(&words(&[]))).end().code, 3);
    assert!(server.total("active") == 0 && !path.exists(), "the lock ends with the first process");
    std::fs::write(server.path("late.go"), "").unwrap();
    file(&path);
}

#[cfg(target_os = "linux")]
#[test]
fn whatever_the_command_has_begun_is_ended_when_the_lock_is_lost() {
    let server = Server::start(&[]);
    let path = server.path("far");
    // In a session of its own, with no parent, deaf to SIGTERM.
    let script = "trap 'exit 0' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ > \"$0\"; while :; do sleep 0.02; done' \"$0\" &) ; \
                  sh -c 'trap \"\" TERM; echo $$ > \"$0.near\"; while :; do sleep 0.02; done' \"$0\" & while :; do sleep 0.02; done";
    for cut in ["force", "STOP"] {
        let words = ["run", "--key", "k", "--ttl", "3s", "--", "sh", "-c", script, path.to_str().unwrap()];
        let run = server.starts(&words);
        let (far, near) = (file(&path), file(&server.path("far.near")));
        match cut {
            "force" => drop(server.did(&["force-release", "k", "--yes"]).ok()),
            signal => server.process.signal(signal),
        }
        let did = run.end();
        assert_eq!(did.code, 75, "{cut}: {did:?}");
        assert!(!lives(&far) && !lives(&near), "{cut}");
        let _ = (std::fs::remove_file(&path), std::fs::remove_file(server.path("far.near")));
    }
    server.process.signal("CONT");
}

#[cfg(target_os = "linux")]
#[test]
fn orphans_of_the_command_are_reaped() {
    let server = Server::start(&[]);
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.01 &); done; until \"$0\" -c 'exit 0'; do :; done; echo > \"$1\"; sleep 60";
    let path = server.path("begun");
    let run = server.starts(&["run", "--key", "k", "--", "sh", "-c", script, "sh", path.to_str().unwrap()]);
    file(&path);
    let children = || {
        let mut zombies = 0;
        let parent = format!("{}", run.0.id());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            zombies += usize::from(fields.len() > 1 && fields[0] == "Z" && fields[1] == parent);
        }
        zombies
    };
    std::thread::sleep(std::time::Duration::from_millis(200));
    until("no zombies", || children() == 0);
    run.signal("TERM");
    assert_eq!(run.end().code, 128 + 15);
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_killed_takes_its_command_with_it() {
    let server = Server::start(&[]);
    let path = server.path("command");
    let run = server.starts(&["run", "--key", "k", "--", "sh", "-c", STUBBORN, path.to_str().unwrap()]);
    let (_, process) = file(&path).trim().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    run.signal("KILL");
    until("the end of the command", || !lives(&process));
}

#[test]
fn the_command_does_not_see_what_proves_who_we_are() {
    let server = Server::start(&[]);
    let redis = kit::Server::start(&[]);
    let secrets = ["LEASEHOLD_TOKEN", "LEASEHOLD_TOKENS", "LEASEHOLD_LOCK_TOKEN", "LOCK_STORE", "REDIS_URL"];
    let seen = |words: &[&str]| {
        let mut run = server.command(&[&["run", "--key", "k"], words, &["--", "env"]].concat());
        for name in secrets {
            run.env(name, if name == "REDIS_URL" { redis.url() } else { "secret".to_owned() });
        }
        let out = Did::of(run).ok();
        let seen = |name: &&str| out.lines().any(|line| line.split('=').next() == Some(name));
        secrets.into_iter().filter(|name| seen(name)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&[]), ["REDIS_URL"], "which is the command's own");
    assert_eq!(seen(&["--store", "redis"]), [""; 0]);
    assert_eq!(seen(&["--pass-credentials"]), secrets);
}
