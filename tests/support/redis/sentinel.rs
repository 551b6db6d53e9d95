//! One master, two replicas, three sentinels with short tempers.

use super::server::{Kind, Server};
use super::{until, until_or, until_some};

/// The name that the sentinels know the master by.
pub(crate) const NAME: &str = "leasehold";

#[derive(Debug)]
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
}

impl Sentinels {
    /// Starts all six, and waits until each sentinel knows everybody.
    pub(crate) fn start() -> Self {
        let master = Server::start(&[]);
        let port = master.port().to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(Server::start(&["--replicaof", "127.0.0.1", &port, "--repl-ping-replica-period", "1"]));
        }
        let linked = |server: &Server| server.info("master_link_status") == "up";
        until("two replicas in step", || servers[1..].iter().all(linked));
        let sentinels = (0..3).map(|_| Server::launch(Kind::Sentinel, |_| config(&port))).collect();
        let this = Self { servers, sentinels };
        for sentinel in &this.sentinels {
            // Their defaults of 2 to 10 s between looks are what makes a failover slow, and one stall of a loaded machine
            // has them tilt for 30 s; only a test may change them. Not the ping period: a replica that was not looked at
            // within five of them is no good to be promoted, and while the master is down they look once a second.
            let periods = "INFO-PERIOD 200 PUBLISH-PERIOD 200 ASK-PERIOD 200 TILT-PERIOD 1000 ELECTION-TIMEOUT 2000";
            sentinel.ask::<()>(&format!("SENTINEL DEBUG {periods}"));
        }
        let knows_all = |one: &Server| one.info("master0").ends_with("slaves=2,sentinels=3");
        until("sentinels that know everybody", || this.sentinels.iter().all(knows_all));
        this
    }

    /// `redis+sentinel` hosts: `127.0.0.1:1,127.0.0.1:2,127.0.0.1:3`.
    pub(crate) fn hosts(&self) -> String {
        self.sentinels.iter().map(|one| one.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The port that most sentinels call the master's.
    pub(crate) fn master_port(&self) -> Option<u16> {
        let named: Vec<u16> = self.sentinels.iter().filter_map(said_master).collect();
        let votes = |port: u16| named.iter().filter(|&&other| other == port).count();
        named.iter().copied().find(|&port| 2 * votes(port) > self.sentinels.len())
    }

    /// The server that is the master now: the sentinels say so, and it says so itself. Waits for one.
    pub(crate) fn master(&self) -> &Server {
        until_some("a master", || {
            let port = self.master_port()?;
            self.servers.iter().find(|one| one.port() == port && one.is_running() && one.info("role") == "master")
        })
    }

    /// Kills the master, waits until the sentinels have another one that takes writes, and answers the dead one's port.
    pub(crate) fn kill_master(&mut self) -> u16 {
        let old = self.master().port();
        self.server_mut(old).kill9();
        self.until_replaced(old);
        old
    }

    /// Freezes the master, waits until the sentinels have another one that takes writes, and answers the old one's port.
    pub(crate) fn stop_master(&self) -> u16 {
        let old = self.master();
        old.stop();
        self.until_replaced(old.port());
        old.port()
    }

    fn until_replaced(&self, old: u16) {
        let logs = || self.logs();
        until_or("another master", logs, || {
            let port = self.master_port().filter(|&port| port != old)?;
            (self.server(port).info("role") == "master").then_some(())
        });
    }

    /// Starts a killed server again, and waits until it follows the master.
    pub(crate) fn revive(&mut self, port: u16) {
        self.server_mut(port).restart();
        until("a rejoined replica", || {
            let one = self.server(port);
            one.info("role") == "slave" && one.info("master_link_status") == "up"
        });
    }

    pub(crate) fn server(&self, port: u16) -> &Server {
        self.servers.iter().find(|one| one.port() == port).expect("a server of this kit")
    }

    fn server_mut(&mut self, port: u16) -> &mut Server {
        self.servers.iter_mut().find(|one| one.port() == port).expect("a server of this kit")
    }

    /// What the sentinels have written, for a failure to show.
    fn logs(&self) -> String {
        self.sentinels.iter().map(|one| format!("\nsentinel {}:\n{}", one.port(), one.log())).collect()
    }
}

fn said_master(sentinel: &Server) -> Option<u16> {
    let (_, port): (String, u16) = sentinel.try_ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}")).ok()?;
    Some(port)
}

fn config(master_port: &str) -> Vec<String> {
    vec![
        format!("sentinel monitor {NAME} 127.0.0.1 {master_port} 2"),
        format!("sentinel down-after-milliseconds {NAME} 1000"),
        format!("sentinel failover-timeout {NAME} 2000"),
        format!("sentinel parallel-syncs {NAME} 2"),
    ]
}
