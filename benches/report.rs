//! One line per question: ours, each rival, the ratio, the target, met or missed.
//!
//! Reads what `cargo bench` of the other benches left in the target folder, `locks` and `singleflight` by criterion, the
//! others by `support/figures.rs`. Times are criterion's medians. What was measured at another commit than this one is
//! marked so; criterion does not say at which.
//!
//! With `--write` it also writes `RESULTS.md` beside the benches, with plots. With `--rounds` it reads what `benches/run` left: figures are then the medians of the rounds, and a ratio is the median
//! of the rounds' ratios, with the least and the greatest behind it.

#[path = "support/commit.rs"]
mod commit;
#[path = "support/folder.rs"]
mod folder;
#[path = "report/plots.rs"]
mod plots;
#[path = "report/questions.rs"]
mod questions;
#[path = "report/results.rs"]
mod results;
#[path = "report/written.rs"]
mod written;

use commit::commit;
use questions::{QUESTIONS, Question, Target};
use results::{OURS, RIVALS, Results, Spread};

fn main() {
    let in_rounds = std::env::args().any(|arg| arg == "--rounds");
    let results = if in_rounds { Results::of_rounds() } else { Results::of_single_benches() };
    let commit = commit();
    println!("at commit {commit}, {}, rounds: {}", machine(), results.rounds());
    for question in QUESTIONS {
        println!("{:<46} {}", question.asks, answer(&results, question, &commit));
        for rival in RIVALS.into_iter().filter(|rival| !question.target.names(rival)) {
            let Some(ratio) = results.ratio(question, (rival, question.variant)) else { continue };
            let theirs = results.of(question, rival).map_or(f64::NAN, |theirs| theirs.median);
            println!("{rival:>46} {theirs:.1}, ours is {:.2}x{}", ratio.median, apart(&ratio));
        }
    }
    if std::env::args().any(|arg| arg == "--write") {
        written::write(&results, &commit).expect("the benches' folder can be written");
    }
}

/// The processor, and how many threads it runs at once.
fn machine() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    format!("{} x {model}", std::thread::available_parallelism().map_or(1, usize::from))
}

/// What stands behind a question.
fn answer(results: &Results, question: &Question, commit: &str) -> String {
    let Some(ours) = results.of(question, OURS) else { return "not measured".to_owned() };
    let elsewhere = results.elsewhere(question, commit).map(|of| format!(" (at {of})")).unwrap_or_default();
    let figure = format!("{:.*} {}", decimals(ours.median), ours.median, question.unit).trim_end().to_owned();
    format!("{figure}{}{elsewhere}; {}", apart(&ours), verdict(results, question, ours.median))
}

/// Ours beside the target.
fn verdict(results: &Results, question: &Question, ours: f64) -> String {
    let (bound, share, name, variant) = match question.target {
        Target::Shown => return "no target".to_owned(),
        Target::AtMost(limit) => return held_to(Bound::AtMost, ours, limit, ""),
        Target::AtLeast(limit) => return held_to(Bound::AtLeast, ours, limit, ""),
        Target::OfRival(rival, share) => (Bound::AtMost, share, rival, question.variant),
        Target::ShareOf(rival, share) => (Bound::AtLeast, share, rival, question.variant),
        Target::OfVariant(variant, share) => (Bound::AtMost, share, variant, Some(variant)),
    };
    let who = if let Target::OfVariant(..) = question.target { OURS } else { name };
    let theirs = results.value(question.group, who, variant);
    let (Some(theirs), Some(ratio)) = (theirs, results.ratio(question, (who, variant))) else {
        return format!("the target is {} {share:.2}x {name}, which was not measured", bound.words());
    };
    let theirs = format!("{name} {:.*}", decimals(theirs.median), theirs.median);
    format!("{theirs}, {:.2}x{}; {}", ratio.median, apart(&ratio), held_to(bound, ratio.median, share, "x"))
}

/// How far the rounds lie apart, where there are several.
fn apart(spread: &Spread) -> String {
    let Spread { least, greatest, .. } = *spread;
    if least == greatest { String::new() } else { format!(" [{least:.0$} to {greatest:.0$}]", decimals(greatest)) }
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
    let limit = (limit * 100.0).round() / 100.0;
    format!("target {} {limit}{unit}: {outcome}", bound.words())
}

/// Small figures are shown more closely.
fn decimals(value: f64) -> usize {
    if value < 10.0 { 2 } else { usize::from(value < 1e4) }
}
