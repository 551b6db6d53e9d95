//! Fear: `docs/deploying.md` tells operators to type what does not work.

use crate::built::{packages, root, text};
use crate::machine::Machine;

const PAGE: &str = "docs/deploying.md";

/// The lines of the page that are typed, in the section with this heading.
fn typed(heading: &str) -> Vec<String> {
    let page = text(PAGE);
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap().to_owned();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks
        .flat_map(|block| block.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_the_page_says_of_debian_works_in_this_order() {
    let [package, _] = packages();
    let machine = Machine::boot(&[&package]);
    let lines = typed("Debian");
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        match &words[..] {
            // On the machine that builds it.
            ["packaging/debian/build"] => assert!(root().join(words[0]).exists()),
            ["cargo", "install", "cargo-deb"] => {}
            _ => drop(machine.sh(&line.replace("./leasehold_*.deb", "/mnt/leasehold-1.deb"))),
        }
    }
    assert!(lines.len() > 5, "{lines:?}");
    assert_eq!(machine.sh("leasehold health").trim(), "ready");
}

#[test]
fn every_block_of_the_page_is_of_a_section_that_is_tested() {
    let page = text(PAGE);
    for section in page.split("\n## ").skip(1).filter(|section| section.contains("```")) {
        let heading = section.lines().next().unwrap();
        assert!(["Debian"].contains(&heading), "nothing tests the commands of {heading:?}");
    }
    assert!(page.lines().filter(|line| line.starts_with("```")).step_by(2).all(|fence| fence == "```sh"));
}
