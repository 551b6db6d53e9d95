//! A server process of a bench.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A process that prints where it listens; dropped, it is killed.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("stdout is piped")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").ok_or("the server says where it listens")?.to_owned();
        Ok(Self { child, url })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `leasehold serve` with one worker on a free port of this machine.
pub(crate) fn leasehold() -> Command {
    let mut server = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    server.env_remove("LEASEHOLD_TOKENS").args(["serve", "--listen", "127.0.0.1:0", "--workers", "1"]);
    server
}
