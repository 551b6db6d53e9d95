//! The files of the repository, for the rules that are about them.

use std::path::{Path, PathBuf};

fn walk(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, endings, found);
        } else if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
            found.push(path);
        }
    }
}

/// The files in a folder with one of these endings, by name, each with its text.
pub(crate) fn files(under: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(under), endings, &mut found);
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The Rust files in a folder.
pub(crate) fn sources(under: &str) -> Vec<(PathBuf, String)> {
    files(under, &["rs"])
}
