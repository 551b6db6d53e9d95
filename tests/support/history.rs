//! What several processes say that they did with locks, and whether it can be true: [`check`].
//!
//! Pure: no clock, no process, no store. A process writes a line per [`Event`], each by one write, before it does what
//! it announces and after it knows what it reports; so a killed one loses at most a part of its last line. All times are
//! nanoseconds of one clock that all processes share.
//!
//! A *definite hold* begins when the grant was seen, and ends when its release began or its last known deadline came,
//! whichever is first. A process that is stopped or killed says no more: its hold lasts to the deadline. Everything that
//! is uncertain makes a definite hold shorter, so what `check` finds is wrong for sure.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::fmt;

/// One thing that a process did, or saw.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// It asked at `asked` and saw at `at` that it was granted, until `deadline`.
    Granted { at: u64, asked: u64, key: String, token: String, fence: u64, deadline: u64 },
    /// It saw that the grant lasts until `deadline`.
    Extended { at: u64, token: String, deadline: u64 },
    /// It is about to release. `attempt` tells several releases of one token apart.
    Releasing { at: u64, token: String, attempt: u32 },
    /// What it heard of that.
    Released { at: u64, token: String, attempt: u32, outcome: Outcome },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Released,
    AlreadyGone,
    /// The store could not be asked.
    Unknown,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted { at, asked, key, token, fence, deadline } => {
                writeln!(f, "granted {at} {asked} {key} {token} {fence} {deadline}")
            }
            Self::Extended { at, token, deadline } => writeln!(f, "extended {at} {token} {deadline}"),
            Self::Releasing { at, token, attempt } => writeln!(f, "releasing {at} {token} {attempt}"),
            Self::Released { at, token, attempt, outcome } => {
                writeln!(f, "released {at} {token} {attempt} {outcome:?}")
            }
        }
    }
}

impl Event {
    pub(crate) fn at(&self) -> u64 {
        match self {
            Self::Granted { at, .. }
            | Self::Extended { at, .. }
            | Self::Releasing { at, .. }
            | Self::Released { at, .. } => *at,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        let text = |at: usize| words.get(at).map(|&word| word.to_owned());
        let attempt = || words.get(3)?.parse().ok();
        let at = number(1)?;
        Some(match (words[0], words.len()) {
            ("granted", 7) => Self::Granted {
                at,
                asked: number(2)?,
                key: text(3)?,
                token: text(4)?,
                fence: number(5)?,
                deadline: number(6)?,
            },
            ("extended", 4) => Self::Extended { at, token: text(2)?, deadline: number(3)? },
            ("releasing", 4) => Self::Releasing { at, token: text(2)?, attempt: attempt()? },
            ("released", 5) => {
                let outcome = match words[4] {
                    "Released" => Outcome::Released,
                    "AlreadyGone" => Outcome::AlreadyGone,
                    "Unknown" => Outcome::Unknown,
                    _ => return None,
                };
                Self::Released { at, token: text(2)?, attempt: attempt()?, outcome }
            }
            _ => return None,
        })
    }
}

/// What one process wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Event>,
    /// The last moment of which it is known what the process did, if it was killed within a line.
    cut: Option<u64>,
}

impl Log {
    /// Reads a log. The last line may be a part of one; any other that cannot be read is a mistake of the test's.
    pub(crate) fn parse(text: &str) -> Self {
        let (whole, part) = text.rsplit_once('\n').unwrap_or(("", text));
        let event = |line: &str| Event::parse(line).unwrap_or_else(|| panic!("not a line of a history: {line:?}"));
        let events: Vec<Event> = whole.lines().map(event).collect();
        let last = events.iter().map(Event::at).max().unwrap_or(0);
        let cut = (!part.is_empty()).then_some(last);
        Self { events, cut }
    }
}

