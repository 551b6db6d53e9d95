//! Fear: a list of tokens is spoilt by what adds to it, or a token is in there that nobody knows.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::cli::{BINARY, Did, Server, command};
use crate::kit::{Dir, until};

fn new(list: &Path, words: &[&str]) -> Did {
    Did::of(adding(list, words))
}

fn adding(list: &Path, words: &[&str]) -> Command {
    let mut command = command(BINARY, &[&["token", "new"], words].concat());
    command.env("LEASEHOLD_TOKENS_FILE", list);
    command
}

fn names(list: &Path) -> Vec<String> {
    let list: Value = serde_json::from_str(&fs::read_to_string(list).unwrap()).unwrap();
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_printed_opens_the_server_that_has_the_list_also_while_it_runs() {
    let dir = Dir::make();
    let list = dir.path().join("tokens.json");
    let jobs = new(&list, &["jobs", "--namespaces", "cron:,job:"]).ok();
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&list).unwrap().contains(jobs.trim()), "the list keeps no token");
    let mut serve = command(BINARY, &["serve", "--listen", "127.0.0.1:0", "--grace", "0s"]);
    serve.env("LEASEHOLD_TOKENS_FILE", &list);
    let server = Server::launch(serve);
    let with = |token: &str, words: &[&str]| {
        let mut command = server.command(words);
        command.env("LEASEHOLD_TOKEN", token.trim());
        Did::of(command)
    };
    with(&jobs, &["run", "--key", "cron:daily", "--", "true"]).ok();
    with(&jobs, &["run", "--key", "order:1", "--", "true"]).fails(64, "");
    let oncall = new(&list, &["oncall", "--rights", "read,force"]).ok();
    until("the server's look at the list", || with(&oncall, &["ls"]).code == 0);
    with(&oncall, &["run", "--key", "cron:daily", "--", "true"]).fails(64, "");
    with(&jobs, &["ls"]).ok();
}

#[test]
fn what_makes_no_sense_leaves_the_list_as_it_was() {
    let dir = Dir::make();
    let list = dir.path().join("tokens.json");
    new(&list, &["jobs", "--namespaces", "web"]).fails(64, "ends in a letter");
    new(&list, &["jobs", "--rights", "all"]).fails(64, "acquire, read, force");
    new(&dir.path().join("no/such/tokens.json"), &["jobs"]).fails(64, "no/such");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of what was refused");
    new(&list, &["jobs"]).ok();
    let before = fs::read_to_string(&list).unwrap();
    new(&list, &["jobs"]).fails(64, "the same name");
    // What cannot be printed is not added: nobody would know the token.
    let mut unread = adding(&list, &["unread"]);
    unread.stdout(Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap()));
    Did::of(unread).fails(74, "No space left");
    assert_eq!(fs::read_to_string(&list).unwrap(), before);
    fs::write(&list, "{}").unwrap();
    new(&list, &["other"]).fails(64, "not a list of tokens");
    assert_eq!(fs::read_to_string(&list).unwrap(), "{}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_was_written_by_hand_stays_so_and_a_link_stays_a_link() {
    let dir = Dir::make();
    let (list, link) = (dir.path().join("real.json"), dir.path().join("tokens.json"));
    let by_hand = "[ {\"rights\": [\"read\"],\t\"name\": \"by hand\", \"token\": \"a-long-enough-secret\"} ]";
    fs::write(&list, by_hand).unwrap();
    fs::set_permissions(&list, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real.json", &link).unwrap();
    new(&link, &["jobs"]).ok();
    assert!(fs::read_to_string(&list).unwrap().starts_with(by_hand.strip_suffix(" ]").unwrap()));
    assert_eq!(names(&link), ["by hand", "jobs"]);
    assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn of_several_that_add_at_once_none_is_forgotten() {
    let dir = Dir::make();
    let list = dir.path().join("tokens.json");
    let all: Vec<String> = (0..12).map(|number| format!("client-{number:02}")).collect();
    thread::scope(|scope| {
        for name in &all {
            scope.spawn(|| new(&list, &[name]).ok());
        }
    });
    let mut found = names(&list);
    found.sort_unstable();
    assert_eq!(found, all);
}
