//! A post as text, a line for each thing. What is no such line is skipped, with what belongs to it: anybody may write to
//! the board.
//!
//! | line | what |
//! |---|---|
//! | `leasehold-waits 1 <seen>` | the first: the version, and which number the process had seen |
//! | `o <owner> <label>` | an owner; the lines up to the next are its own |
//! | `w <id> <since> <reach> <mode> <key>` | it waits for a key |
//! | `f <id> <since> <owner> <grant> <key>` | it waits for the end of a grant |
//! | `h <grant> <since> <reach> <mode> <key>` | it holds a key |
//!
//! `since` is a number, or `-`; the reach `e` (everywhere) or `p` (process); the mode `x`, `s` or `<permits>/<limit>`.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::{Hold, Lacks, Reach, Since, Told, Wait};
use crate::key::Key;
use crate::mode::Mode;

/// The longest post, in bytes. Owners that do not fit are left out.
pub(super) const MOST_BYTES: usize = 16 << 10;
const VERSION: &str = "leasehold-waits 1 ";
/// Longer than any label of ours.
const LONGEST_LABEL: usize = 160;

/// What one process has put up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Post {
    /// The highest number that the process had received when it began to look.
    pub(crate) seen: u64,
    pub(crate) owners: Vec<Told>,
}

impl Post {
    /// Leaves of it what these still have.
    pub(crate) fn keep(&mut self, owners: &[Told]) {
        self.owners.retain_mut(|told| {
            let Some(now) = owners.iter().find(|owner| owner.owner == told.owner) else { return false };
            told.waits.retain(|wait| now.waits.iter().any(|other| (other.id, other.lacks) == (wait.id, wait.lacks)));
            told.holds
                .retain(|hold| now.holds.iter().any(|other| (other.grant, other.mode) == (hold.grant, hold.mode)));
            true
        });
    }
}

/// The text of a post. Those who hold what somebody waits for come first, then whoever comes first; answers how many are
/// left out. Empty if there are none.
pub(super) fn write(seen: u64, owners: &[Told]) -> (String, Vec<&Told>) {
    let (mut text, mut told) = (format!("{VERSION}{seen}\n"), Vec::new());
    let wanted_first = |owner: &&Told| owner.holds.is_empty();
    let mut owners: Vec<&Told> = owners.iter().collect();
    owners.sort_by_key(wanted_first);
    for owner in owners {
        let lines = owner.to_string();
        if text.len() + lines.len() <= MOST_BYTES {
            text.push_str(&lines);
            told.push(owner);
        }
    }
    if told.is_empty() {
        text.clear();
    }
    (text, told)
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "o {} {}", self.owner, self.label)?;
        for Wait { id, since, lacks, key } in &self.waits {
            match lacks {
                Lacks::Key(reach, mode) => writeln!(f, "w {id} {since} {reach} {} {key}", Spelt(*mode))?,
                Lacks::Grant { owner, grant } => writeln!(f, "f {id} {since} {owner} {grant} {key}")?,
            }
        }
        for Hold { grant, since, reach, mode, key } in &self.holds {
            writeln!(f, "h {grant} {since} {reach} {} {key}", Spelt(*mode))?;
        }
        Ok(())
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN { f.write_char('-') } else { self.0.fmt(f) }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char(if *self == Self::Everywhere { 'e' } else { 'p' })
    }
}

struct Spelt(Mode);

impl fmt::Display for Spelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mode::Exclusive => f.write_char('x'),
            Mode::Shared => f.write_char('s'),
            Mode::Permits { limit, permits } => write!(f, "{permits}/{limit}"),
        }
    }
}

/// Reads a post; `None` if it is none.
pub(crate) fn read(text: &str) -> Option<Post> {
    let mut lines = text.lines();
    let mut post = Post { seen: lines.next()?.strip_prefix(VERSION)?.parse().ok()?, owners: Vec::new() };
    // Of an owner whose line is none there is nobody to have the next ones.
    let mut has_owner = false;
    for line in lines {
        let Some((kind, rest)) = line.split_once(' ') else { continue };
        if kind == "o" {
            let owner = owner(rest);
            has_owner = owner.is_some();
            post.owners.extend(owner);
        }
        let Some(owner) = post.owners.last_mut().filter(|_| has_owner) else { continue };
        match kind {
            "w" | "f" => owner.waits.extend(wait(kind, rest)),
            "h" => owner.holds.extend(hold(rest)),
            _ => {}
        }
    }
    Some(post)
}

fn owner(rest: &str) -> Option<Told> {
    let (owner, label) = rest.split_once(' ')?;
    let label: Arc<str> = (label.len() <= LONGEST_LABEL).then_some(label)?.into();
    Some(Told { owner: owner.parse().ok()?, label, waits: Vec::new(), holds: Vec::new() })
}

