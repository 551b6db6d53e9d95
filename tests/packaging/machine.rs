//! A Debian machine with a systemd of its own, which `systemd-nspawn` boots in a second. It has no network but loopback,
//! and what is written on it is gone with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::binary::{Did, command, signal};
use crate::built::prepared;
use crate::kit::{Dir, until_or, until_some};

/// Puts the shell into cgroups of its own (a systemd looks after all that is in its), then becomes `systemd-nspawn`, in a
/// namespace of processes that ends with the test, however that ends.
const START: &str = r#"
set -e
name=$1 && shift
cgroups=/sys/fs/cgroup
[ -e $cgroups/cgroup.procs ] || cgroups="$cgroups/systemd $cgroups/unified"
for cgroup in $cgroups; do mkdir $cgroup/$name && echo $$ > $cgroup/$name/cgroup.procs; done
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc \
    systemd-nspawn --quiet --register=no --keep-unit --volatile=overlay --private-network --console=pipe --machine=$name "$@"
"#;
/// How long the last of its processes may take to be gone.
const LEAVING: Duration = Duration::from_secs(5);
/// Where programs are, there.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct Machine {
    name: String,
    nspawn: Child,
    /// Its process 1, as this machine counts.
    init: String,
    /// What it printed.
    console: Dir,
}

impl Machine {
    /// Boots it; each of these files lies there by its name in `/mnt`.
    pub(crate) fn boot(files: &[&Path]) -> Self {
        let machine = Self::start(&in_mnt(files), &["--boot", "--", "--unit=multi-user.target"]);
        machine.becomes("systemd", || {
            let state = machine.did(&["systemctl", "is-system-running"]).stdout;
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
        machine
    }

    /// Starts it with these words of `systemd-nspawn`: a program, without `--boot`. Each of these files lies there under
    /// the name beside it.
    pub(crate) fn start<W: AsRef<OsStr>>(files: &[(PathBuf, String)], words: &[W]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "a machine is booted by root alone: run these tests as root");
        let console = Dir::make();
        let out = File::create(console.path().join("console")).unwrap();
        let name = format!("leasehold-{}", uuid::Uuid::new_v4().simple());
        let mut start = command("sh", &["-c", START, "sh", &name, "--directory"]);
        start.arg(prepared("machine/root"));
        for (file, name) in files {
            start.arg(format!("--bind-ro={}:{name}", file.display()));
        }
        // Several machines share the files, which none of them writes to.
        start.args(words).env("SYSTEMD_NSPAWN_LOCK", "0").stderr(out.try_clone().unwrap()).stdout(Stdio::from(out));
        let mut machine = Self { name, nspawn: start.spawn().unwrap(), init: String::new(), console };
        machine.init = machine.becomes("process 1", || {
            let nspawn = child_of(&machine.nspawn.id().to_string())?;
            let init = child_of(&nspawn)?;
            // Before that it is `systemd-nspawn` itself that makes the machine.
            let programs = [nspawn, init.clone()].map(|process| fs::read_link(format!("/proc/{process}/exe")).ok());
            let [Some(nspawn), Some(program)] = programs else { return None };
            (nspawn.ends_with("systemd-nspawn") && program != nspawn).then_some(init)
        });
        machine
    }

    /// What it printed.
    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.console.path().join("console")).unwrap_or_default()
    }

    /// Polls until there is an answer.
    #[track_caller]
    pub(crate) fn becomes<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        until_or(what, || format!(" on a machine that printed {}", self.console()), ask)
    }

    /// What a program did there.
    pub(crate) fn did(&self, words: &[&str]) -> Did {
        let mut enter = command("nsenter", &["--target", &self.init, "--all", "--"]);
        Did::of({
            enter.args(words).env("PATH", PATH);
            enter
        })
    }

    /// What a line for the shell printed there; it must have ended well.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        let did = self.did(&["sh", "-c", line]);
        assert_eq!(did.code, 0, "{line}: {did:?}");
        did.said()
    }

    /// What a path of the server answers there.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        self.asks(&format!("http://127.0.0.1:7420{path}")).ok()
    }

    /// What `curl` does, of which that machine has none.
    pub(crate) fn asks(&self, url: &str) -> Did {
        // Names stand for the machine itself.
        let here = ["--connect-to", "::127.0.0.1:", "-sS", "--fail"];
        Did::of(command("nsenter", &[&["--target", &self.init, "--net", "curl", url], &here[..]].concat()))
    }

    /// Sends its process 1 a signal.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.init.parse().unwrap(), name);
    }

    /// Sends its process 1 a signal, and waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self, name: &str) -> i32 {
        self.signal(name);
        let status = until_some("the end of the machine", || self.nspawn.try_wait().unwrap());
        status.code().expect("no signal ended it")
    }

    /// What systemd says of the server.
    #[track_caller]
    pub(crate) fn property(&self, name: &str) -> String {
        self.sh(&format!("systemctl show leasehold --value --property {name}")).trim().to_owned()
    }
}

/// Files by their names in `/mnt`.
pub(crate) fn in_mnt(files: &[&Path]) -> Vec<(PathBuf, String)> {
    let place = |file: &Path| format!("/mnt/{}", file.file_name().unwrap().to_str().unwrap());
    files.iter().map(|file| ((*file).to_owned(), place(file))).collect()
}

fn child_of(process: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        // What is left of its cgroups: folders, which must be empty to go.
        let gone = format!("find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +", self.name);
        let began = Instant::now();
        while began.elapsed() < LEAVING && !Did::of(command("sh", &["-c", &gone])).stderr.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
