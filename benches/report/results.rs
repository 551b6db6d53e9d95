//! Where cargo, criterion and the other benches put things.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::questions::Question;

pub(crate) const OURS: &str = "leasehold";
pub(crate) const RIVALS: [&str; 15] = [
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
];
/// What is not measured by criterion.
const FILES: [&str; 9] = [
    "footprint.json",
    "instructions.json",
    "http.json",
    "http_waiters.json",
    "redis.json",
    "redlock.json",
    "contended.json",
    "claims.json",
    "shares.json",
];

pub(crate) struct Results {
    folder: PathBuf,
    files: [Value; FILES.len()],
}

/// What was measured.
pub(crate) struct Figure {
    pub(crate) value: f64,
    /// At which commit, if that is known.
    pub(crate) commit: Option<String>,
}

impl Results {
    pub(crate) fn open() -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let folder = target.join("criterion");
        let files = FILES.map(|name| read(&folder.join(name)).unwrap_or_default());
        Self { folder, files }
    }

    pub(crate) fn of(&self, question: &Question, who: &str) -> Option<Figure> {
        self.value(question.group, who, question.variant)
    }

    pub(crate) fn value(&self, group: &str, who: &str, variant: Option<&str>) -> Option<Figure> {
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
        Some(Figure { value: measured.pointer("/median/point_estimate")?.as_f64()?, commit: None })
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
