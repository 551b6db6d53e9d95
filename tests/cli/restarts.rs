//! Fear: a command ends, or runs beside another, since the server of its lock was started anew.
#![cfg(feature = "durable")]

use crate::cli::{BINARY, Running, Server, command, file};
use crate::kit::port::Port;
use crate::kit::{Dir, until};

fn server_at(port: &Port, dir: &Dir) -> Server {
    let (listen, data) = (format!("127.0.0.1:{}", port.number), dir.path().join("locks"));
    Server::launch(command(BINARY, &["serve", "--listen", &listen, "--data", data.to_str().unwrap()]))
}

fn at(url: &str, words: &[&str]) -> Running {
    let mut command = command(BINARY, words);
    command.env("LEASEHOLD_SERVER", url);
    Running(command.spawn().unwrap())
}

#[test]
fn a_command_outlives_its_server_and_who_waits_goes_on_waiting_for_it() {
    let (port, dir) = (Port::choose(), Dir::make());
    let mut server = server_at(&port, &dir);
    let url = server.url.clone();
    let begun = dir.path().join("begun");
    let script = "echo $$ > \"$0\"; until [ -s \"$0.go\" ]; do sleep 0.02; done; exit 3";
    let holds = at(&url, &["run", "--key", "k", "--ttl", "20s", "--", "sh", "-c", script, begun.to_str().unwrap()]);
    file(&begun);
    let waits = at(&url, &["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    until("the waiter", || server.total("waiting") == 1);
    for _ in 0..3 {
        // Killed, not asked to end.
        drop(server);
        server = server_at(&port, &dir);
        until("the waiter", || server.total("waiting") == 1);
        assert_eq!(server.total("active"), 1, "the lock goes on");
    }
    let before = server.total("refreshed");
    until("a heartbeat", || server.total("refreshed") > before);
    std::fs::write(dir.path().join("begun.go"), "go\n").unwrap();
    assert_eq!(holds.end().code, 3);
    assert_eq!(waits.end().ok(), "ran\n");
}
