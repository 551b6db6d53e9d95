//! Real PostgreSQL for tests: servers on free loopback ports, each in a directory of its own, and PgBouncer before one.
//!
//! PostgreSQL refuses to run as root: then it runs as Debian's user `postgres`. Whatever is started ends with its value, by
//! its own child handle. Nothing needs a runtime of the test's: every call blocks.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use leasehold::store::postgres::PostgresStore;

use crate::kit::port::Port;
use crate::kit::{Dir, until, until_some};

/// Who may do what, by socket and by loopback. Users other than `postgres` need their password, and are given none but by
/// [`Postgres::user`].
const ACCESS: &str = "local all all trust
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
";

/// A running server, or one that was killed and may come back.
#[derive(Debug)]
pub(crate) struct Postgres {
    child: Option<Child>,
    port: Port,
    dir: Dir,
    settings: Vec<String>,
}

impl Postgres {
    /// A server that loses what it has not written when the machine goes down: for all fears but those of crashes.
    pub(crate) fn start() -> Self {
        Self::with(&["fsync=off"])
    }

    /// A server with these settings beside the usual ones.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::launch(settings, |data| {
            copy(&template(), data);
        })
    }

    /// A server that encrypts, with a certificate and its key in these files.
    pub(crate) fn with_tls(certificate: &str, key: &str) -> Self {
        Self::launch(&["fsync=off", "ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"], |data| {
            copy(&template(), data);
            for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
                let to = data.join(to);
                fs::copy(from, &to).unwrap();
                fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
                give_away(&to);
            }
        })
    }

    /// A standby of another server: a copy of it that follows.
    pub(crate) fn standby_of(other: &Self, settings: &[&str]) -> Self {
        Self::launch(settings, |data| {
            let mut copying = by_its_user(&tool("pg_basebackup"), data.parent().unwrap());
            copying.args(["-R", "-c", "fast", "-U", "postgres", "-h", "127.0.0.1", "-p", &other.port().to_string()]);
            run(copying.arg("-D").arg(data));
        })
    }

    fn launch(settings: &[&str], fill: impl Fn(&Path)) -> Self {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        for _ in 0..10 {
            let dir = Dir::make();
            give_away(dir.path());
            fill(&dir.path().join("data"));
            let mut server = Self { child: None, port: Port::choose(), dir, settings: settings.clone() };
            if server.run() {
                return server;
            }
        }
        panic!("no port stays free for as long as a server needs to bind it");
    }

    /// Starts the process, and waits until it answers. Not, if somebody has its port.
    fn run(&mut self) -> bool {
        let log = self.dir.path().join("log");
        let out = File::create(&log).unwrap();
        let mut command = by_its_user(&tool("postgres"), self.dir.path());
        command.arg("-D").arg(self.dir.path().join("data"));
        command.args(["-p", &self.port().to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.dir.path().display()));
        command.args(["-c", "shared_buffers=16MB", "-c", "log_min_duration_statement=-1"]);
        self.settings.iter().for_each(|setting| _ = command.args(["-c", setting]));
        let out_too = out.try_clone().unwrap();
        self.child = Some(command.stdin(Stdio::null()).stdout(out).stderr(out_too).spawn().unwrap());
        until_some("an answer of PostgreSQL", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap().is_some();
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(!ended || said.contains("Address already in use") || said.contains("in use"), "{said}");
            if ended {
                return Some(false);
            }
            self.try_ask("SELECT 1").is_some().then_some(true)
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// As its superuser, who needs no password.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
    }

    /// Creates a user, and answers its URL.
    pub(crate) fn user(&self, name: &str, password: &str) -> String {
        self.ask(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"));
        format!("postgres://{name}:{password}@127.0.0.1:{}/postgres", self.port())
    }

    /// What the table's owner would do, with the usual names.
    pub(crate) fn init(&self) {
        let store = PostgresStore::new(&self.url()).unwrap();
        self.ask(&store.ddl());
    }

    /// Some statements, by `psql`; answers their rows.
    #[track_caller]
    pub(crate) fn ask(&self, statements: &str) -> String {
        let out = self.psql(statements);
        assert!(out.status.success(), "{statements}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn try_ask(&self, statements: &str) -> Option<String> {
        let out = self.psql(statements);
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn psql(&self, statements: &str) -> std::process::Output {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"]);
        command.arg("-h").arg(self.dir.path()).args(["-p", &self.port().to_string(), "-c", statements]);
        command.stdin(Stdio::null()).output().expect("psql is installed (tests/run does it)")
    }

    /// What the server has written since it was started last.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends the process as the system would when out of memory, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our own child, and not yet waited for");
            child.wait().expect("it was killed");
        }
    }

    /// Starts it again on the same port and directory, killing it first if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        // Its children end a moment later, and keep its memory until then.
        until("the server's own port", || self.run());
    }

    /// Freezes the process that answers new connections, and each that serves one.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the server runs").id();
        run(Command::new("sh").arg("-c").arg(format!("kill -s {name} {pid} $(ps -o pid= --ppid {pid})")));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // At once, its children with it. A panic here would hide the one that a failing test is about.
            Command::new("sh").arg("-c").arg(format!("kill -s QUIT {}", child.id())).status().ok();
            child.wait().ok();
        }
    }
}