/// One grant, as its process knew it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hold {
    pub(crate) process: usize,
    pub(crate) key: String,
    pub(crate) token: String,
    pub(crate) fence: u64,
    pub(crate) asked: u64,
    /// The definite hold; empty if `until` is not above `from`.
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Hold {
    fn is_definite(&self) -> bool {
        self.from < self.until
    }
}

/// What cannot be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Violation {
    /// Two held one key at a time.
    Overlap(Hold, Hold),
    /// The second was asked for, or held, after the first was seen, and has no higher fence.
    Fence(Hold, Hold),
    /// One token was released twice.
    DoubleRelease(String),
    /// A release succeeded that began and ended while another held the key.
    StolenRelease { released: Hold, held: Hold },
}

/// All grants of all processes.
pub(crate) fn holds(logs: &[Log]) -> Vec<Hold> {
    let mut holds = Vec::new();
    for (process, log) in logs.iter().enumerate() {
        let mut deadlines: HashMap<&str, u64> = HashMap::new();
        let mut releases: HashMap<&str, u64> = HashMap::new();
        for event in &log.events {
            match event {
                Event::Granted { token, deadline, .. } | Event::Extended { token, deadline, .. } => {
                    let known = deadlines.entry(token).or_default();
                    *known = (*known).max(*deadline);
                }
                Event::Releasing { at, token, .. } => {
                    let first = releases.entry(token).or_insert(*at);
                    *first = (*first).min(*at);
                }
                Event::Released { .. } => {}
            }
        }
        for event in &log.events {
            let Event::Granted { at, asked, key, token, fence, .. } = event else { continue };
            let ends = [deadlines.get(&**token), releases.get(&**token), log.cut.as_ref()];
            let until = ends.into_iter().flatten().copied().min().unwrap_or(*at);
            let (key, token) = (key.clone(), token.clone());
            holds.push(Hold { process, key, token, fence: *fence, asked: *asked, from: *at, until });
        }
    }
    holds
}

/// Everything in the histories that cannot be.
pub(crate) fn check(logs: &[Log]) -> Vec<Violation> {
    let mut by_key: HashMap<String, Vec<Hold>> = HashMap::new();
    for hold in holds(logs) {
        by_key.entry(hold.key.clone()).or_default().push(hold);
    }
    let mut found = Vec::new();
    for holds in by_key.values_mut() {
        holds.sort_by_key(|hold| hold.from);
        overlaps(holds, &mut found);
        fences_fall(holds, &mut found);
    }
    releases(logs, &by_key, &mut found);
    found
}

/// `holds` of one key, by their beginnings.
fn overlaps(holds: &[Hold], found: &mut Vec<Violation>) {
    let mut longest: Option<&Hold> = None;
    for hold in holds.iter().filter(|hold| hold.is_definite()) {
        if let Some(before) = longest.filter(|before| before.until > hold.from) {
            found.push(Violation::Overlap(before.clone(), hold.clone()));
        }
        if longest.is_none_or(|before| before.until < hold.until) {
            longest = Some(hold);
        }
    }
}

/// `holds` of one key, by their beginnings.
fn fences_fall(holds: &[Hold], found: &mut Vec<Violation>) {
    // At `at`, the highest fence of all that were seen until then.
    let mut highest: Vec<usize> = Vec::with_capacity(holds.len());
    for (at, hold) in holds.iter().enumerate() {
        let before = highest.last().copied();
        highest.push(before.filter(|&before| holds[before].fence >= hold.fence).unwrap_or(at));
    }
    for hold in holds {
        let seen = holds.partition_point(|other| other.from < hold.asked);
        if seen > 0 && holds[highest[seen - 1]].fence >= hold.fence {
            found.push(Violation::Fence(holds[highest[seen - 1]].clone(), hold.clone()));
        }
    }
    // Who held later was granted later, even if it asked first.
    let mut definite = holds.iter().filter(|hold| hold.is_definite());
    let Some(mut last) = definite.next() else { return };
    for hold in definite {
        if hold.fence <= last.fence {
            found.push(Violation::Fence(last.clone(), hold.clone()));
        }
        last = hold;
    }
}