fn wait(kind: &str, rest: &str) -> Option<Wait> {
    let [id, since, one, other, key] = fields(rest)?;
    let lacks = match kind {
        "w" => Lacks::Key(reach(one)?, mode(other)?),
        _ => Lacks::Grant { owner: one.parse().ok()?, grant: other.parse().ok()? },
    };
    Some(Wait { id: id.parse().ok()?, since: read_since(since)?, lacks, key: Key::new(key).ok()? })
}

fn hold(rest: &str) -> Option<Hold> {
    let [grant, since, held, how, key] = fields(rest)?;
    let (reach, mode) = (reach(held)?, mode(how)?);
    Some(Hold { grant: grant.parse().ok()?, since: read_since(since)?, reach, mode, key: Key::new(key).ok()? })
}

/// Four words, and the rest.
fn fields(rest: &str) -> Option<[&str; 5]> {
    let mut fields = rest.splitn(5, ' ');
    let fields = std::array::from_fn(|_| fields.next());
    let [Some(a), Some(b), Some(c), Some(d), Some(e)] = fields else { return None };
    Some([a, b, c, d, e])
}

fn read_since(text: &str) -> Option<Since> {
    if text == "-" { Some(Since::UNKNOWN) } else { text.parse().ok().map(Since) }
}

fn reach(text: &str) -> Option<Reach> {
    match text {
        "e" => Some(Reach::Everywhere),
        "p" => Some(Reach::Process),
        _ => None,
    }
}

fn mode(text: &str) -> Option<Mode> {
    match text {
        "x" => Some(Mode::Exclusive),
        "s" => Some(Mode::Shared),
        permits => {
            let (permits, limit) = permits.split_once('/')?;
            Some(Mode::Permits { limit: limit.parse().ok()?, permits: permits.parse().ok()? })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn told(owner: u64) -> Told {
        let pool = Mode::Permits { limit: 4, permits: 3 };
        let wait = |id, lacks| Wait { id, since: Since(9), lacks, key: key("a key") };
        let waits = vec![
            wait(1, Lacks::Key(Reach::Everywhere, Mode::Shared)),
            Wait { since: Since::UNKNOWN, ..wait(2, Lacks::Key(Reach::Process, pool)) },
            wait(3, Lacks::Grant { owner: 5, grant: u64::MAX }),
        ];
        let hold =
            Hold { grant: 7, since: Since(3), reach: Reach::Everywhere, mode: Mode::Exclusive, key: key("ü x") };
        Told { owner, label: "worker 7".into(), waits, holds: vec![hold] }
    }

    #[test]
    fn what_is_written_is_read() {
        let owners = [told(1), Told { waits: Vec::new(), ..told(2) }];
        let (text, kept) = write(17, &owners);
        assert_eq!((read(&text), kept.len()), (Some(Post { seen: 17, owners: owners.to_vec() }), 2));
        assert_eq!(write(17, &[]), (String::new(), Vec::new()));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_first_what_nobody_waits_for() {
        let owners: Vec<_> = (0..1_000)
            .map(|owner| Told { holds: told(0).holds.into_iter().filter(|_| owner > 990).collect(), ..told(owner) })
            .collect();
        let (text, kept) = write(0, &owners);
        assert!(text.len() <= MOST_BYTES && kept.len() > 50, "{}", kept.len());
        assert!(kept.iter().take(9).all(|owner| owner.owner > 990) && kept[9].owner == 0);
        assert_eq!(read(&text).unwrap().owners.len(), kept.len());
    }

    #[test]
    fn lines_of_others_are_skipped_with_what_belongs_to_them() {
        let text = "leasehold-waits 1 5\nh 1 2 e x nobody's\no x y\nw 1 2 e x k\no 1 a\nw 1 2 e x\nw 1 -1 e x k\n\
            z\n\nh 1 2 q x k\nw 4 5 e 1/2 k\n";
        let post = read(text).unwrap();
        assert_eq!((post.owners.len(), post.owners[0].waits.len(), post.owners[0].holds.len()), (1, 1, 0));
        assert_eq!((read(""), read("leasehold-waits 2 5\n"), read("leasehold-waits 1 -5")), (None, None, None));
    }

    proptest! {
        #[test]
        fn nothing_that_stands_on_the_board_is_fatal(lines in prop::collection::vec("[owfh]( [0-9xsep/-]{0,20}){0,6}", 0..20)) {
            let _ = read(&format!("{VERSION}1\n{}", lines.join("\n")));
        }
    }
}
