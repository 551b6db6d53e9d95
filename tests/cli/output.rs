//! Fear: what happens to stdout or stderr decides what the program does: it panics, or leaves a command behind that runs
//! without its lock.

use std::fs::File;
use std::io::{PipeReader, Write};
use std::process::{Command, Stdio};

use crate::cli::{BINARY, Running, Server, command, file, lives};
use crate::kit::until;

/// Where a stream may lead that takes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    /// Whoever read it has gone.
    ClosedPipe,
    FullDisk,
    /// `2>&-`
    Closed,
    /// Whoever should read it does not.
    FullPipe,
}

const BROKEN: [Broken; 4] = [Broken::ClosedPipe, Broken::FullDisk, Broken::Closed, Broken::FullPipe];

impl Broken {
    /// The stream, and what must outlive it.
    fn stream(self) -> (Stdio, Option<PipeReader>) {
        let (reader, mut writer) = std::io::pipe().unwrap();
        match self {
            Self::ClosedPipe => (writer.into(), None),
            Self::FullDisk => (File::options().write(true).open("/dev/full").unwrap().into(), None),
            Self::Closed => (Stdio::null(), None),
            Self::FullPipe => {
                // A pipe of Linux holds sixteen pages.
                writer.write_all(&[b'x'; 65_536]).unwrap();
                (writer.into(), Some(reader))
            }
        }
    }

    /// The same program with this as its stderr.
    fn as_stderr(self, command: Command) -> (Running, Option<PipeReader>) {
        let (stream, reader) = self.stream();
        let mut command = if self == Self::Closed { without(&command, "2>&-") } else { command };
        command.stderr(stream);
        (Running(command.spawn().unwrap()), reader)
    }
}

/// The same program, started by a shell that closes a stream first.
fn without(given: &Command, stream: &str) -> Command {
    let program = given.get_program().to_str().unwrap();
    let words: Vec<&str> = given.get_args().map(|word| word.to_str().unwrap()).collect();
    let script = format!("exec \"$0\" \"$@\" {stream}");
    let mut shell = command("sh", &[&["-c", &script, program], &words[..]].concat());
    for (name, value) in given.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Takes no notice of SIGTERM, and says what its process is.
const STUBBORN: &str = "trap '' TERM; echo $$ > \"$0\"; while :; do sleep 0.05; done";

#[test]
fn a_command_whose_lock_is_about_to_be_lost_is_ended_whatever_became_of_stderr() {
    for broken in BROKEN {
        let server = Server::start(&[]);
        let path = server.path("command");
        let words = ["run", "--key", "k", "--ttl", "3s", "--kill-after", "500ms", "--", "sh", "-c", STUBBORN];
        let run = server.command(&[&words[..], &[path.to_str().unwrap()]].concat());
        let (run, _reader) = broken.as_stderr(run);
        let process = file(&path);
        server.process.signal("STOP");
        assert_eq!(run.end().code, 75, "{broken:?}");
        assert!(!lives(&process), "{broken:?}");
        server.process.signal("CONT");
    }
}

#[test]
fn every_exit_code_is_the_same_whatever_became_of_stderr() {
    let server = Server::start(&[]);
    let _held = server.holds("held", &[]);
    let lost = ["run", "--key", "k", "--", "sh", "-c", "\"$0\" force-release k --yes", BINARY];
    let nowhere = ["run", "--key", "k", "--nonblock", "--server", "http://127.0.0.1:1", "--", "true"];
    let rows: [(&[&str], i32); 12] = [
        (&["run", "--key", "held", "--nonblock", "--", "true"], 1),
        (&["run", "--key", "held", "--nonblock", "--conflict-exit-code", "111", "--", "true"], 111),
        (&["run", "--key", "k", "--", "sh", "-c", "exit 7"], 7),
        (&["run", "--key", "k", "--", "no-such-command"], 127),
        (&["run", "--key", "k", "--", "/etc/passwd"], 126),
        (&["run", "--key", "k", "--", "sh", "-c", "kill -9 $$"], 128 + 9),
        (&lost, 75),
        (&nowhere, 69),
        (&["run", "--key", "", "--", "true"], 64),
        (&["no-such-verb"], 64),
        (&["show", "free"], 1),
        (&["acquire", "held", "--nonblock"], 1),
    ];
    for broken in BROKEN {
        for (words, code) in rows {
            let (run, _reader) = broken.as_stderr(server.command(words));
            assert_eq!(run.end().code, code, "{broken:?}: {words:?}");
        }
    }
}

#[test]
fn output_that_was_asked_for_and_cannot_be_written_has_a_code_of_its_own() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    for words in [&["ls"][..], &["show", "k", "--json"], &["stats"], &["config", "print"], &["man"], &["--help"]] {
        for (broken, code) in [(Broken::FullDisk, 74), (Broken::ClosedPipe, 0)] {
            let mut verb = server.command(words);
            verb.stdout(broken.stream().0);
            let did = Running(verb.spawn().unwrap()).end();
            assert_eq!(did.code, code, "{broken:?}: {words:?}: {did:?}");
        }
        assert_eq!(Running(without(&server.command(words), ">&-").spawn().unwrap()).end().code, 0, "{words:?}");
    }
}

#[test]
fn a_lock_whose_token_nobody_can_read_is_released() {
    let server = Server::start(&[]);
    for broken in [Broken::FullDisk, Broken::ClosedPipe] {
        for json in [&[][..], &["--json"]] {
            let mut acquire = server.command(&[&["acquire", "k", "--ttl", "1h"], json].concat());
            acquire.stdout(broken.stream().0);
            Running(acquire.spawn().unwrap()).end().fails(74, "stdout");
            until("the release", || server.total("active") == 0);
        }
    }
}

#[test]
fn what_is_done_is_done_also_if_nobody_reads_so() {
    let server = Server::start(&[]);
    let _held = server.holds("k", &[]);
    let mut force = server.command(&["force-release", "k", "--yes"]);
    force.stdout(Broken::FullDisk.stream().0);
    assert_eq!(Running(force.spawn().unwrap()).end().code, 0);
}

#[test]
fn the_command_of_run_is_ended_by_a_closed_pipe_as_in_a_shell() {
    let server = Server::start(&[]);
    let out =
        server.did(&["run", "--key", "k", "--", "sh", "-c", "yes | head -n 1; grep SigIgn /proc/self/status"]).ok();
    let ignored = u64::from_str_radix(out.lines().last().unwrap().split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(ignored & (1 << 12), 0, "SIGPIPE is not ignored: {out}");
}
