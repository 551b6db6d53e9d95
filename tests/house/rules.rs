//! Fear: the house rules are forgotten: who may import whom, how long a file may be, what a comment may say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::sources::sources;

/// The lines of a file that name paths of other crates or rooms, its unit tests apart.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
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
    forbid(&files, "src/store/", &["crate::table", "crate::shard"]);
    forbid(&files, "src/shard/", &["actix_web"]);
    forbid(&files, "src/http/", &["crate::table", "crate::shard", "crate::request::options"]);
}

/// The rooms of each line of the crate's map, from the top down.
fn map() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines = text.lines().skip_while(|line| *line != "//! |---|---|").skip(1);
    let first = |line: &str| line.split('|').nth(1).unwrap_or_default().to_owned();
    let rooms = |cell: String| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    lines.take_while(|line| line.starts_with("//! |")).map(|line| rooms(first(line))).collect()
}

/// What the crate's root gives names to: each name, and the room that it is of.
fn root_names() -> HashMap<String, String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let text: String = code(&text).collect();
    let mut names = HashMap::new();
    for import in text.split("pub use ").skip(1) {
        let (room, rest) = import.split_once(';').unwrap().0.split_once("::").unwrap();
        for name in rest.split([',', '{', '}']).map(str::trim).filter(|name| !name.is_empty()) {
            names.insert(name.to_owned(), room.to_owned());
        }
    }
    names
}

/// The modules that a host can name.
fn public_modules() -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    text.lines().filter_map(name).collect()
}

/// The first names after each `crate::`.
fn imports(text: &str) -> Vec<String> {
    let text: String = code(text).flat_map(|line| [line, "\n"]).collect();
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &str| text.trim_start().split(|c| !is_of_name(c)).next().unwrap_or_default().to_owned();
    let after = text.split("crate::").skip(1);
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').map(name).collect(),
            None => vec![name(rest)],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// Modules that only tests have: what they import binds nobody.
fn test_modules(files: &[(PathBuf, String)]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, text) in files {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[cfg(") && pair[0].contains("(test")) {
            let Some(name) = pair[1].strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
            let inside = if path.ends_with("mod.rs") { path.with_file_name("") } else { path.with_extension("") };
            found.push(inside.join(name));
        }
    }
    found
}

#[test]
fn a_room_imports_only_what_is_below_it_on_the_map() {
    let files = sources("src");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = map();
    let line_of = |room: &str| map.iter().position(|line| line.iter().any(|other| other == room));
    let (names, test_modules) = (root_names(), test_modules(&files));
    assert!(test_modules.len() > 3, "{test_modules:?}");
    let mut seen = 0;
    for (path, text) in &files {
        let inside = path.strip_prefix(&root).unwrap();
        let is_test =
            test_modules.iter().any(|module| path.starts_with(module) || *path == module.with_extension("rs"));
        if is_test || inside.starts_with("bin") || inside == Path::new("lib.rs") {
            continue;
        }
        let room = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        let depth = inside.iter().count() - usize::from(inside.ends_with("mod.rs"));
        let way_out = "super::".repeat(depth);
        let leaves = |line: &str| line.starts_with(char::is_alphabetic) && line.contains(&way_out);
        assert!(!code(text).any(leaves), "{}: name the room, not `{way_out}`", path.display());
        let line = line_of(&room).unwrap_or_else(|| panic!("the map in lib.rs has no room `{room}`"));
        for name in imports(text) {
            let other = names.get(&name).filter(|_| line_of(&name).is_none()).unwrap_or(&name);
            if *other != room {
                let below = line_of(other).unwrap_or_else(|| panic!("{}: of which room is `{name}`?", path.display()));
                assert!(below > line, "{}: `{room}` imports `{other}`, which is not below it", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 300, "only {seen} imports were found");
}

#[test]
fn the_routes_name_only_what_a_host_can_name() {
    let (names, modules) = (root_names(), public_modules());
    for (path, text) in sources("src/http") {
        for name in imports(&text) {
            let is_public = names.contains_key(&name) || modules.contains(&name);
            assert!(is_public, "{}: make `{name}` public, or do without", path.display());
        }
    }
}

#[test]
fn every_grant_is_made_in_one_place() {
    let files = sources("src/table");
    let files: Vec<_> = files.iter().filter(|(path, _)| !path.to_string_lossy().contains("table/tests/")).collect();
    let count = |what: &dyn Fn(&str) -> usize| files.iter().map(|(_, text)| what(text)).sum::<usize>();
    // Its fence is private to one file: no other can spell a holder out, in whatever way.
    let (_, holder) = files.iter().find(|(path, _)| path.ends_with("table/holder.rs")).unwrap();
    let fields = holder.split("pub(crate) struct Holder {").nth(1).unwrap().split('}').next().unwrap();
    assert!(code(fields).any(|line| line.trim_start().starts_with("fence:")), "the fence is not private any more");
    let spelt = |line: &&str| ["Self {", "Holder {"].iter().any(|literal| line.contains(literal));
    let literals = code(holder).filter(spelt).filter(|line| !line.contains("impl ") && !line.contains("struct "));
    assert_eq!(literals.filter(|line| !line.contains("-> Self {")).count(), 1, "Holder::new is the only one to do it");
    let calls = |text: &str| code(text).map(|line| line.matches("Holder::new(").count()).sum();
    assert_eq!(count(&calls), 2, "one for the lane, which looks at the index once, and one for all others");
    let fences = |text: &str| code(text).map(|line| line.matches("last.next()").count()).sum();
    assert_eq!(count(&fences), 1, "T4: fences are made in one place");
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 500 || path.to_string_lossy().contains("table/tests/"), "{}: {lines} lines", path.display());
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
    assert!(bytes < 4_000_000, "{bytes} bytes: {listed}");
    for part in ["src/lib.rs", "README.md", "LICENSE-MIT", "CHANGELOG.md", "examples/actix_web.rs"] {
        assert!(listed.lines().any(|file| file == part), "{part} is missing");
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[package.metadata.docs.rs]\nall-features = true"));
}

#[test]
fn what_the_pages_for_contributors_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for page in ["CONTRIBUTING.md", "SECURITY.md", "README.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let linked = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap_or_default());
        for name in quoted.chain(linked.filter(|link| !link.contains(':'))) {
            let starts = ["src/", "tests/", "examples/", "grafana/", "docs/", "benches/"];
            if starts.iter().any(|start| name.starts_with(start)) && !name.contains(' ') {
                seen += 1;
                assert!(root.join(name).exists(), "{page} names {name}, which is not there");
            }
        }
    }
    assert!(seen > 30, "only {seen} names were found");
}
