//! Fear: a page of the documentation shows what does not work. The console blocks of a page run here, in order and in one
//! shell, and must print what they show; blocks in other languages run against a server, and units are looked at by systemd.
#![cfg(all(feature = "server", unix))]

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary::{self, BINARY, Did, Process, command};
use crate::kit::{self, Dir};

const TLS: &str = include_str!("../../docs/tls.md");
const RECIPES: &str = include_str!("../../docs/recipes.md");
const MIGRATING: &str = include_str!("../../src/guide/migrating.md");
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/clients");

/// The lines of every fenced block in one language.
pub(crate) fn blocks<'a>(language: &str, text: &'a str) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                found.push(block);
            }
        }
    }
    found
}

/// The languages of a page's blocks.
pub(crate) fn languages(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("```")).step_by(2)
}

/// Ends what a shell has left in the background.
struct Shell(std::process::Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // The servers are in the shell's group; it may have ended already.
        let group = format!("kill -TERM -- -{}", self.0.id());
        // Not `sh`: the one of Debian knows no `--` here.
        let _ = Command::new("bash").args(["-c", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// Runs the console blocks of a page in one shell, and returns what each line has printed beside what it shows.
fn in_one_shell(page: &str, ports: &[(&str, u16)]) -> Vec<(String, String, String)> {
    use std::os::unix::process::CommandExt;
    const END: &str = "end of this line";
    let dir = kit::Dir::make();
    let lines = blocks("console", page).concat();
    let shown = lines.split(|line| line.starts_with("$ ")).skip(1).map(|shown| shown.join("\n"));
    let typed: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("$ ")).collect();
    let separator = format!("\necho '{END}'\n");
    let script =
        ports.iter().fold(typed.join(&separator), |text, (named, ours)| text.replace(named, &ours.to_string()));
    let ours = Path::new(BINARY).parent().unwrap().display();
    let mut shell = binary::command("bash", &["-c", &(script + &separator)]);
    shell.current_dir(dir.path()).process_group(0);
    shell.env("PATH", format!("{ours}:{}", std::env::var("PATH").unwrap_or_default()));
    let mut shell = Shell(shell.spawn().unwrap());
    let (mut printed, mut said) = (String::new(), String::new());
    shell.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    shell.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let printed: Vec<&str> = printed.split(END).collect();
    assert_eq!(printed.len(), typed.len() + 1, "each line has ended: {said}");
    assert_eq!(said, "", "what a line complains of, the page sends to a file");
    drop(shell);
    for (_, port) in ports {
        kit::until("the end of what the page starts", || TcpStream::connect(("127.0.0.1", *port)).is_err());
    }
    let lines = typed.iter().zip(shown).zip(printed);
    lines.map(|((line, shown), printed)| ((*line).to_owned(), shown, printed.trim().to_owned())).collect()
}

/// Runs the console blocks of a page, and holds them to what they show.
fn prints_what_it_shows(page: &str, ports: &[&str]) {
    let ports: Vec<_> = ports.iter().map(|named| (*named, kit::port::Port::choose())).collect();
    let ports: Vec<_> = ports.iter().map(|(named, port)| (*named, port.number)).collect();
    for (line, shown, printed) in in_one_shell(page, &ports) {
        assert_eq!(printed, shown, "{line}");
    }
}

#[test]
fn the_tls_page_prints_what_it_shows() {
    assert!(languages(TLS).all(|language| language == "console"), "the page is run by a shell");
    prints_what_it_shows(TLS, &["7443", "6380"]);
}

#[test]
fn the_recipes_print_what_they_show() {
    prints_what_it_shows(RECIPES, &["7431"]);
}

#[test]
fn who_comes_from_flock_or_consul_sees_what_the_guide_shows() {
    let server = Process::serve(&[]);
    for block in blocks("console", MIGRATING) {
        let [_typed, shown @ ..] = &block[..] else { panic!("an empty block") };
        assert!(!shown.is_empty());
    }
    let page = format!("```console\n$ export LEASEHOLD_SERVER={}\n```\n{MIGRATING}", server.url);
    prints_what_it_shows(&page, &[]);
}

/// What a block in another language prints, in a folder of its own that has our clients.
fn output(dir: &Dir, server: &Process, words: &[&str]) -> String {
    let mut command = command(words[0], &words[1..]);
    command.current_dir(dir.path()).env("LEASEHOLD_SERVER", &server.url).env("PYTHONPATH", CLIENTS);
    command.env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    command.env("GOCACHE", std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("go"));
    Did::of(command).ok()
}

#[test]
fn the_recipes_in_other_languages_lock() {
    let known = ["console", "python", "js", "go", "crontab", "ini"];
    for language in languages(RECIPES) {
        assert!(known.contains(&language), "nothing tests a `{language}` block");
    }
    let server = Process::serve(&[]);
    let dir = Dir::make();
    let written = |language: &str, name: &str| {
        let [block] = &blocks(language, RECIPES)[..] else { panic!("one block of {language}") };
        fs::write(dir.path().join(name), block.join("\n") + "\n").unwrap();
    };
    let copied = |from: &str, name: &str| fs::copy(Path::new(CLIENTS).join(from), dir.path().join(name)).unwrap();
    written("python", "recipe.py");
    let python = output(&dir, &server, &["python3", "-B", "recipe.py"]);
    copied("leasehold.mjs", "leasehold.mjs");
    written("js", "recipe.mjs");
    let node = output(&dir, &server, &["node", "recipe.mjs"]);
    copied("go/go.mod", "go.mod");
    fs::create_dir(dir.path().join("leasehold")).unwrap();
    copied("go/leasehold/leasehold.go", "leasehold/leasehold.go");
    written("go", "recipe.go");
    let go = output(&dir, &server, &["go", "run", "recipe.go"]);
    let fences: Vec<u64> = [("python", python), ("node", node), ("go", go)]
        .iter()
        .map(|(language, said)| {
            said.trim().strip_prefix(&format!("{language} under fencing token ")).unwrap().parse().unwrap()
        })
        .collect();
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

#[test]
fn the_lines_for_cron_run_a_job_and_skip_a_turn() {
    let server = Process::serve(&[]);
    let dir = Dir::make();
    let job = dir.path().join("make-report");
    fs::write(&job, "#!/bin/sh\necho made\n").unwrap();
    fs::set_permissions(&job, fs::Permissions::from_mode(0o755)).unwrap();
    let path = [dir.path(), Path::new(BINARY).parent().unwrap()].map(|part| part.display().to_string()).join(":");
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    for line in blocks("crontab", RECIPES).concat() {
        let fields: Vec<&str> = line.splitn(6, ' ').collect();
        let [minute, _, _, _, _, job] = fields[..] else {
            assert!(line.starts_with("LEASEHOLD_") && line.contains('='), "{line}");
            continue;
        };
        assert!(minute.starts_with(|c: char| c.is_ascii_digit() || c == '*'), "{line}");
        let run = || {
            let mut sh = command("/bin/sh", &["-c", job]);
            sh.env("PATH", &path).env("LEASEHOLD_SERVER", &server.url);
            let did = Did::of(sh);
            assert_eq!((did.code, did.stderr.as_str()), (0, ""), "{line}");
            did.stdout
        };
        assert_eq!(run(), "made\n", "{line}");
        let ask = ["acquire", "cron:report", "--nonblock"];
        let held = |words: &[&str]| {
            let mut verb = binary::leasehold(words);
            verb.env("LEASEHOLD_SERVER", &server.url);
            Did::of(verb).ok()
        };
        let granted = held(&ask);
        assert_eq!(run(), "", "its turn is skipped: {line}");
        held(&["release", "cron:report", granted.split('\t').next().unwrap()]);
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_timer_and_its_service() {
    let dir = Dir::make();
    let units = blocks("ini", RECIPES);
    let names: Vec<&str> =
        RECIPES.lines().filter_map(|line| line.strip_prefix("`report.")?.strip_suffix("`:")).collect();
    assert_eq!((units.len(), &names[..]), (2, &["service", "timer"][..]));
    for (unit, name) in units.iter().zip(names) {
        let text = unit.join("\n").replace("/usr/bin/leasehold", BINARY);
        fs::write(dir.path().join(format!("report.{name}")), text).unwrap();
    }
    let mut verify = command("systemd-analyze", &["verify", "--man=no", "./report.timer", "./report.service"]);
    verify.current_dir(dir.path()).env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()));
    let did = Did::of(verify);
    assert_eq!((did.code, did.stderr.as_str()), (0, ""), "{did:?}");
}
