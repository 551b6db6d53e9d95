//! Fear: a store that asks who comes is out of reach of the command line.
//!
//! Real servers and Sentinels that speak TLS, want a certificate and know users, asked by `run` and by `serve`.

use std::io::{BufRead, BufReader};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::binary::{Did, Process, leasehold};
use crate::cli::Running;
use crate::kit::port::Port;
use crate::kit::server::Kind;
use crate::kit::{Dir, Server, until};
use crate::pg::Postgres;

/// A certificate authority and what it has signed, as PEM files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: Dir,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "ours");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let this = Self { issuer, dir: Dir::make() };
        this.file("ca.pem", &this.issuer.pem());
        this.sign("server");
        this.sign("client");
        this
    }

    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        self.file(&format!("{name}.pem"), &signed.pem());
        self.file(&format!("{name}.key"), &key.serialize_pem());
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a server is told in order to show its certificate and to ask for one, each setting a name and a value.
    fn server_settings(&self, tls_port: u16) -> Vec<[String; 2]> {
        vec![
            ["tls-port".to_owned(), tls_port.to_string()],
            ["tls-cert-file".to_owned(), self.path("server.pem")],
            ["tls-key-file".to_owned(), self.path("server.key")],
            ["tls-ca-cert-file".to_owned(), self.path("ca.pem")],
        ]
    }

    /// What a client is told.
    fn client_words(&self) -> Vec<String> {
        let pairs =
            [("--store-tls-ca", "ca.pem"), ("--store-tls-cert", "client.pem"), ("--store-tls-key", "client.key")];
        pairs.iter().flat_map(|(flag, file)| [(*flag).to_owned(), self.path(file)]).collect()
    }

    /// A server with a second port, where it speaks TLS and asks for a certificate of ours.
    fn redis(&self) -> (Server, Port) {
        let port = Port::choose();
        let settings = self.server_settings(port.number);
        let words = settings.iter().flat_map(|[name, value]| [format!("--{name}"), value.clone()]).collect::<Vec<_>>();
        (Server::start(&words.iter().map(String::as_str).collect::<Vec<_>>()), port)
    }
}

/// A Sentinel of one master; the only user that it lets in is `guard`, with the password `hunter2`.
fn guarded_sentinel(master: u16, settings: &[String]) -> Server {
    let config = [&[format!("sentinel monitor mine 127.0.0.1 {master} 1")], settings].concat();
    let sentinel = Server::launch(Kind::Sentinel, |_| config.clone());
    until("a master that is seen", || sentinel.info("master0").contains("status=ok"));
    sentinel.ask::<()>("ACL SETUSER guard on >hunter2 allchannels +@all");
    sentinel.ask::<()>("ACL SETUSER default off");
    sentinel
}

/// Runs a command that looks whether the server has the lock that `run` holds over this store.
fn run(store: &str, words: &[String], sentinel_password: Option<&str>, server: &Server) -> Did {
    let mut run = leasehold(&["run", "--key", "k", "--nonblock", "--store", store]);
    run.args(words).args(["--", "redis-cli", "-p", &server.port().to_string(), "EXISTS", "lock:k"]);
    if let Some(password) = sentinel_password {
        run.env("LEASEHOLD_STORE_SENTINEL_PASSWORD", password);
    }
    Did::of(run)
}

#[test]
fn a_server_that_speaks_tls_and_asks_for_a_certificate_is_reached() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let (redis, port) = ours.redis();
    let store = format!("rediss://localhost:{}", port.number);
    assert_eq!(run(&store, &ours.client_words(), None, &redis).ok(), "1\n");
    let only_ca = &ours.client_words()[..2];
    let mixed = [only_ca, &foreign.client_words()[2..]].concat();
    for words in [&[][..], only_ca, &mixed, &foreign.client_words()] {
        run(&store, words, None, &redis).fails(69, "store");
    }
    redis.ask::<()>("ACL SETUSER app on >secret ~* &* +@all");
    let as_user = format!("rediss://app:secret@localhost:{}", port.number);
    assert_eq!(run(&as_user, &ours.client_words(), None, &redis).ok(), "1\n");
}

#[actix_rt::test]
async fn the_server_keeps_its_locks_behind_tls_by_settings_in_the_environment() {
    let ours = Authority::new();
    let (redis, port) = ours.redis();
    let mut serve = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("LEASEHOLD_STORE", format!("rediss://127.0.0.1:{}", port.number));
    for (variable, file) in [("CA", "ca.pem"), ("CERT", "client.pem"), ("KEY", "client.key")] {
        serve.env(format!("LEASEHOLD_STORE_TLS_{variable}"), ours.path(file));
    }
    let server = Process::start(serve);
    let acquire = |words: &[&str]| {
        let mut acquire = leasehold(&[&["acquire", "k", "--json"], words].concat());
        acquire.env("LEASEHOLD_SERVER", &server.url);
        Did::of(acquire)
    };
    acquire(&[]).ok();
    assert_eq!(redis.ask::<i64>("EXISTS lock:k"), 1);
}

