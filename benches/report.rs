//! One line per question: ours, each rival, the ratio, the target, met or missed.
//!
//! Reads what `cargo bench` of the other benches left in the target folder, `locks` and `singleflight` by criterion, the
//! others by `support/figures.rs`. Times are criterion's medians. What was measured at another commit than this one is
//! marked so; criterion does not say at which.

#[path = "support/commit.rs"]
mod commit;
#[path = "report/questions.rs"]
mod questions;
#[path = "report/results.rs"]
mod results;

use commit::commit;
use questions::{QUESTIONS, Question, Target};
use results::{OURS, RIVALS, Results};

fn main() {
    let (results, commit) = (Results::open(), commit());
    println!("at commit {commit}");
    for question in QUESTIONS {
        println!("{:<46} {}", question.asks, answer(&results, question, &commit));
        for rival in RIVALS.into_iter().filter(|rival| !question.target.names(rival)) {
            let (Some(ours), Some(theirs)) = (results.of(question, OURS), results.of(question, rival)) else {
                continue;
            };
            println!("{rival:>46} {:.1}, ours is {:.2}x", theirs.value, ours.value / theirs.value);
        }
    }
}

/// What stands behind a question.
fn answer(results: &Results, question: &Question, commit: &str) -> String {
    let Some(ours) = results.of(question, OURS) else { return "not measured".to_owned() };
    let elsewhere = ours.commit.filter(|of| of != commit).map(|of| format!(" (at {of})")).unwrap_or_default();
    let figure = format!("{:.*} {}", decimals(ours.value), ours.value, question.unit).trim_end().to_owned();
    format!("{figure}{elsewhere}; {}", verdict(results, question, ours.value))
}

/// Ours beside the target.
fn verdict(results: &Results, question: &Question, ours: f64) -> String {
    let (bound, other, who) = match question.target {
        Target::Shown => return "no target".to_owned(),
        Target::AtMost(limit) => return held_to(Bound::AtMost, ours, limit, ""),
        Target::AtLeast(limit) => return held_to(Bound::AtLeast, ours, limit, ""),
        Target::OfRival(rival, share) => (Bound::AtMost, share, Other::Rival(rival)),
        Target::ShareOf(rival, share) => (Bound::AtLeast, share, Other::Rival(rival)),
        Target::OfVariant(variant, share) => (Bound::AtMost, share, Other::Variant(variant)),
    };
    let (name, theirs) = match who {
        Other::Rival(rival) => (rival, results.of(question, rival)),
        Other::Variant(variant) => (variant, results.value(question.group, OURS, Some(variant))),
    };
    let Some(theirs) = theirs.map(|theirs| theirs.value) else {
        return format!("the target is {} {other:.2}x {name}, which was not measured", bound.words());
    };
    let ratio = ours / theirs;
    format!("{name} {theirs:.*}, {}", decimals(theirs), held_to(bound, ratio, other, "x"))
}

/// To whom a target compares.
enum Other {
    Rival(&'static str),
    Variant(&'static str),
}

#[derive(Clone, Copy, PartialEq)]
enum Bound {
    AtMost,
    AtLeast,
}

impl Bound {
    const fn words(self) -> &'static str {
        match self {
            Self::AtMost => "at most",
            Self::AtLeast => "at least",
        }
    }
}

/// Met, or missed and by how many times.
fn held_to(bound: Bound, got: f64, limit: f64, unit: &str) -> String {
    let by = if bound == Bound::AtMost { got / limit } else { limit / got };
    let outcome = if by <= 1.0 { "met".to_owned() } else { format!("MISSED by {by:.2}x") };
    // A figure of its own stands before this already.
    let got = if unit.is_empty() { String::new() } else { format!("{got:.2}{unit}; ") };
    format!("{got}target {} {limit}{unit}: {outcome}", bound.words())
}

/// Small figures are shown more closely.
fn decimals(value: f64) -> usize {
    if value < 10.0 { 2 } else { usize::from(value < 1e4) }
}