fn releases(logs: &[Log], by_key: &HashMap<String, Vec<Hold>>, found: &mut Vec<Violation>) {
    let by_token: HashMap<&str, &Hold> = by_key.values().flatten().map(|hold| (&*hold.token, hold)).collect();
    let mut begun: HashMap<(usize, &str, u32), u64> = HashMap::new();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for (process, log) in logs.iter().enumerate() {
        for event in &log.events {
            if let Event::Releasing { at, token, attempt } = event {
                begun.insert((process, token, *attempt), *at);
            }
        }
        for event in &log.events {
            let Event::Released { at, token, attempt, outcome: Outcome::Released } = event else { continue };
            let count = counts.entry(token).or_default();
            *count += 1;
            if *count == 2 {
                found.push(Violation::DoubleRelease(token.clone()));
            }
            let (Some(hold), Some(&from)) = (by_token.get(&**token), begun.get(&(process, &**token, *attempt))) else {
                continue;
            };
            let others = &by_key[&hold.key];
            // Definite holds of one key do not overlap, or that has been found: the last before it is the one.
            let next = others.partition_point(|other| other.from <= from);
            let held = others[..next].iter().rev().find(|other| other.is_definite());
            if let Some(held) = held.filter(|held| held.token != *token && held.until >= *at) {
                found.push(Violation::StolenRelease { released: (*hold).clone(), held: held.clone() });
            }
        }
    }
}

mod tests {
    use super::*;

    /// Asked just before it was seen.
    fn granted(at: u64, token: &str, fence: u64, deadline: u64) -> Event {
        let (key, token) = ("k".to_owned(), token.to_owned());
        Event::Granted { at, asked: at - 1, key, token, fence, deadline }
    }

    fn releasing(at: u64, token: &str, attempt: u32) -> Event {
        Event::Releasing { at, token: token.to_owned(), attempt }
    }

    fn released(at: u64, token: &str, attempt: u32) -> Event {
        Event::Released { at, token: token.to_owned(), attempt, outcome: Outcome::Released }
    }

    fn extended(at: u64, token: &str, deadline: u64) -> Event {
        Event::Extended { at, token: token.to_owned(), deadline }
    }

    /// Each process's events, through the file and back.
    fn found(processes: &[&[Event]]) -> Vec<Violation> {
        let text = |events: &&[Event]| events.iter().map(Event::to_string).collect::<String>();
        let logs: Vec<Log> = processes.iter().map(|events| Log::parse(&text(events))).collect();
        for (log, events) in logs.iter().zip(processes) {
            assert_eq!(log.events, *events);
        }
        check(&logs)
    }

    #[test]
    fn what_may_be_is_not_found() {
        let one = [granted(10, "a", 1, 100), releasing(20, "a", 0), released(40, "a", 0)];
        // Granted elsewhere while the answer to the release was on its way.
        let other = [granted(21, "b", 2, 50), extended(30, "b", 80)];
        let after_its_deadline = [granted(81, "c", 3, 200)];
        assert_eq!(found(&[&one, &other, &after_its_deadline]), []);
    }

    #[test]
    fn two_holders_at_a_time_are_found() {
        let one = [granted(10, "a", 1, 100)];
        let other = [granted(99, "b", 2, 200)];
        assert!(matches!(&found(&[&one, &other])[..], [Violation::Overlap(a, b)] if a.token == "a" && b.token == "b"));
        // Also where a short one lies between them.
        let between = [granted(20, "c", 2, 200), releasing(30, "c", 0)];
        let other = [granted(99, "b", 3, 200)];
        assert_eq!(found(&[&one, &other, &between]).len(), 2);
        // Held on after it was extended.
        let one = [granted(10, "a", 1, 50), extended(40, "a", 100)];
        assert_eq!(found(&[&one, &[granted(60, "b", 2, 90)]]).len(), 1);
        assert_eq!(found(&[&[granted(10, "a", 1, 50)], &[granted(60, "b", 2, 90)]]), []);
    }

