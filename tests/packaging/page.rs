//! Fear: `docs/deploying.md` tells operators to type what does not work.

use crate::binary::{Did, command};
use crate::built::{packages, root, text};
use crate::kit::Dir;
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

/// What an engine and a cluster are needed for: the files that are named are there, and other tests are about them.
#[test]
fn what_the_page_says_of_containers_and_clusters_names_what_is_there() {
    let version = env!("CARGO_PKG_VERSION");
    for line in typed("Container").into_iter().chain(typed("Kubernetes")) {
        let words: Vec<&str> = line.split(' ').collect();
        match &words[..] {
            ["docker", "build", "--tag", image, "."] => assert_eq!(*image, format!("leasehold:{version}")),
            ["docker", "run", .., image] => assert_eq!(*image, format!("leasehold:{version}")),
            ["docker", "compose", "-f", file, "up", "--wait"] => assert!(root().join(file).exists()),
            ["kubectl", "apply", "--kustomize", folder] => {
                assert!(root().join(folder).join("kustomization.yaml").exists(), "{folder}");
            }
            ["kubectl", "apply", "--filename", file] => assert!(root().join(file).exists(), "{file}"),
            ["kubectl", "create", "secret", "generic", "leasehold", rest @ ..] => {
                // Its keys are those that the manifests ask for.
                let keys: Vec<&str> = rest.iter().filter(|word| !word.starts_with("--")).copied().collect();
                let keys: Vec<&str> = keys.iter().map(|key| key.split('=').next().unwrap()).collect();
                assert_eq!(keys, ["tokens.json", "metrics-token", "store"]);
                let create = [&words[1..], &["--dry-run=client", "--output=yaml"]].concat();
                let folder = Dir::make();
                for file in &keys[..2] {
                    std::fs::write(folder.path().join(file), "x").unwrap();
                }
                let mut create = command("kubectl", &create);
                create.current_dir(folder.path());
                let secret = Did::of(create).ok();
                assert!(keys.iter().all(|key| secret.contains(&format!("\n  {key}: "))), "{secret}");
            }
            _ => panic!("no test knows what {line:?} does"),
        }
    }
}

#[test]
fn what_the_page_of_the_stack_says_names_what_is_there() {
    let page = text("examples/aws/README.md");
    let line = page.lines().find(|line| line.starts_with("aws cloudformation deploy")).unwrap();
    assert!(line.contains("--template-file examples/aws/template.yaml --capabilities CAPABILITY_IAM"));
    // Every parameter without a default is given, and no other.
    let template = text("examples/aws/template.yaml");
    let parameters = template.split("Parameters:\n").nth(1).unwrap().split("\nResources:").next().unwrap();
    let mut wanted = Vec::new();
    for line in parameters.lines() {
        match line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) {
            Some(name) => wanted.push(name.trim_end_matches(':')),
            None if line.trim_start().starts_with("Default:") => drop(wanted.pop()),
            None => {}
        }
    }
    let given = line.split("--parameter-overrides ").nth(1).unwrap();
    let given: Vec<&str> = given.split(' ').map(|one| one.split('=').next().unwrap()).collect();
    assert_eq!(given, wanted);
}

#[test]
fn every_block_of_the_page_is_of_a_section_that_is_tested() {
    let page = text(PAGE);
    for section in page.split("\n## ").skip(1).filter(|section| section.contains("```")) {
        let heading = section.lines().next().unwrap();
        assert!(["Debian", "Container", "Kubernetes"].contains(&heading), "nothing tests the commands of {heading:?}");
    }
    assert!(page.lines().filter(|line| line.starts_with("```")).step_by(2).all(|fence| fence == "```sh"));
}
