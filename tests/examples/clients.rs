//! Fear: a client that people copy loses locks, keeps lost ones, or does not exclude those of other languages.
#![cfg(all(feature = "server", unix))]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;

use crate::binary::{self, Did, Process, command, leasehold};
use crate::kit::{Direction, Proxy, until};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients");

/// How the program that counts is started in each language.
fn languages() -> [Vec<&'static str>; 3] {
    const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients/count.py");
    const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients/count.mjs");
    [vec!["python3", "-B", PYTHON], vec!["node", NODE], vec![GO.program.to_str().unwrap()]]
}

/// The program in Go, compiled once for each process of tests.
struct Go {
    _dir: crate::kit::Dir,
    program: PathBuf,
}

static GO: LazyLock<Go> = LazyLock::new(|| {
    let dir = crate::kit::Dir::make();
    let program = dir.path().join("count");
    let mut build = command("go", &["build", "-o", program.to_str().unwrap(), "."]);
    build.current_dir(Path::new(CLIENTS).join("go"));
    // Below the target directory, beside this binary's `debug/deps`.
    build.env("GOCACHE", std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("go"));
    build.env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    Did::of(build).ok();
    Go { _dir: dir, program }
});

fn start(program: &[&str], words: &[&str], server: &str) -> Child {
    let mut command = command(program[0], &[&program[1..], words].concat());
    command.env("LEASEHOLD_SERVER", server).stderr(std::process::Stdio::inherit()).spawn().unwrap()
}

/// A client that holds a lock until it is lost. Killed with the test.
struct Holder {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(program: &[&str], ttl: &str, server: &str) -> Self {
        let mut child = start(program, &["hold", "k", ttl], server);
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    #[track_caller]
    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    #[track_caller]
    fn loses_it(mut self) {
        self.says("lost");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn did(server: &Process, words: &[&str]) -> Did {
    let mut command = leasehold(words);
    command.env("LEASEHOLD_SERVER", &server.url);
    Did::of(command)
}

fn total(server: &Process, name: &str) -> String {
    let totals = did(server, &["stats"]).ok();
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix('\t').map(str::to_owned);
    totals.lines().find_map(of).unwrap_or_else(|| panic!("{totals}"))
}

#[test]
fn clients_in_three_languages_count_in_one_file_and_none_overwrites_another() {
    let server = Process::serve(&[]);
    let dir = crate::kit::Dir::make();
    let file = dir.path().join("count");
    std::fs::write(&file, "0 0\n").unwrap();
    let words = [file.to_str().unwrap(), "25"];
    let started: Vec<Child> =
        languages().iter().flat_map(|program| [0, 1].map(|_| start(program, &words, &server.url))).collect();
    for mut child in started {
        assert!(child.wait().unwrap().success());
    }
    let counted = std::fs::read_to_string(&file).unwrap();
    assert!(counted.starts_with("150 "), "{counted}");
    assert_eq!((total(&server, "total"), total(&server, "active")), ("150".to_owned(), "0".to_owned()));
}

#[test]
fn a_lock_that_was_taken_by_force_is_lost() {
    let server = Process::serve(&[]);
    for program in languages() {
        let mut holder = Holder::start(&program, "0.6", &server.url);
        holder.says("held");
        until("some heartbeats", || total(&server, "refreshed").parse::<u32>().unwrap() >= 2);
        did(&server, &["force-release", "k", "--yes"]).ok();
        holder.loses_it();
    }
}

#[test]
fn a_lock_is_lost_at_its_deadline_while_the_server_does_not_answer_or_the_client_does_not_run() {
    for program in languages() {
        let server = Process::serve(&[]);
        let mut holder = Holder::start(&program, "1", &server.url);
        holder.says("held");
        server.signal("STOP");
        holder.loses_it();
        server.signal("CONT");

        let mut frozen = Holder::start(&program, "1", &server.url);
        frozen.says("held");
        binary::signal(frozen.child.id(), "STOP");
        until("the end of its TTL", || did(&server, &["acquire", "k", "--nonblock"]).code == 0);
        binary::signal(frozen.child.id(), "CONT");
        frozen.loses_it();
        assert_eq!(total(&server, "active"), "1", "it did not release what is another's now");
    }
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_and_brings_the_same_lock() {
    for program in languages() {
        let server = Process::serve(&[]);
        let address: SocketAddr = server.address().parse().unwrap();
        let proxy = Proxy::start(address);
        proxy.hold(Direction::ToClient);
        let mut holder = Holder::start(&program, "30", &format!("http://{}", proxy.address()));
        until("the grant", || total(&server, "active") == "1");
        proxy.cut();
        proxy.heal();
        holder.says("held");
        assert_eq!(total(&server, "total"), "1");
    }
}
