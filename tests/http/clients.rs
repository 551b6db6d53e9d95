//! Fear: what others generate from the description of the routes does not compile, or cannot lock.
//!
//! The generators are those of `openapi-python-client` (Python) and `openapi-typescript` with `openapi-fetch`; the
//! scripts in `tests/support/foreign` that begin with `prepare` install them (`tests/run` calls them).

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;

use crate::http_server::Server;

/// Below the target directory, beside this binary's `debug/deps`.
fn installed(path: &str) -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let found = binary.ancestors().nth(3).expect("it lies in a target directory").join(path);
    assert!(found.exists(), "no {}: run tests/support/foreign/prepare and prepare-node, or tests/run", found.display());
    found
}

fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign").join(path)
}

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn within(place: &Path) -> Self {
        let path = place.join(format!("generated-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a program says that must succeed; the server goes on meanwhile.
async fn said(mut command: Command) -> String {
    let run = move || {
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{command:?}: {text}");
        text
    };
    actix_rt::task::spawn_blocking(run).await.unwrap()
}

/// The description, in a file.
async fn description(server: &Server, folder: &Folder) -> PathBuf {
    let text = server.request(Method::GET, "/openapi.json").send().await.unwrap().text().await.unwrap();
    let path = folder.0.join("openapi.json");
    std::fs::write(&path, text).unwrap();
    path
}

#[actix_rt::test]
async fn a_client_that_was_generated_for_python_locks() {
    let server = Server::start();
    let folder = Folder::within(&std::env::temp_dir());
    let openapi = description(&server, &folder).await;
    let mut generate = Command::new(installed("python/bin/openapi-python-client"));
    generate.args(["generate", "--meta", "none", "--overwrite", "--path"]).arg(openapi);
    generate.arg("--output-path").arg(folder.0.join("lock_client"));
    let told = said(generate).await;
    assert!(!told.contains("Unable to") && !told.contains("will not be generated"), "{told}");
    let mut client = Command::new(installed("python/bin/python"));
    client.arg(ours("api_client.py")).arg(format!("http://{}", server.address)).arg(&folder.0);
    assert!(said(client).await.contains("locked and released by Python"));
    assert_eq!((server.locks.stats().granted, server.locks.stats().active), (1, 0));
}

#[actix_rt::test]
async fn a_client_with_types_that_were_generated_for_typescript_compiles_and_locks() {
    let server = Server::start();
    let modules = installed("node/node_modules");
    let folder = Folder::within(modules.parent().unwrap());
    let openapi = description(&server, &folder).await;
    let node = |program: &str| {
        let mut command = Command::new("node");
        command.arg(modules.join(program)).current_dir(&folder.0);
        command
    };
    let mut generate = node("openapi-typescript/bin/cli.js");
    generate.arg(openapi).args(["--output", "api.d.ts"]);
    said(generate).await;
    std::fs::copy(ours("node/client.ts"), folder.0.join("client.ts")).unwrap();
    std::fs::write(folder.0.join("package.json"), r#"{ "type": "module" }"#).unwrap();
    let mut compile = node("typescript/bin/tsc");
    compile.args(["--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "--skipLibCheck"]);
    compile.arg("client.ts");
    said(compile).await;
    let mut client = Command::new("node");
    client.arg("client.js").arg(format!("http://{}", server.address)).current_dir(&folder.0);
    assert!(said(client).await.contains("locked and released by TypeScript"));
    assert_eq!((server.locks.stats().granted, server.locks.stats().active), (1, 0));
}
