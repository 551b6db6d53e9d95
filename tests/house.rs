//! Fear: the house rules are forgotten: who may import whom, how long a file may be, what a comment may say.

use std::path::{Path, PathBuf};

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(under), &mut found);
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The lines of a file that name paths of other crates or rooms, its unit tests apart.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn forbid(files: &[(PathBuf, String)], room: &str, words: &[&str]) {
    let mut seen = 0;
    for (path, text) in files.iter().filter(|(path, _)| path.to_string_lossy().contains(room)) {
        seen += 1;
        for line in code(text) {
            for word in words {
                assert!(!line.contains(word), "{}: `{}` may not use {word}", path.display(), line.trim());
            }
        }
    }
    assert!(seen > 0, "{room}: the rule has lost its room");
}

#[test]
fn rooms_import_only_what_they_may() {
    let files = sources("src");
    let io = ["actix", "tokio", "redis::", "metrics::", "std::thread", "Instant::now", "SystemTime"];
    forbid(&files, "src/table/", &io);
    forbid(
        &files,
        "src/table/",
        &["crate::shard", "crate::manager", "crate::request", "crate::lock", "Uuid::new", "Token::random"],
    );
    forbid(&files, "src/deadlock/graph", &io);
    forbid(
        &files,
        "src/deadlock/graph",
        &["crate::shard", "crate::key", "crate::clock", "crate::error", "crate::manager"],
    );
    forbid(&files, "src/retry.rs", &["actix", "tokio", "redis::", "metrics::", "crate::table", "crate::shard"]);
    for pure in ["src/store/redlock/quorum.rs", "src/store/redlock/fence.rs"] {
        forbid(&files, pure, &io);
        forbid(&files, pure, &["crate::table", "crate::shard", "crate::manager"]);
    }
    forbid(&files, "src/shard/mod.rs", &["crate::http", "crate::manager", "actix_web"]);
    forbid(&files, "src/http/", &["crate::table", "crate::shard", "crate::request::options"]);
}

#[test]
fn every_grant_is_made_in_one_place() {
    let files = sources("src/table");
    let made = |text: &str| code(text).filter(|line| line.contains("Holder {") && line.contains("granted_at:")).count();
    let places: Vec<_> = files
        .iter()
        .filter(|(path, _)| !path.to_string_lossy().contains("table/model/"))
        .map(|(_, text)| made(text))
        .collect();
    assert_eq!(places.iter().sum::<usize>(), 1, "a second one could forget the fence or the claim");
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 500 || path.to_string_lossy().contains("table/model/"), "{}: {lines} lines", path.display());
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        assert!(text.starts_with("//!") || text.starts_with("#!"), "{} has no module doc", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    for (path, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("examples")) {
        for mark in marks {
            assert!(!text.contains(mark), "{} has a {mark}", path.display());
        }
    }
}

#[test]
fn every_async_function_says_what_cancelling_it_does() {
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if !line.trim_start().starts_with("pub async fn") {
                continue;
            }
            let doc = lines[..at].iter().rev().take_while(|l| {
                let l = l.trim_start();
                l.starts_with("///") || l.starts_with("#[") || l.is_empty()
            });
            let said = doc.into_iter().any(|l| l.contains("# Cancel safety"));
            assert!(said, "{}:{}: {}", path.display(), at + 1, line.trim());
        }
    }
}

#[test]
fn the_package_is_small_and_has_its_documentation_built_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::process::Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let listed = String::from_utf8(cargo.stdout).unwrap();
    let size = |file: &str| std::fs::metadata(root.join(file)).map_or(0, |file| file.len());
    let bytes: u64 = listed.lines().map(size).sum();
    assert!(bytes < 2_500_000, "{bytes} bytes: {listed}");
    for part in ["src/lib.rs", "README.md", "LICENSE-MIT", "CHANGELOG.md", "examples/actix_web.rs"] {
        assert!(listed.lines().any(|file| file == part), "{part} is missing");
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[package.metadata.docs.rs]\nall-features = true"));
}
