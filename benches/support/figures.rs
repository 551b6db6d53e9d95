//! The figures that a bench leaves for `report`.

#[path = "commit.rs"]
mod commit;

#[path = "folder.rs"]
mod folder;

use commit::commit;
use folder::folder;
use serde_json::{Map, Value};

/// Writes the figures where `report` looks for them, beside criterion's, with the commit that they are of. Those of the same
/// commit that were there before stay: a bench may be asked for some of its figures only.
pub(crate) fn keep(file: &str, figures: &[(impl AsRef<str>, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let folder = folder();
    std::fs::create_dir_all(&folder)?;
    let (path, commit) = (folder.join(file), Value::from(commit()));
    let before: Map<_, _> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let mut all = if before.get("commit") == Some(&commit) { before } else { Map::new() };
    all.insert("commit".to_owned(), commit);
    all.extend(figures.iter().map(|(name, figure)| (name.as_ref().to_owned(), Value::from(*figure))));
    Ok(std::fs::write(path, Value::from(all).to_string())?)
}
