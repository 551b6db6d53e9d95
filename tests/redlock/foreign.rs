//! Fear: another Redlock client on the same nodes and ours hold one key together, or one blocks the other for good.
//!
//! The other one is npm `redlock` in a process of its own; `tests/support/foreign/prepare-node` installs it
//! (`tests/run` calls it).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use leasehold::Token;
use leasehold::conformance::store::wait;
use leasehold::store::{Denial, Extended, Released};

use crate::kit::until;
use crate::redis_store::{ask, denied, is_granted, key, ttl};
use crate::redlock::Nodes;

const LONG: Duration = Duration::from_secs(50);
const LONG_MS: u64 = 50_000;

struct NodeRedlock {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl NodeRedlock {
    fn start(nodes: &Nodes) -> Self {
        // Beside this binary's `debug/deps`.
        let binary = std::env::current_exe().unwrap();
        let modules = binary.ancestors().nth(3).expect("it lies in a target directory").join("node/node_modules");
        assert!(
            modules.join("redlock").exists(),
            "no npm redlock at {}: run tests/support/foreign/prepare-node, or tests/run",
            modules.display()
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign/node/redlock.cjs");
        let mut command = Command::new("node");
        command.arg(script).args(nodes.urls()).env("NODE_PATH", modules);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node is installed");
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "it ended before it answered: {line}");
        answer.trim().to_owned()
    }
}

impl Drop for NodeRedlock {
    fn drop(&mut self) {
        // It ends with its input, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn npm_redlock_and_we_exclude_each_other_and_pass_the_key_on() {
    let mut nodes = Nodes::start(5, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let mut theirs = NodeRedlock::start(&nodes);
    for round in 0..2 {
        assert_eq!(theirs.say(&format!("try lock:k {LONG_MS}")), "held", "round {round}");
        assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), LONG)), Denial::Held);
        assert_eq!(wait(stores.one.extend(&key("k"), Token::random(), ttl(LONG))), Extended::Lost);
        assert_eq!(wait(stores.one.release(&key("k"), Token::random())), Released::AlreadyGone);
        assert_eq!(theirs.say(&format!("extend lock:k {LONG_MS}")), "extended");
        assert_eq!(theirs.say("release lock:k"), "released");

        let token = Token::random();
        until("our turn", || is_granted(&ask(&*stores.one, "k", token, LONG)));
        assert_eq!(theirs.say(&format!("try lock:k {LONG_MS}")), "busy");
        assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Extended { .. }));
        assert_eq!(theirs.say(&format!("try lock:k {LONG_MS}")), "busy");
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
        nodes.until_free("k");
        if round == 0 {
            nodes.servers[0].kill9();
            nodes.servers[1].kill9();
        }
    }
}

#[test]
fn npm_redlocks_ttl_ends_its_lock_for_us_and_ours_for_it() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let mut theirs = NodeRedlock::start(&nodes);
    assert_eq!(theirs.say("try lock:k 300"), "held");
    let token = Token::random();
    until("the end of theirs", || is_granted(&ask(&*stores.one, "k", token, Duration::from_millis(300))));
    until("the end of ours", || theirs.say(&format!("try lock:k {LONG_MS}")) == "held");
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::AlreadyGone);
    assert_eq!(theirs.say("release lock:k"), "released");
}
