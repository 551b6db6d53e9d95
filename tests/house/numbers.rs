//! Fear: a number in a comment leads nowhere, or a rule is kept by nobody.
//!
//! Rules and peers' bugs are cited by number, as in `(T3)`. What a number stands for is said once, in a table of the
//! documentation of the room that keeps it.

use std::collections::BTreeSet;

use crate::sources::files;

/// The kinds of rules, and where each is defined.
const KEPT_IN: [(char, &str); 9] = [
    ('T', "src/table/mod.rs"),
    ('C', "src/table/mod.rs"),
    ('S', "src/store/mod.rs"),
    ('R', "src/store/redis/mod.rs"),
    ('N', "src/store/redis/mod.rs"),
    ('L', "src/store/redlock/mod.rs"),
    ('H', "src/store/redis/hand_over.rs"),
    ('D', "src/store/file/mod.rs"),
    ('K', "src/table/claim/kept.rs"),
];

/// What is defined by the first cell of a row of a table in a module's documentation.
fn defined_by(line: &str) -> Option<&str> {
    line.strip_prefix("//! | ")?.split(" | ").next()
}

/// Whether it is spelt like the number of a rule.
fn is_rule(word: &str) -> bool {
    let (kind, number) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
    let is_kind = KEPT_IN.iter().any(|(letter, _)| kind.chars().eq([*letter]));
    is_kind && (1..=2).contains(&number.len()) && number.chars().all(|c| c.is_ascii_digit())
}

/// The rules that a text cites. Escapes in URLs (`%C3`) are none.
fn cited(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let own = defined_by(line);
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '%');
        found.extend(words.filter(|word| is_rule(word) && own != Some(word)).map(str::to_owned));
    }
    found
}

fn everything() -> Vec<String> {
    let rooms = ["src", "tests", "benches", "examples"].into_iter();
    rooms.flat_map(|room| files(room, &["rs", "lua"])).map(|(_, text)| text).collect()
}

#[test]
fn every_rule_that_is_cited_is_defined_and_every_one_that_is_defined_is_cited() {
    let mut defined = BTreeSet::new();
    for (kind, path) in KEPT_IN {
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let rows = text.lines().filter_map(defined_by).filter(|rule| is_rule(rule) && rule.starts_with(kind));
        let before = defined.len();
        for rule in rows {
            assert!(defined.insert(rule.to_owned()), "{rule} is defined twice");
        }
        assert!(defined.len() > before, "{path} defines no {kind}");
    }
    let cited: BTreeSet<String> = everything().iter().flat_map(|text| cited(text)).collect();
    let (unknown, idle): (Vec<_>, Vec<_>) =
        (cited.difference(&defined).collect(), defined.difference(&cited).collect());
    assert!(unknown.is_empty() && idle.is_empty(), "cited and not defined: {unknown:?}; never cited: {idle:?}");
}

/// A text without the marks of its comments and without its ends of lines.
fn joined(text: &str) -> String {
    let plain = |line: &str| line.trim_start().trim_start_matches(['/', '!', '-']).to_owned();
    text.lines().map(plain).collect()
}

/// The numbers that begin a text: `3`, `3, 4 and 7`, `5 to 8, 16`.
fn numbers(text: &str) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut is_range = false;
    for word in text.split_whitespace() {
        match word.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>() {
            Ok(number) => {
                let first = if is_range { found.last().map_or(number, |last| last + 1) } else { number };
                found.extend(first..=number);
                is_range = false;
                if !word.ends_with(|c: char| c == ',' || c.is_ascii_digit()) {
                    break;
                }
            }
            Err(_) if word == "to" => is_range = true,
            Err(_) if word == "and" => {}
            Err(_) => break,
        }
    }
    found
}

/// The peers' bugs that a text cites.
fn cited_bugs(text: &str) -> BTreeSet<u32> {
    let text = joined(text).to_lowercase();
    let after = text.split("peer bug").skip(1);
    after.flat_map(|rest| numbers(rest.strip_prefix('s').unwrap_or(rest))).collect()
}

#[test]
fn every_peer_bug_that_is_cited_is_on_the_list_and_every_one_on_it_is_cited() {
    let rows = include_str!("peer_bugs.rs").lines().filter_map(defined_by);
    let listed: BTreeSet<u32> = rows.filter_map(|number| number.parse().ok()).collect();
    let cited: BTreeSet<u32> = everything().iter().flat_map(|text| cited_bugs(text)).collect();
    assert_eq!(listed, cited);
}

#[test]
fn numbers_are_found_as_people_write_them() {
    let rules = cited("//! It is so (T3, R16 and L2): see S1 to S4, `%C3`, T1x, T100, A1.\n//! | T1 | Not T2 |\n");
    assert_eq!(rules.into_iter().collect::<Vec<_>>(), ["L2", "R16", "S1", "S4", "T2", "T3"]);
    let bugs = concat!("//! Peer", " bugs 3, 5 to 7\n/// peer", " bug 12: 40 of them; (peer", "\n//! bugs 20 and 21).");
    assert_eq!(cited_bugs(bugs).into_iter().collect::<Vec<_>>(), [3, 5, 6, 7, 12, 20, 21]);
}
