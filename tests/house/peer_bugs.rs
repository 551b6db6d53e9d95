//! Fear: a bug that other lock libraries had is ours too, and nobody looked (peer bugs).
//!
//! The tests live with their fears; here are the lists of those that can happen in memory mode and over Redis, and
//! whether each has one.

use std::path::Path;

/// Those of the peers' bugs that can happen without a store.
const IN_MEMORY_MODE: [u32; 18] = [3, 5, 6, 16, 17, 18, 19, 20, 21, 22, 23, 27, 28, 32, 34, 35, 36, 40];

/// Those that can happen to locks in Redis.
#[cfg(feature = "redis")]
const OVER_REDIS: [u32; 19] = [1, 2, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 31, 33, 37, 38];

/// The doc line of a test for a peer's bug: `/// Peer bug N: what went wrong there`.
const MARK: &str = concat!("/// Peer", " bug ");

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The numbers of the bugs that a file has tests for: a doc line, then a test's attribute and its function.
fn tested(text: &str) -> Vec<u32> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let number = |(at, line): (usize, &&str)| {
        let (number, what) = line.strip_prefix(MARK)?.split_once(": ")?;
        let mut after = lines[at + 1..].iter().skip_while(|line| line.starts_with("///"));
        let is_test = after.next()?.contains("test") && after.next()?.contains("fn ");
        (is_test && !what.is_empty()).then(|| number.parse().expect("it is a number"))
    };
    lines.iter().enumerate().filter_map(number).collect()
}

/// Those of these bugs that none of the files that count has a test for.
fn missing(bugs: &[u32], counts: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut files = Vec::new();
    for room in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut files);
    }
    let tested: Vec<u32> = files.iter().filter(|text| counts(text)).flat_map(|text| tested(text)).collect();
    bugs.iter().copied().filter(|bug| !tested.contains(bug)).collect()
}

#[test]
fn every_peer_bug_that_can_happen_in_memory_mode_has_its_test() {
    let missing = missing(&IN_MEMORY_MODE, |_| true);
    assert!(missing.is_empty(), "no test says that it is for peer bug {missing:?}");
}

#[cfg(feature = "redis")]
#[test]
fn every_peer_bug_that_can_happen_over_redis_has_its_test_there() {
    // Only those with real servers count.
    let missing = missing(&OVER_REDIS, |text| text.contains(concat!("crate", "::kit")));
    assert!(missing.is_empty(), "no test over Redis says that it is for peer bug {missing:?}");
}

#[test]
fn a_doc_line_counts_only_above_a_test() {
    let line = format!("{MARK}7: it was so.");
    assert_eq!(tested(&format!("{line}\n#[test]\nfn it_is_not_so() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\n#[actix_rt::test]\nasync fn it_is_not_so() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn it_is_not() {{}}")), [7]);
    assert_eq!(tested(&format!("{line}\nstruct NoTest;")), [0; 0]);
    assert_eq!(tested(&format!("{MARK}7: \n#[test]\nfn says_nothing() {{}}")), [0; 0]);
}
