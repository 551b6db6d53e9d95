//! `benches/RESULTS.md` and its plots: what the rounds came to, for people.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::plots::{Line, Plot, readable};
use super::questions::{QUESTIONS, Question, SECTIONS, Target};
use super::results::{OURS, RIVALS, Results, Spread};
use super::{Bound, apart, decimals, machine};

/// Writes both into the folder of the benches.
pub(crate) fn write(results: &Results, commit: &str) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let plots = folder.join("plots");
    fs::create_dir_all(&plots)?;
    let mut text = head(results, commit);
    for (number, title) in SECTIONS {
        let prefix = format!("{number}. ");
        let asked: Vec<&Question> = QUESTIONS.iter().filter(|question| question.asks.starts_with(&prefix)).collect();
        let rows: String = asked.iter().enumerate().filter_map(|(at, one)| row(results, one, &asked[..at])).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n## {title}\n\n| | leasehold | rivals, and ours as so many times theirs | target |\n|---|---|---|---|\n{rows}"
        );
        for plot in drawn(*number, results) {
            fs::write(plots.join(format!("{}.svg", plot.name)), plot.svg())?;
            let _ = write!(text, "\n<img src=\"plots/{}.svg\" alt=\"{}\">\n", plot.name, plot.title);
        }
    }
    fs::write(folder.join("RESULTS.md"), text)
}

fn head(results: &Results, commit: &str) -> String {
    let compiler = Command::new("rustc").arg("--version").output().ok();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "# Results\n\nWritten by `benches/run ROUNDS all`; do not edit. At commit {commit}, {}, {compiler}. Rivals are asked \
         in turn in the same run.\n\nRounds: {}; some benches are measured in fewer. A figure is the median of the rounds, a ratio \
         the median of the rounds' ratios, with the least and the greatest in brackets. Machines are noisy: read the ratios.\n",
        machine(),
        results.rounds(),
    )
}

/// The row of a question; none if it was not measured, or a question before it asked the same for another target.
fn row(results: &Results, question: &Question, before: &[&Question]) -> Option<String> {
    let is_same = |other: &&&Question| (other.group, other.variant) == (question.group, question.variant);
    if before.iter().any(|other| is_same(&other)) {
        return None;
    }
    let ours = results.of(question, OURS)?;
    let rivals = RIVALS.into_iter().filter_map(|rival| {
        let ratio = results.ratio(question, (rival, question.variant))?;
        let theirs = results.of(question, rival)?;
        let (rival, theirs) = (plain(rival), shown(&theirs, question.unit));
        Some(format!("{rival} {theirs}: **{:.2}**{}", ratio.median, apart(&ratio)))
    });
    let same = QUESTIONS.iter().filter(|other| is_same(&other));
    let targets: Vec<String> = same.filter_map(|question| target(results, question, ours.median)).collect();
    let asks = question.asks.split_once(". ").map_or(question.asks, |(_, asks)| asks);
    Some(format!(
        "| {asks} | {} | {} | {} |\n",
        shown(&ours, question.unit),
        rivals.collect::<Vec<_>>().join("<br>"),
        targets.join("<br>"),
    ))
}

fn shown(spread: &Spread, unit: &str) -> String {
    match (unit, spread.median) {
        ("ns", value) => readable(value, unit),
        (_, value @ 1e4..) => format!("{} {unit}", in_thousands(value)),
        (_, value) => format!("{value:.*} {unit}", decimals(value)).trim_end().to_owned(),
    }
}

/// With a comma before every three digits.
fn in_thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// The name of a bench as people say it.
fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// What was aimed at, and whether it was reached.
fn target(results: &Results, question: &Question, ours: f64) -> Option<String> {
    let (bound, got, limit, of) = match question.target {
        Target::Shown => return None,
        Target::AtMost(limit) => (Bound::AtMost, ours, limit, ""),
        Target::AtLeast(limit) => (Bound::AtLeast, ours, limit, ""),
        Target::OfRival(rival, share) => {
            (Bound::AtMost, results.ratio(question, (rival, question.variant))?.median, share, rival)
        }
        Target::ShareOf(rival, share) => {
            (Bound::AtLeast, results.ratio(question, (rival, question.variant))?.median, share, rival)
        }
        Target::OfVariant(variant, share) => {
            (Bound::AtMost, results.ratio(question, (OURS, Some(variant)))?.median, share, variant)
        }
    };
    let is_met = if bound == Bound::AtMost { got <= limit } else { got >= limit };
    let limit = (limit * 100.0).round() / 100.0;
    let times = if of.is_empty() { String::new() } else { format!(" of {}", plain(of)) };
    Some(format!("{} {limit}{times}: {}", bound.words(), if is_met { "met" } else { "missed" }))
}

/// The plots of a section.
fn drawn(section: u32, results: &Results) -> Vec<Plot> {
    let line = |name: &'static str, group: &str, who: &str, variants: &[(&str, f64)]| {
        let point = |(variant, x): &(&str, f64)| Some((*x, results.value(group, who, Some(variant))?.median));
        Line { name, points: variants.iter().filter_map(point).collect() }
    };
    let tasks = [("2", 2.0), ("8", 8.0), ("64", 64.0), ("1000", 1000.0)];
    let processes = [("1x8", 1.0), ("2x8", 2.0), ("4x8", 4.0), ("8x8", 8.0)];
    let percentiles = [("50", 50.0), ("90", 90.0), ("99", 99.0), ("99.9", 99.9), ("99.99", 99.99)];
    let plots = match section {
        3 => vec![Plot {
            name: "hot_key",
            title: "One hot key that many tasks want: time for each grant",
            across: ("tasks", &["2", "8", "64", "1000"]),
            up: "ns",
            lines: [("leasehold", OURS), ("lockable", "lockable"), ("tokio Mutex", "tokio_mutex")]
                .map(|(name, who)| line(name, "hot_key", who, &tasks).for_each())
                .into(),
        }],
        13 => vec![Plot {
            name: "processes",
            title: "One key that all processes want over Redis: grants a second",
            across: ("processes of 8 tasks", &["1", "2", "4", "8"]),
            up: "grants/s",
            lines: vec![
                line("claims handed on", "hand_off_grants", OURS, &processes),
                line("claims that linger", "linger_grants", OURS, &processes),
            ],
        }],
        16 => vec![Plot {
            name: "latency",
            title: "How long an acquire takes: 8 clients, 1,024 keys",
            across: ("percentile", &["50", "90", "99", "99.9", "99.99"]),
            up: "ns",
            lines: vec![
                line("memory", "latency_memory", OURS, &percentiles),
                line("lock server, HTTP", "latency_http", OURS, &percentiles),
                line("Redis", "latency_redis", OURS, &percentiles),
            ],
        }],
        _ => Vec::new(),
    };
    plots.into_iter().filter(|plot| plot.lines.iter().any(|line| !line.points.is_empty())).collect()
}
