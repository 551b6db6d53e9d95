//! Fear: the README shows what does not work. Its Rust blocks are doc tests; its console blocks run here, against the
//! real server, and must print what they show (numbers apart); its commands must exist.
#![cfg(all(feature = "server", unix))]

use std::path::Path;
use std::process::Command;

use crate::binary::{BINARY, Process};
use crate::pages::{blocks, languages};

const README: &str = include_str!("../../README.md");

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
    for language in languages(README) {
        assert!(["rust", "console", "sh"].contains(&language), "nothing tests a `{language}` block");
    }
}