#[test]
fn sentinels_that_know_users_are_asked_as_the_user_that_was_named() {
    let redis = Server::start(&[]);
    let sentinel = guarded_sentinel(redis.port(), &[]);
    let store = format!("redis+sentinel://{}/mine", sentinel.address());
    let user = ["--store-sentinel-user", "guard"].map(str::to_owned);
    assert_eq!(run(&store, &user, Some("hunter2"), &redis).ok(), "1\n");
    run(&store, &user, Some("wrong"), &redis).fails(69, "store");
    run(&store, &[], Some("hunter2"), &redis).fails(69, "store");
    run(&store, &[], None, &redis).fails(69, "store");
}

#[test]
fn sentinels_and_servers_behind_tls_with_users_and_certificates_are_reached() {
    let ours = Authority::new();
    let (redis, port) = ours.redis();
    redis.ask::<()>("ACL SETUSER app on >secret ~* &* +@all");
    let sentinel_port = Port::choose();
    let mut settings: Vec<_> = ours.server_settings(sentinel_port.number).iter().map(|pair| pair.join(" ")).collect();
    // It speaks TLS with the master, too.
    settings.push("tls-replication yes".to_owned());
    let _sentinel = guarded_sentinel(port.number, &settings);
    let store = format!("rediss+sentinel://app:secret@localhost:{}/mine", sentinel_port.number);
    let mut words = ours.client_words();
    words.extend(["--store-sentinel-user", "guard"].map(str::to_owned));
    assert_eq!(run(&store, &words, Some("hunter2"), &redis).ok(), "1\n");
    run(&store, &words, Some("wrong"), &redis).fails(69, "store");
    run(&store, &words[2..], Some("hunter2"), &redis).fails(69, "store");
}

#[test]
fn commands_share_a_key_and_its_permits_in_a_store_without_a_server() {
    let redis = Server::start(&[]);
    let url = redis.url();
    let run = |words: &[&str]| leasehold(&[&["run", "--key", "k", "--nonblock", "--store", &url], words].concat());
    let held = |words: &[&str]| {
        let mut child = run(&[words, &["--", "sh", "-c", "echo in; exec sleep 60"]].concat()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let holding = Running(child);
        assert_eq!(said, "in\n", "it did not get what it wanted");
        holding
    };
    let holding = (held(&["--limit", "5", "--permits", "3"]), held(&["--limit", "5"]));
    Did::of(run(&["--limit", "5", "--permits", "2", "--", "true"])).fails(1, "held");
    Did::of(run(&["--limit", "4", "--", "true"])).fails(64, "1 of 4 permits are asked for");
    Did::of(run(&["--shared", "--", "true"])).fails(64, "a share is asked for");
    assert_eq!(Did::of(run(&["--limit", "5", "--", "echo", "in"])).ok(), "in\n");
    drop(holding);
}

#[test]
fn over_postgresql_the_table_is_made_and_the_lock_is_that_of_all_who_use_it() {
    let postgres = Postgres::start();
    let url = postgres.url();
    let at = |words: &[&str]| {
        let mut command = leasehold(words);
        command.env("LEASEHOLD_STORE", &url).env("LEASEHOLD_STORE_TABLE", "locks");
        command
    };
    // Without the table it says what to do.
    Did::of(at(&["run", "--store", &url, "--key", "k", "--nonblock", "--", "true"]))
        .fails(69, "leasehold postgres init");
    let ddl = Did::of(at(&["postgres", "ddl"])).ok();
    assert!(ddl.contains("CREATE TABLE IF NOT EXISTS") && ddl.contains("locks"), "{ddl}");
    for _ in 0..2 {
        assert_eq!(Did::of(at(&["postgres", "init"])).ok(), "initialised\n");
    }
    let server = Process::start(at(&["serve", "--listen", "127.0.0.1:0"]));
    let acquired = Did::of(leasehold(&["acquire", "k", "--server", &server.url, "--ttl", "1m"])).ok();
    Did::of(at(&["run", "--store", &url, "--key", "k", "--nonblock", "--", "true"])).fails(1, "held");
    let token = acquired.split('\t').next().unwrap();
    Did::of(leasehold(&["release", "k", token, "--server", &server.url])).ok();
    let script = ["run", "--store", &url, "--key", "k", "--", "sh", "-c", "echo $LEASEHOLD_FENCING_TOKEN; exit 3"];
    let did = Did::of(at(&script));
    assert!(did.code == 3 && did.stdout.trim().parse::<u64>().is_ok(), "{did:?}");
    Did::of(at(&["redlock", "init", "--nothing-is-held"])).fails(64, "redlock:");
    Did::of(leasehold(&["postgres", "init", "--store", "redis://127.0.0.1:1"])).fails(64, "postgres://");
}
