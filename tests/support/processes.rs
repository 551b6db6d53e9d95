//! Worker processes of a test: the test's own binary, run again as one of its ignored tests.
//!
//! The parent tells a worker what to do by its environment and by lines on its standard input; the end of that input
//! tells it to finish, also when the parent dies. A worker answers by lines on its standard output that begin with
//! [`MARK`]; what else stands there is the test harness's.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// What a worker's own lines begin with.
pub(crate) const MARK: &str = "> ";

/// However loaded the machine is, a line that has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process. Killed and waited for when dropped.
pub(crate) struct Process {
    child: Child,
    /// `None` once it was told to finish.
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Process {
    /// Runs this binary's ignored test `name`.
    pub(crate) fn worker(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
        command.envs(environment.iter().copied());
        Self::start(command)
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program is there");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The harness has written the beginning of the line when a test prints its first.
                if let Some((_, said)) = line.split_once(MARK)
                    && tell.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { child, input, output: hear }
    }

    /// Sends a line.
    #[track_caller]
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it was not told to finish");
        writeln!(input, "{line}").expect("the worker reads");
    }

    /// The next line of the worker's own; `None` at the end of its output.
    #[track_caller]
    pub(crate) fn hear(&self) -> Option<String> {
        match self.output.recv_timeout(PATIENCE) {
            Ok(said) => Some(said),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the worker says nothing"),
        }
    }

    /// Sends a line and hears the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear().unwrap_or_else(|| panic!("the worker ended instead of answering {line:?}"))
    }

    /// Tells it to finish what it is doing.
    pub(crate) fn finish(&mut self) {
        self.input = None;
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it as the system would when out of memory, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("it is our own child, and not yet waited for");
        self.child.wait().expect("it was killed");
    }

    /// Freezes it: its connections stay open, nothing answers, the clock goes on.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    /// Thaws it.
    pub(crate) fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id();
        let done = Command::new("sh").arg("-c").arg(format!("kill -s {name} {pid}")).status().unwrap();
        assert!(done.success(), "cannot send {name} to {pid}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A panic here would hide the one that a failing test is about.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
