//! Where cargo, criterion and the other benches put things, and what came of it in each round.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::folder::folder;
use super::questions::Question;

pub(crate) const OURS: &str = "leasehold";
pub(crate) const RIVALS: [&str; 18] = [
    "lockable",
    "tokio_mutex",
    "dashmap_kept",
    "dashmap_cleaned",
    "bare_actix_web",
    "bare_map",
    "actix_round_trip",
    "tokio_tasks",
    "echo",
    "tokio_rwlock",
    "unchecked",
    "async_singleflight",
    "singleflight_async",
    "rslock",
    "redis_semaphore",
    "append_and_sync",
    "bare_redb",
    "in_memory",
];
/// What is not measured by criterion.
const FILES: [&str; 11] = [
    "footprint.json",
    "instructions.json",
    "http.json",
    "http_waiters.json",
    "redis.json",
    "redlock.json",
    "contended.json",
    "claims.json",
    "shares.json",
    "durable.json",
    "latency.json",
];

/// What was measured, round by round: a noisy minute spoils one of them.
pub(crate) struct Results {
    rounds: Vec<Round>,
}

/// What all benches left that ran one after the other.
struct Round {
    folder: PathBuf,
    files: [Value; FILES.len()],
    /// At which commit criterion measured, where `benches/run` has said so.
    commit: Option<String>,
}

/// What was measured in a round.
struct Figure {
    value: f64,
    /// At which commit, if that is known.
    commit: Option<String>,
}

/// The median of the rounds, and how far they lie apart.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Results {
    /// What single benches left: one round.
    pub(crate) fn of_single_benches() -> Self {
        Self { rounds: vec![Round::open(folder())] }
    }

    /// What `benches/run` left.
    pub(crate) fn of_rounds() -> Self {
        let rounds = folder().join("rounds");
        let found = (1..).map(|number: u32| rounds.join(number.to_string())).take_while(|folder| folder.is_dir());
        Self { rounds: found.map(Round::open).collect() }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The commit that a question was answered at, if it is known and not this one.
    pub(crate) fn elsewhere(&self, question: &Question, commit: &str) -> Option<String> {
        let at = |round: &Round| round.value(question.group, OURS, question.variant)?.commit;
        self.rounds.iter().filter_map(at).find(|at| at != commit)
    }

    pub(crate) fn of(&self, question: &Question, who: &str) -> Option<Spread> {
        self.value(question.group, who, question.variant)
    }

    pub(crate) fn value(&self, group: &str, who: &str, variant: Option<&str>) -> Option<Spread> {
        self.spread(|round| Some(round.value(group, who, variant)?.value))
    }

    /// Ours as so many times another figure of the same round.
    pub(crate) fn ratio(&self, question: &Question, (who, variant): (&str, Option<&str>)) -> Option<Spread> {
        self.spread(|round| {
            let ours = round.value(question.group, OURS, question.variant)?.value;
            Some(ours / round.value(question.group, who, variant)?.value)
        })
    }

    fn spread(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, least, greatest })
    }
}

impl Round {
    fn open(folder: PathBuf) -> Self {
        let files = FILES.map(|name| read(&folder.join(name)).unwrap_or_default());
        let commit = std::fs::read_to_string(folder.join("commit")).ok().map(|commit| commit.trim().to_owned());
        Self { folder, files, commit }
    }

    fn value(&self, group: &str, who: &str, variant: Option<&str>) -> Option<Figure> {
        let variants = variant.into_iter();
        let name = [group, who].into_iter().chain(variants.clone()).collect::<Vec<_>>().join("/");
        if let Some((file, value)) = self.files.iter().find_map(|file| Some((file, file.get(&name)?.as_f64()?))) {
            let commit = file.get("commit").and_then(Value::as_str).map(str::to_owned);
            return Some(Figure {
                value,
                commit: Some(commit.unwrap_or_else(|| "a commit that is not known".to_owned())),
            });
        }
        let mut folder = self.folder.join(group).join(who);
        folder.extend(variants);
        let measured = read(&folder.join("new").join("estimates.json"))?;
        Some(Figure { value: measured.pointer("/median/point_estimate")?.as_f64()?, commit: self.commit.clone() })
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