/// PgBouncer, which pools transactions: the next statement of a session may go to another process of the server.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    child: Child,
    port: Port,
    _dir: Dir,
}

impl PgBouncer {
    pub(crate) fn before(server: &Postgres) -> Self {
        let (dir, port) = (Dir::make(), Port::choose());
        give_away(dir.path());
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             server_reset_query =\n",
            server.port(),
            port.number
        );
        let settings = settings.replace("* = host", "postgres = user=postgres host");
        let file = dir.path().join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        give_away(&file);
        let out = File::create(dir.path().join("log")).unwrap();
        let mut command = by_its_user(Path::new("/usr/sbin/pgbouncer"), dir.path());
        command.arg(&file).stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
        let child = command.spawn().expect("pgbouncer is installed (tests/run does it)");
        let this = Self { child, port, _dir: dir };
        until("PgBouncer listens", || std::net::TcpStream::connect(("127.0.0.1", this.port.number)).is_ok());
        this
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port.number)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Debian keeps the server's programs out of the path.
fn tool(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed (tests/run does it)");
    let mut found: Vec<PathBuf> = versions.map(|version| version.unwrap().path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| panic!("{name} comes with PostgreSQL"))
}

/// Whom the server runs as: not root.
fn its_user() -> Option<(u32, u32)> {
    let is_root = run(Command::new("id").arg("-u")).trim() == "0";
    let id = |which| run(Command::new("id").args([which, "postgres"])).trim().parse().unwrap();
    is_root.then(|| (id("-u"), id("-g")))
}

fn by_its_user(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    if let Some((user, group)) = its_user() {
        command.gid(group).uid(user);
    }
    command
}

fn give_away(path: &Path) {
    if let Some((user, group)) = its_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// An empty database, made once for all tests of this machine.
fn template() -> PathBuf {
    let version = tool("initdb").components().rev().nth(2).unwrap().as_os_str().to_string_lossy().into_owned();
    let user = its_user().map_or_else(String::new, |(user, _)| user.to_string());
    let dir = std::env::temp_dir().join(format!("leasehold-postgres-{version}-{user}"));
    fs::create_dir_all(&dir).unwrap();
    give_away(&dir);
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let (data, draft) = (dir.join("data"), dir.join("draft"));
    if !data.exists() {
        fs::remove_dir_all(&draft).ok();
        let mut making = by_its_user(&tool("initdb"), &dir);
        run(making.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]).arg(&draft));
        fs::write(draft.join("pg_hba.conf"), ACCESS).unwrap();
        fs::rename(&draft, &data).unwrap();
    }
    data
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
