//! A Redis Cluster of three masters, with replicas if wanted.

use super::port::Port;
use super::server::Server;
use super::{until, until_some};

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

#[derive(Debug)]
pub(crate) struct Cluster {
    /// The three first masters, then their replicas in turn.
    pub(crate) nodes: Vec<Server>,
    /// Node `i` talks to its peers through `bus[i]`.
    bus: Vec<Port>,
}

impl Cluster {
    /// Starts three masters, and waits until each calls the cluster whole.
    pub(crate) fn start() -> Self {
        Self::with_replicas(0)
    }

    /// Starts three masters with so many replicas each.
    pub(crate) fn with_replicas(each: usize) -> Self {
        let bus: Vec<Port> = (0..MASTERS * (1 + each)).map(|_| Port::choose()).collect();
        let nodes: Vec<Server> = bus.iter().map(node).collect();
        let this = Self { nodes, bus };
        for (at, node) in this.nodes.iter().enumerate() {
            // Each with an epoch of its own: else their claims to slots would collide.
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
            let (port, bus) = (node.port(), this.bus[at].number);
            if at > 0 {
                this.nodes[0].ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
            }
            if at < MASTERS {
                let (first, next) = (at * SLOTS / MASTERS, (at + 1) * SLOTS / MASTERS);
                node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {}", next - 1));
            }
        }
        let count = this.nodes.len();
        until("a whole cluster", || this.nodes.iter().all(|one| is_whole(one, count)));
        for (at, replica) in this.nodes.iter().enumerate().skip(MASTERS) {
            let master = id(&this.nodes[at % MASTERS]);
            replica.ask::<()>(&format!("CLUSTER REPLICATE {master}"));
        }
        until("replicas in step", || this.nodes[MASTERS..].iter().all(|one| one.info("master_link_status") == "up"));
        until("replicas that all know of", || this.nodes.iter().all(|one| roles(one, "slave") == count - MASTERS));
        this
    }

    /// The nodes' addresses, with commas between them.
    pub(crate) fn hosts(&self) -> String {
        self.nodes.iter().map(|one| one.address().to_string()).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn slot_of(&self, key: &str) -> u16 {
        let alive = self.nodes.iter().find(|one| one.is_running()).expect("a node runs");
        redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut alive.client()).unwrap()
    }

    /// The index of the node that serves a slot: it says so itself. Waits for one.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        until_some("an owner of the slot", || self.nodes.iter().position(|one| serves(one, slot)))
    }

    /// Begins to move a slot: until [`Self::finish_move`], its old owner answers `ASK` for keys that it has not.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        target.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(source)));
        source.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(target)));
    }

    /// Moves the slot's keys and gives it to its new owner; waits until every node that runs knows.
    pub(crate) fn finish_move(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let mut client = source.client();
        loop {
            let keys: Vec<Vec<u8>> =
                redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100).query(&mut client).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut moving = redis::cmd("MIGRATE");
            moving.arg("127.0.0.1").arg(target.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            moving.exec(&mut client).unwrap();
        }
        let owner = id(target);
        for node in [target, source] {
            node.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {owner}"));
        }
        let knows = |one: &&Server| table(one).lines().any(|line| line.starts_with(&owner) && lists(line, slot));
        until("nodes that know the new owner", || {
            self.nodes.iter().filter(|one| one.is_running()).all(|one| knows(&one))
        });
    }

    /// Moves a slot with its keys to another node.
    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        self.begin_move(slot, to);
        self.finish_move(slot, to);
    }

    /// Has a replica of the slot's master take its place, both being alive; answers the new master's index.
    pub(crate) fn failover(&self, slot: u16) -> usize {
        let old = self.owner(slot);
        let replica = self.replica_of(old);
        self.nodes[replica].ask::<()>("CLUSTER FAILOVER");
        until("the replica's promotion", || serves(&self.nodes[replica], slot) && !serves(&self.nodes[old], slot));
        replica
    }

    /// Kills the slot's master, and waits until its replica serves; answers the new master's index.
    pub(crate) fn kill_owner(&mut self, slot: u16) -> usize {
        let old = self.owner(slot);
        let replica = self.replica_of(old);
        self.nodes[old].kill9();
        let running = self.nodes.len() - 1;
        until("the replica's election", || serves(&self.nodes[replica], slot));
        until("a cluster that is whole again", || {
            let whole = |one: &&Server| state(one).contains("cluster_state:ok");
            self.nodes.iter().filter(|one| one.is_running()).filter(whole).count() == running
        });
        replica
    }

    /// Starts a killed node again, and waits until it follows the one that took its place.
    pub(crate) fn revive(&mut self, node: usize) {
        self.nodes[node].restart();
        let one = &self.nodes[node];
        until("a rejoined replica", || one.info("role") == "slave" && one.info("master_link_status") == "up");
        let count = self.nodes.len();
        until("a cluster that knows of it", || {
            let followers = count - MASTERS;
            self.nodes
                .iter()
                .filter(|one| one.is_running())
                .all(|one| is_whole(one, count) && roles(one, "slave") == followers && !table(one).contains("fail"))
        });
    }

    /// The index of a replica of this node.
    pub(crate) fn replica_of(&self, master: usize) -> usize {
        let port = self.nodes[master].port().to_string();
        let follows = |one: &Server| one.is_running() && one.info("role") == "slave" && one.info("master_port") == port;
        self.nodes.iter().position(follows).expect("the master has a replica")
    }
}

fn node(bus: &Port) -> Server {
    let bus = bus.number.to_string();
    Server::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-node-timeout",
        "1000",
        "--repl-ping-replica-period",
        "1",
    ])
}

fn id(node: &Server) -> String {
    node.ask("CLUSTER MYID")
}

fn state(node: &Server) -> String {
    node.try_ask("CLUSTER INFO").unwrap_or_default()
}

fn table(node: &Server) -> String {
    node.try_ask("CLUSTER NODES").unwrap_or_default()
}

fn is_whole(node: &Server, count: usize) -> bool {
    let state = state(node);
    state.contains("cluster_state:ok") && state.contains(&format!("cluster_known_nodes:{count}\r"))
}

fn roles(node: &Server, role: &str) -> usize {
    table(node).lines().filter(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains(role))).count()
}

/// Whether the node is a master that lists the slot as its own.
fn serves(node: &Server, slot: u16) -> bool {
    node.is_running() && table(node).lines().any(|line| line.contains("myself,master") && lists(line, slot))
}

/// Whether a line of `CLUSTER NODES` lists the slot. Slots on the move stand in brackets, and are still the old owner's.
fn lists(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().is_ok_and(|first: u16| first <= slot) && last.parse().is_ok_and(|last: u16| slot <= last)
    })
}
