//! Fear: the stack cannot be deployed, or gives the server what it does not take.
//!
//! Nothing is deployed here: the linter knows the shape of every resource.

use serde_json::Value;

use crate::binary::{Did, command, leasehold};
use crate::built::{prepared, root, text};

const TEMPLATE: &str = "examples/aws/template.yaml";

fn linted(path: &str) -> Did {
    let linter = prepared("python/bin/cfn-lint");
    Did::of(command(linter.to_str().unwrap(), &[path]))
}

/// The template without the short forms of functions, which only the linter reads.
fn template() -> Value {
    let plain = text(TEMPLATE).replace("!Ref ", "").replace("!Sub ", "").replace("!GetAtt ", "");
    let dir = crate::kit::Dir::make();
    let file = dir.path().join("template.yaml");
    std::fs::write(&file, plain).unwrap();
    crate::built::read_yaml(&file, None).remove(0)
}

#[test]
fn the_linter_has_nothing_to_say_of_the_stack() {
    let said = linted(root().join(TEMPLATE).to_str().unwrap());
    assert_eq!((said.code, said.said()), (0, String::new()));
    let dir = crate::kit::Dir::make();
    let wrong = dir.path().join("wrong.yaml");
    std::fs::write(&wrong, text(TEMPLATE).replace("NetworkMode: awsvpc", "NetworkModes: awsvpc")).unwrap();
    assert_ne!(linted(wrong.to_str().unwrap()).code, 0, "it was not read");
}

#[test]
fn its_settings_are_settings_of_the_server() {
    let template = template();
    let container = &template["Resources"]["Task"]["Properties"]["ContainerDefinitions"][0];
    let mut print = leasehold(&["config", "print"]);
    for one in container["Environment"].as_array().unwrap() {
        print.env(one["Name"].as_str().unwrap(), one["Value"].as_str().unwrap());
    }
    let printed = Did::of(print).ok();
    for setting in ["store", "store-replicas", "max-wait", "log-format"] {
        assert!(printed.lines().any(|line| line.starts_with(&format!("{setting} = ")) && line.contains("LEASEHOLD_")));
    }
    let seconds = |value: &Value| value.as_u64().unwrap();
    let integration = &template["Resources"]["Integration"]["Properties"]["TimeoutInMillis"];
    assert!(printed.contains("max-wait = \"25s\"") && seconds(integration) > 25_000);
    assert!(seconds(&container["StopTimeout"]) > 5 + 1, "longer than the grace time");
    let check: Vec<&str> =
        container["HealthCheck"]["Command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(check, ["CMD", "leasehold", "health", "--live"], "as the Dockerfile has it");
    assert!(text("Dockerfile").contains(r#"CMD ["leasehold", "health", "--live"]"#));
}