    #[test]
    fn a_stopped_process_that_wakes_up_past_its_deadline_holds_nothing() {
        let stopped = [granted(10, "a", 1, 50), releasing(500, "a", 0), released(501, "a", 0)];
        let other = [granted(60, "b", 2, 90), granted(400, "c", 3, 450)];
        assert_eq!(found(&[&stopped, &other]), []);
        // Nor does one that sees its grant too late.
        let (key, token) = ("k".into(), "d".into());
        let late = [Event::Granted { at: 70, asked: 5, key, token, fence: 1, deadline: 65 }];
        assert_eq!(found(&[&late, &[granted(60, "b", 2, 90)]]), []);
    }

    #[test]
    fn a_fence_that_does_not_rise_is_found() {
        for fence in [4, 5] {
            let (one, other) = ([granted(10, "a", 5, 20)], [granted(30, "b", fence, 40)]);
            assert!(matches!(found(&[&one, &other])[0], Violation::Fence(..)), "{fence} after 5");
        }
        // Between two that never held for sure: by when they were asked for.
        let (one, other) = ([granted(10, "a", 5, 0)], [granted(30, "b", 4, 0)]);
        assert_eq!(found(&[&one, &other]).len(), 1);
        let early = Event::Granted { at: 30, asked: 9, key: "k".into(), token: "b".into(), fence: 4, deadline: 0 };
        assert_eq!(found(&[&one, &[early]]), [], "it may have been granted first");
        // Between two that held, even if the later asked first.
        let early = Event::Granted { at: 30, asked: 9, key: "k".into(), token: "b".into(), fence: 4, deadline: 40 };
        assert_eq!(found(&[&[granted(10, "a", 5, 20)], &[early]]).len(), 1);
        let elsewhere =
            Event::Granted { at: 30, asked: 29, key: "l".into(), token: "b".into(), fence: 4, deadline: 40 };
        assert_eq!(found(&[&[granted(10, "a", 5, 20)], &[elsewhere]]), [], "another key");
    }

    #[test]
    fn a_token_that_is_released_twice_is_found() {
        let twice = [granted(10, "a", 1, 20), releasing(11, "a", 0), releasing(12, "a", 1), released(13, "a", 0)];
        let again = [releasing(14, "a", 0), released(15, "a", 0)];
        assert_eq!(found(&[&twice]), []);
        assert_eq!(found(&[&twice, &again]), [Violation::DoubleRelease("a".into())]);
    }

    #[test]
    fn a_release_that_ends_anothers_hold_is_found() {
        let one = [granted(10, "a", 1, 20), releasing(40, "a", 0), released(45, "a", 0)];
        let other = [granted(30, "b", 2, 50)];
        assert!(matches!(&found(&[&one, &other])[..], [Violation::StolenRelease { held, .. }] if held.token == "b"));
        // It may have been carried out before.
        let one = [granted(10, "a", 1, 20), releasing(29, "a", 0), released(45, "a", 0)];
        assert_eq!(found(&[&one, &other]), []);
    }

    #[test]
    fn a_line_cut_short_ends_what_is_known() {
        let text = granted(10, "a", 1, 100).to_string() + &granted(15, "x", 9, 16).to_string() + "releasing 20";
        let log = Log::parse(&text);
        assert_eq!(holds(std::slice::from_ref(&log))[0].until, 15);
        let whole = Log::parse(&granted(10, "a", 1, 100).to_string());
        assert_eq!(holds(&[whole])[0].until, 100);
    }

    #[test]
    #[should_panic(expected = "not a line of a history")]
    fn a_line_that_is_none_is_a_mistake_of_the_test() {
        Log::parse("granted 1 2\n");
    }
}
