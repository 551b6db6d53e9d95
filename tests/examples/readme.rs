//! Fear: the README, or a page on the server or the command line, shows what does not work. Rust blocks are doc tests;
//! console blocks run here, each page's against a server of its own, and must print what they show (numbers apart);
//! commands must exist, and the picture of a terminal must be of what is printed now.
#![cfg(all(feature = "server", unix))]

use std::path::Path;
use std::process::Command;

use crate::binary::{BINARY, Did, Process, command};
use crate::pages::{blocks, languages};

const README: &str = include_str!("../../README.md");
const SERVER: &str = include_str!("../../docs/server.md");
const COMMAND_LINE: &str = include_str!("../../docs/command_line.md");
const TERMINAL: &str = include_str!("../../docs/terminal.svg");

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
    for page in [README, SERVER, COMMAND_LINE] {
        print_what_they_show(page);
    }
}

fn print_what_they_show(page: &str) {
    let server = Process::serve(&[]);
    let mut ran = 0;
    // `leasehold` is this one, and asks this server.
    let ours = Path::new(BINARY).parent().unwrap().display();
    let path = format!("{ours}:{}", std::env::var("PATH").unwrap_or_default());
    for block in blocks("console", page) {
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
    assert!(ran >= 3, "the page shows the server at work");
}

/// Runs the line in a crate of its own, with this one in the place that the line names.
fn adds_the_library(words: &[&str]) -> bool {
    let dir = crate::kit::Dir::make();
    let at = |words: &[&str]| {
        let mut cargo = command(env!("CARGO"), words);
        cargo.current_dir(dir.path());
        Did::of(cargo).ok()
    };
    at(&["init", "--quiet", "--name", "service", "--vcs", "none"]);
    let line: Vec<&str> =
        words[1..].iter().map(|word| if *word == "../leasehold" { env!("CARGO_MANIFEST_DIR") } else { word }).collect();
    at(&[&line[..], &["--offline"]].concat());
    std::fs::read_to_string(dir.path().join("Cargo.toml")).unwrap().contains("leasehold")
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
            ["cargo", "install", "--path", ".", "--locked", "--features", "server"] => true,
            // tests/packaging does what is behind it.
            ["packaging/debian/build"] => Path::new(env!("CARGO_MANIFEST_DIR")).join(words[0]).exists(),
            ["docker", "build", "--tag", "leasehold", "."] => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile").exists()
            }
            ["cargo", "add", "leasehold", "--path", "../leasehold"] => adds_the_library(&words),
            ["benches/run", rounds, "all"] => rounds.parse::<u32>().is_ok(),
            ["benches/run", rounds, benches @ ..] => rounds.parse::<u32>().is_ok() && benches.iter().all(is_bench),
            ["cargo", "bench", "--bench", bench, ..] | ["cargo", "bench", "--features", _, "--bench", bench, ..] => {
                is_bench(bench)
            }
            _ => false,
        };
        assert!(known, "no test knows what `{line}` does");
    }
}

/// The words of a picture or of its likeness, without what differs from run to run: how long, and which number.
fn words(svg: &str) -> Vec<String> {
    let lines = svg.lines().filter(|line| line.starts_with("<text")).map(|line| {
        let mut tags = line.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
        tags.by_ref().collect::<String>()
    });
    let numbers =
        |word: &str| if word.starts_with(|c: char| c.is_ascii_digit()) { "#".to_owned() } else { word.to_owned() };
    let mut words: Vec<String> =
        lines.flat_map(|line| line.split_whitespace().map(numbers).collect::<Vec<_>>()).collect();
    words.dedup_by(|next, before| next == "#" && before == "#");
    words
}

#[test]
fn the_picture_of_a_terminal_shows_what_is_printed_now() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/draw_terminal");
    let now = Did::of(command("python3", &["-B", script, BINARY])).ok();
    assert_eq!(words(&now), words(TERMINAL), "docs/draw_terminal draws it anew");
    assert!(words(TERMINAL).len() > 50);
}

#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    for language in languages(README) {
        assert!(["rust", "console", "sh"].contains(&language), "nothing tests a `{language}` block");
    }
}
