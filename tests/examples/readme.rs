//! Fear: the README and the pages beside it show what does not work. Their Rust blocks are doc tests; their console blocks
//! run here, against the real server, and must print what they show (numbers apart); their commands must exist.
#![cfg(all(feature = "server", unix))]

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary::{self, BINARY, Process};
use crate::kit;

const README: &str = include_str!("../../README.md");
const TLS: &str = include_str!("../../docs/tls.md");

/// The lines of every fenced block in one language.
fn blocks<'a>(language: &str, text: &'a str) -> Vec<Vec<&'a str>> {
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

/// Every run of digits outside of quotes becomes one `#`: times and fencing tokens differ from run to run.
fn shape(text: &str) -> String {
    let mut quoted = false;
    let mut shape = String::new();
    for c in text.chars() {
        quoted ^= c == '"';
        match c {
            '0'..='9' if !quoted => {
                if !shape.ends_with('#') {
                    shape.push('#');
                }
            }
            c => shape.push(c),
        }
    }
    shape
}

#[test]
fn the_console_blocks_print_what_they_show() {
    let server = Process::serve(&[]);
    let mut ran = 0;
    // `leasehold` is this one, and asks this server.
    let ours = Path::new(BINARY).parent().unwrap().display();
    let path = format!("{ours}:{}", std::env::var("PATH").unwrap_or_default());
    for block in blocks("console", README) {
        let mut commands = block.split(|line| line.starts_with("$ ")).skip(1);
        for line in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
            let shown = commands.next().unwrap().join("\n");
            let mut command = Command::new("sh");
            command.arg("-c").arg(line.replace("127.0.0.1:7420", server.address()));
            command.env("PATH", &path).env("LEASEHOLD_SERVER", &server.url);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}");
            assert_eq!(shape(String::from_utf8(output.stdout).unwrap().trim_end()), shape(&shown), "{line}");
            ran += 1;
        }
    }
    assert!(ran >= 5, "the README shows the server at work");
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

#[test]
fn the_tls_page_prints_what_it_shows() {
    let ports = [("7443", kit::port::Port::choose()), ("6380", kit::port::Port::choose())];
    let ports: Vec<_> = ports.iter().map(|(named, port)| (*named, port.number)).collect();
    let lines = in_one_shell(TLS, &ports);
    for (line, shown, printed) in &lines {
        assert_eq!(printed, shown, "{line}");
    }
    assert!(lines.len() > 10);
}

#[test]
fn the_two_commands_are_there() {
    let commands: Vec<&str> = blocks("sh", README).concat();
    let starts = |with: &str| commands.iter().any(|line| line.starts_with(with));
    assert!(starts("cargo run --release --features server") && starts("tests/run"));
    for line in commands {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let is_bench = |bench: &&str| {
            let benches = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
            std::fs::read_to_string(benches).unwrap().contains(&format!("name = \"{bench}\""))
        };
        let known = match &words[..] {
            ["cargo", "run", ..] | ["tests/run"] | ["benches/run"] => true,
            ["benches/run", rounds, benches @ ..] => rounds.parse::<u32>().is_ok() && benches.iter().all(is_bench),
            ["cargo", "bench", "--bench", bench, ..] | ["cargo", "bench", "--features", _, "--bench", bench, ..] => {
                is_bench(bench)
            }
            _ => false,
        };
        assert!(known, "no test knows what `{line}` does");
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    let fences = |page: &'static str| page.lines().filter_map(|line| line.strip_prefix("```")).step_by(2);
    for language in fences(TLS) {
        assert_eq!(language, "console", "the page is run by a shell");
    }
    for language in fences(README) {
        assert!(["rust", "console", "sh"].contains(&language), "nothing tests a `{language}` block");
    }
}
