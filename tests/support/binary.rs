//! The binary as a process of its own, which ends with its test. Whoever starts it starts it here.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_leasehold");

/// However loaded the machine is, an end that has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to be set around a test must not decide it.
pub(crate) fn is_foreign(variable: &str) -> bool {
    variable.starts_with("LEASEHOLD_") || ["LOCK_STORE", "REDIS_URL", "RUST_LOG", "NO_COLOR"].contains(&variable)
}

/// A program that knows nothing of what is set around the test.
pub(crate) fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn leasehold(words: &[&str]) -> Command {
    command(BINARY, words)
}

pub(crate) fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Did {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Did {
    /// Runs a command to its end. A signal that ended it counts as its negative.
    pub(crate) fn of(mut command: Command) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it printed; it must have ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32, why: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(why), "{self:?}");
        self
    }

    /// All that it said.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A server.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// `words` go behind `serve` and a free port.
    pub(crate) fn serve(words: &[&str]) -> Self {
        Self::start(leasehold(&[&["serve", "--listen", "127.0.0.1:0"], words].concat()))
    }

    /// Starts it, until it says where it listens.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let url = first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}")).to_owned();
        Self { child, url }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end, which no signal may have brought about by itself.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("no signal ended it");
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What it wrote to stderr until it ended.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
