//! Fear: something that comes from outside is half understood, brings the process down, or is quoted with its secret.
//!
//! What the fuzzers of `fuzz/` have found worth keeping is fed to the same properties here.
#![cfg(all(feature = "server", feature = "test-util"))]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::parsers;

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Every file of a corpus, through its property.
fn feed(name: &str) {
    let property = parsers::ALL.iter().find(|property| property.0 == name).unwrap().1;
    let files = files(&fuzz("corpus").join(name));
    assert!(files.len() >= 10, "{name}: its corpus is lost");
    for file in files {
        let data = std::fs::read(&file).unwrap();
        let held = catch_unwind(|| property(&data));
        assert!(held.is_ok(), "{}: {:?}", file.display(), String::from_utf8_lossy(&data));
    }
}

macro_rules! corpora {
    ($($test:ident = $name:ident;)*) => {
        $(#[test]
        fn $test() {
            feed(stringify!($name));
        })*

        const FED: &[&str] = &[$(stringify!($name)),*];
    };
}

corpora! {
    bodies_are_understood_whole_or_refused = bodies;
    durations_are_read_as_they_are_written = durations;
    fencing_tokens_are_whole_numbers_and_nothing_else = fences;
    tokens_are_the_same_in_every_spelling = grant_tokens;
    headers_let_in_whom_they_should = headers;
    keys_keep_their_text_their_order_and_their_slot = keys;
    what_a_server_says_cannot_steer_a_terminal = printed;
    redis_is_believed_only_what_a_script_can_answer = redis_replies;
    settings_are_printed_as_a_file_that_says_the_same = settings;
    stores_are_named_without_their_passwords = stores;
    lists_of_tokens_are_refused_without_a_token = token_files;
    urls_are_about_the_key_that_they_name = urls;
}

#[test]
fn every_property_has_a_corpus_and_a_fuzz_target() {
    let manifest = std::fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    let mut names: Vec<&str> = parsers::ALL.iter().map(|property| property.0).collect();
    assert_eq!(names, FED);
    for name in &names {
        let target = std::fs::read_to_string(fuzz(&format!("targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("hold(\"{name}\", data)")), "{target}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"")), "{name}");
    }
    let stems = |folder: &str| -> Vec<String> {
        files(&fuzz(folder)).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    names.sort_unstable();
    assert_eq!(stems("targets"), names);
    assert_eq!(stems("corpus"), names);
}

#[test]
fn corpora_stay_small() {
    for name in FED {
        let files = files(&fuzz("corpus").join(name));
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(files.len() <= 200 && bytes < 300 * 1024, "{name}: {} files, {bytes} bytes", files.len());
    }
}
