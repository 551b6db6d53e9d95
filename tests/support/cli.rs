//! The binary as people and scripts run it: with pipes, and on a real terminal.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};

pub(crate) use crate::binary::{BINARY, Did, command};
use crate::binary::{Process, is_foreign, signal};
use crate::kit::{self, Dir, until, until_some};

/// How long a process may take to end by itself when its test is over.
const MANNERS: Duration = Duration::from_secs(3);

/// A process that is ended with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Waits for its end: exit code and what it printed.
    pub(crate) fn end(mut self) -> Did {
        let code = until_some("the process's end", || self.0.try_wait().unwrap()).code();
        let mut did = Did { code: code.unwrap_or(-1), stdout: String::new(), stderr: String::new() };
        if let Some(mut out) = self.0.stdout.take() {
            out.read_to_string(&mut did.stdout).unwrap();
        }
        if let Some(mut err) = self.0.stderr.take() {
            err.read_to_string(&mut did.stderr).unwrap();
        }
        did
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `run` passes it on to its command, which SIGKILL would leave behind.
        if let Ok(None) = self.0.try_wait() {
            self.signal("TERM");
            self.signal("CONT");
            let began = Instant::now();
            while began.elapsed() < MANNERS && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process lives; one that nobody has waited for yet does not.
pub(crate) fn lives(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A server of the test's own, and a directory for its files.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
    dir: Dir,
}

impl Server {
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::launch(command(BINARY, &[&["serve", "--listen", "127.0.0.1:0", "--grace", "0s"], words].concat()))
    }

    pub(crate) fn launch(mut command: Command) -> Self {
        command.stderr(Stdio::null());
        let process = Process::start(command);
        Self { url: process.url.clone(), process, dir: Dir::make() }
    }

    /// A path that nobody else uses.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A verb that asks this server.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(BINARY, words);
        command.env("LEASEHOLD_SERVER", &self.url);
        command
    }

    pub(crate) fn did(&self, words: &[&str]) -> Did {
        Did::of(self.command(words))
    }

    pub(crate) fn starts(&self, words: &[&str]) -> Running {
        Running(self.command(words).spawn().unwrap())
    }

    /// One of the totals.
    pub(crate) fn total(&self, name: &str) -> u64 {
        let stats = self.did(&["stats"]).ok();
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("{name}\t")));
        line.unwrap_or_else(|| panic!("{stats}")).parse().unwrap()
    }

    /// Holds a key until the answer is dropped.
    pub(crate) fn holds(&self, key: &str, words: &[&str]) -> Running {
        let before = self.total("active");
        let held = self.starts(&[&["run", "--key", key], words, &["--", "sleep", "60"]].concat());
        until("the holder", || self.total("active") == before + 1);
        held
    }
}

/// Polls until a file has something in it.
pub(crate) fn file(path: &Path) -> String {
    until_some(&format!("{}", path.display()), || {
        std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
}

/// A program on a terminal of its own, which it controls.
pub(crate) struct Terminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<Mutex<String>>,
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    /// Runs a program; those variables are set in addition.
    pub(crate) fn start(words: &[&str], variables: &[(&str, &str)]) -> Self {
        let pty =
            native_pty_system().openpty(PtySize { rows: 40, cols: 200, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if is_foreign(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.env("TERM", "xterm");
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pty.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut out, seen) = (pty.master.try_clone_reader().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(1..) = out.read(&mut piece).inspect(|read| {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..*read]));
            }) {}
        });
        Self { child, keyboard: pty.master.take_writer().unwrap(), screen, _master: pty.master }
    }

    /// A shell with job control.
    pub(crate) fn shell(server: &Server) -> Self {
        let mut shell = Self::start(
            &["bash", "--norc", "--noprofile", "--noediting", "-i"],
            &[("LEASEHOLD_SERVER", &server.url), ("L", BINARY), ("PS1", "ready> ")],
        );
        shell.shows("ready> ");
        // What is typed from then on is not mistaken for what is answered.
        shell.types("stty -echo; echo quiet $((40 + 2))\n");
        shell.shows("quiet 42");
        shell.shows("ready> ");
        shell
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits until this is on the screen; what stands before its end is not looked at again.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> String {
        let screen = || format!(" {text:?} on {:?}", self.screen.lock().unwrap());
        kit::until_or("a text", screen, || {
            let mut screen = self.screen.lock().unwrap();
            let end = screen.find(text)? + text.len();
            Some(screen.drain(..end).collect())
        })
    }

    /// Waits for its end: exit code, and what is left on the screen.
    pub(crate) fn end(mut self) -> (u32, String) {
        let status = until_some("the end on the terminal", || self.child.try_wait().unwrap());
        // What was written last may not have been read yet.
        until("the end of the output", || Arc::strong_count(&self.screen) == 1);
        let screen = std::mem::take(&mut *self.screen.lock().unwrap());
        (status.exit_code(), screen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
