//! One line per question: ours, each rival, the ratio, the target, met or missed.
//!
//! Reads what `cargo bench` of `locks`, `singleflight`, `footprint`, `http` and `http_waiters` left in the target folder; what
//! was not measured is left out. Times are criterion's medians.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What is held to a target.
struct Question {
    asks: &'static str,
    group: &'static str,
    /// The end of a bench's name where a group asks more than one thing.
    variant: Option<&'static str>,
    unit: &'static str,
    target: Target,
}

enum Target {
    /// Ours is at most this share of the rival's.
    OfRival(&'static str, f64),
    /// Ours is at most so much.
    AtMost(f64),
    /// Ours is at most so many times ours in this other variant.
    OfVariant(&'static str, f64),
    /// Ours is at least this share of the rival's.
    ShareOf(&'static str, f64),
    /// None: it is shown beside its rivals.
    Shown,
}
use Target::{AtMost, OfRival, OfVariant, ShareOf, Shown};

const fn question(
    asks: &'static str,
    group: &'static str,
    variant: Option<&'static str>,
    unit: &'static str,
    target: Target,
) -> Question {
    Question { asks, group, variant, unit, target }
}

const QUESTIONS: [Question; 26] = [
    question("1. a free lock, against lockable", "uncontended", None, "ns", OfRival("lockable", 0.5)),
    question("1. a free lock, against the limit", "uncontended", None, "ns", OfRival("bare_map", 1.7)),
    question("2. two threads, different keys", "two_threads", None, "ns", OfRival("lockable", 1.0 / 3.0)),
    question("3. one key, 2 tasks", "hot_key", Some("2"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 8 tasks", "hot_key", Some("8"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 64 tasks", "hot_key", Some("64"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 64 tasks", "hot_key", Some("64"), "ns", OfRival("tokio_mutex", 1.2)),
    question("3. one key, 1,000 tasks", "hot_key", Some("1000"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 1,000 tasks", "hot_key", Some("1000"), "ns", OfRival("tokio_mutex", 1.2)),
    question("4. a held lock's weight", "bytes_per_lock", None, "bytes", AtMost(200.0)),
    question("4. a waiter's weight", "bytes_per_waiter", None, "bytes", AtMost(400.0)),
    question("4. beside a million locks", "crowd", Some("beside_a_million"), "ns", OfVariant("alone", 1.5)),
    question("5. refreshing 100,000 locks", "cpu_of_refreshing", None, "% of a core", AtMost(5.0)),
    question("6. HTTP, against a bare echo", "http", None, "requests/s", ShareOf("echo", 0.85)),
    question("6. HTTP, a parked waiter's weight", "http_waiter", None, "KiB", AtMost(20.0)),
    question("6. HTTP, p99 beside 10,000 of them", "http_crowd_p99", None, "ms", AtMost(10.0)),
    question("7. a share, alone", "shared", Some("alone"), "ns", Shown),
    question("7. a share, beside eight others", "shared", Some("together"), "ns", Shown),
    question("7. 64 tasks, one in 100 writes", "shared", Some("mixed"), "ns", Shown),
    question("8. deadlock check, 10 owners wait", "deadlocks", Some("10_owners"), "ns", Shown),
    question("8. the same, 1,000 owners", "deadlocks", Some("1000_owners"), "ns", OfVariant("10_owners", 1.5)),
    question("8. the same, 100,000 owners", "deadlocks", Some("100000_owners"), "ns", OfVariant("10_owners", 1.5)),
    question("9. a free lock, 1 listener", "events", Some("1_listener"), "ns", Shown),
    question("9. the same, 100 listeners", "events", Some("100_listeners"), "ns", OfVariant("1_listener", 1.5)),
    question("10. 64 callers share one call", "shared_call", None, "ns", Shown),
    question("10. calls that share nothing", "lone_calls", None, "ns", Shown),
];

const OURS: &str = "leasehold";
const RIVALS: [&str; 12] = [
    "lockable",
    "tokio_mutex",
    "dashmap_kept",
    "dashmap_cleaned",
    "bare_map",
    "actix_round_trip",
    "tokio_tasks",
    "echo",
    "tokio_rwlock",
    "unchecked",
    "async_singleflight",
    "singleflight_async",
];

fn main() {
    let results = Results::open();
    for question in &QUESTIONS {
        let Some(ours) = results.of(question, OURS) else {
            println!("{:<36} not measured", question.asks);
            continue;
        };
        let (limit, against) = match question.target {
            Shown => (None, String::new()),
            AtMost(limit) => (Some(limit), String::new()),
            OfRival(rival, share) | ShareOf(rival, share) => {
                (results.of(question, rival).map(|theirs| theirs * share), format!("{share:.2}x {rival}, "))
            }
            OfVariant(variant, share) => {
                let other = results.value(question.group, OURS, Some(variant));
                (other.map(|other| other * share), format!("{share:.2}x {variant}, "))
            }
        };
        let verdict = match limit {
            Some(limit) if matches!(question.target, ShareOf(..)) && ours >= limit => {
                format!("target at least {against}{limit:.0}: met")
            }
            Some(limit) if matches!(question.target, ShareOf(..)) => {
                format!("target at least {against}{limit:.0}: MISSED by {:.2}x", limit / ours)
            }
            Some(limit) if ours <= limit => format!("target {against}{limit:.0}: met"),
            Some(limit) => format!("target {against}{limit:.0}: MISSED by {:.2}x", ours / limit),
            None if matches!(question.target, Shown) => "no target".to_owned(),
            None => format!("target {against}which was not measured"),
        };
        println!("{:<36} {ours:.1} {}; {verdict}", question.asks, question.unit);
        for rival in RIVALS {
            if let Some(theirs) = results.of(question, rival) {
                println!("{:>36} {theirs:.1}, ours is {:.2}x", rival, ours / theirs);
            }
        }
    }
}

/// Where cargo and criterion put things.
struct Results {
    folder: PathBuf,
    /// What was not measured by criterion.
    others: [Value; 3],
}

impl Results {
    fn open() -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let folder = target.join("criterion");
        let others = ["footprint.json", "http.json", "http_waiters.json"]
            .map(|name| read(&folder.join(name)).unwrap_or_default());
        Self { folder, others }
    }

    fn of(&self, question: &Question, who: &str) -> Option<f64> {
        self.value(question.group, who, question.variant)
    }

    fn value(&self, group: &str, who: &str, variant: Option<&str>) -> Option<f64> {
        let name = format!("{group}/{who}");
        if let Some(value) = self.others.iter().find_map(|answers| answers.get(&name)) {
            return value.as_f64();
        }
        let mut folder = self.folder.join(group).join(who);
        folder.extend(variant);
        read(&folder.join("new").join("estimates.json"))?.pointer("/median/point_estimate")?.as_f64()
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
