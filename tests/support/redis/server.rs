//! One Redis process on a free loopback port, in a directory of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Connection, FromRedisValue};

use super::port::{Dir, Port};
use super::until_some;

/// Arguments for a server whose answers are on the disk before they are given.
pub(crate) const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// A stopped server must fail a test, not hang it.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Sentinel,
}

/// A running server, or one that was killed and may come back. Killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    args: Vec<String>,
    child: Option<Child>,
    port: Port,
    dir: Dir,
}

impl Server {
    /// Starts a server that keeps nothing on disk unless `args` say so ([`DURABLE`]), and waits until it answers.
    pub(crate) fn start(args: &[&str]) -> Self {
        let plain = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let args: Vec<String> = plain.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        Self::launch(Kind::Data, |_| args.clone())
    }

    /// Starts a process whose arguments depend on its port; chooses again if somebody else was quicker to take it.
    pub(crate) fn launch(kind: Kind, args: impl Fn(u16) -> Vec<String>) -> Self {
        for _ in 0..10 {
            let port = Port::choose();
            let args = args(port.number);
            let mut server = Self { kind, args, child: None, port, dir: Dir::make() };
            match server.run() {
                Started::Answers => return server,
                Started::PortTaken => {}
            }
        }
        panic!("no port stays free for as long as a server needs to bind it");
    }

    fn run(&mut self) -> Started {
        let log = self.dir.path().join("log");
        let out = File::create(&log).unwrap();
        let mut command = match self.kind {
            Kind::Data => Command::new("redis-server"),
            Kind::Sentinel => {
                let mut command = Command::new("redis-sentinel");
                let file = self.dir.path().join("sentinel.conf");
                // Sentinel keeps its state in its file: one that comes back reads what it wrote.
                if !file.exists() {
                    std::fs::write(&file, self.args.join("\n")).unwrap();
                }
                command.arg(file);
                command
            }
        };
        command.args(["--port", &self.port.number.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(self.dir.path());
        if self.kind == Kind::Data {
            command.args(&self.args);
        }
        let child = command
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .expect("redis-server and redis-sentinel are installed (tests/run does it)");
        self.child = Some(child);
        until_some(&format!("an answer of the server on port {}", self.port.number), || {
            let child = self.child.as_mut().unwrap();
            if child.try_wait().unwrap().is_some() {
                let said = std::fs::read_to_string(&log).unwrap();
                assert!(said.contains("Address already in use"), "the server does not start:\n{said}");
                return Some(Started::PortTaken);
            }
            let pid = child.id();
            self.answers_as(pid).then_some(Started::Answers)
        })
    }

    /// Whether what listens on our port is this process, done with loading.
    fn answers_as(&self, pid: u32) -> bool {
        let Ok(mut socket) = TcpStream::connect_timeout(&self.address(), PATIENCE) else { return false };
        // Short, because a stranger on our port may accept and say nothing.
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        if socket.write_all(b"INFO server\r\nPING\r\n").is_err() {
            return false;
        }
        let (mut said, mut bytes) = (String::new(), [0; 4096]);
        loop {
            match socket.read(&mut bytes) {
                Ok(0) | Err(_) => return false,
                Ok(count) => said.push_str(&String::from_utf8_lossy(&bytes[..count])),
            }
            if said.starts_with("-NOAUTH") {
                return true;
            }
            if said.contains("+PONG") || said.contains("\n-") {
                return said.contains("+PONG") && said.contains(&format!("process_id:{pid}\r\n"));
            }
        }
    }

    /// What the process has written since it was started last.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// A connection to look at keys with.
    pub(crate) fn client(&self) -> Connection {
        self.try_client().expect("the server answers")
    }

    pub(crate) fn try_client(&self) -> redis::RedisResult<Connection> {
        let connection = redis::Client::open(self.url())?.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// One command, as one would type it, on a connection of its own: `server.ask("PTTL lock:k")`.
    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split_whitespace();
        let mut asked = redis::cmd(words.next().expect("a command has a name"));
        words.for_each(|word| {
            asked.arg(word);
        });
        asked.query(&mut self.try_client()?)
    }

    /// One field of `INFO`, empty if there is none.
    pub(crate) fn info(&self, field: &str) -> String {
        self.try_info(field).unwrap_or_default()
    }

    fn try_info(&self, field: &str) -> Option<String> {
        let text: String = self.try_ask("INFO everything").ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the process as a power cut would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our own child, and not yet waited for");
            child.wait().expect("it was killed");
        }
    }

    /// Starts it again on the same port and directory, killing it first if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        until_some("the server's own port", || match self.run() {
            Started::Answers => Some(()),
            Started::PortTaken => None,
        });
    }

    /// Freezes the process: connections stay open, nothing answers, its clock goes on.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    /// Thaws the process.
    pub(crate) fn cont(&self) {
        self.signal("CONT");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid();
        let done = Command::new("sh").arg("-c").arg(format!("kill -s {name} {pid}")).status().unwrap();
        assert!(done.success(), "cannot send {name} to {pid}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A panic here would hide the one that a failing test is about.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Started {
    Answers,
    PortTaken,
}
