//! What the tests need from below the target directory, and the package, built once around the binary under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

use crate::binary::{BINARY, Did};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of one of its files.
#[track_caller]
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// What is in a YAML file, which must be of the shape of a schema.
#[track_caller]
pub(crate) fn yaml(path: &str, schema: Option<&Path>) -> Vec<Value> {
    read_yaml(&root().join(path), schema)
}

/// The same for a file elsewhere.
#[track_caller]
pub(crate) fn read_yaml(path: &Path, schema: Option<&Path>) -> Vec<Value> {
    let mut read = Command::new(prepared("python/bin/python"));
    read.arg(root().join("tests/packaging/read_yaml.py")).arg(path).args(schema);
    serde_json::from_str(&Did::of(read).ok()).unwrap()
}

fn target() -> &'static Path {
    Path::new(BINARY).ancestors().nth(2).unwrap()
}

/// What a script has made before the tests.
#[track_caller]
pub(crate) fn prepared(path: &str) -> PathBuf {
    let found = target().join(path);
    let how = "run tests/packaging/prepare, tests/support/foreign/prepare and prepare-node, or tests/run";
    assert!(found.exists(), "no {}: {how}", found.display());
    found
}

/// The Debian package, as its first and as a second revision.
pub(crate) fn packages() -> [PathBuf; 2] {
    let folder = target().join("packaging");
    fs::create_dir_all(&folder).unwrap();
    // Every test is a process of its own: the first one builds.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    [1, 2].map(|revision| {
        let package = folder.join(format!("leasehold-{revision}.deb"));
        if !is_fresh(&package) {
            build(&package, revision);
        }
        package
    })
}

fn build(package: &Path, revision: u32) {
    let mut build = Command::new(root().join("packaging/debian/build"));
    build.args(["--around", BINARY, "--offline", "--compress-type", "gz", "--compress-system", "--fast"]);
    build.args(["--deb-revision", &revision.to_string(), "--output"]).arg(package).env("CARGO_TARGET_DIR", target());
    let tools = prepared("machine/bin/cargo-deb").parent().unwrap().display().to_string();
    build.env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap_or_default()));
    let printed = Did::of(build).ok();
    assert_eq!(printed.trim(), package.display().to_string());
}

/// Whether it is younger than everything that it is made of.
fn is_fresh(package: &Path) -> bool {
    let age = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let Ok(built) = age(package) else { return false };
    let mut parts = vec![PathBuf::from(BINARY)];
    parts.extend(["Cargo.toml", "README.md", "CHANGELOG.md"].map(|file| root().join(file)));
    for folder in ["packaging/debian", "docs"] {
        parts.extend(fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path()));
    }
    parts.iter().all(|part| age(part).unwrap_or(SystemTime::UNIX_EPOCH) < built)
}
