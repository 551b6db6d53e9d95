//! The server's binary, for those who look at its metrics.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

/// The binary, ended with the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Process {
    pub(crate) fn serve(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        for name in ["LOCK_STORE", "REDIS_URL", "RUST_LOG", "LEASEHOLD_TOKENS", "LEASEHOLD_OPEN_STATS"] {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--grace", "1s"]).args(words);
        command.envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let first = BufReader::new(child.stdout.as_mut().unwrap()).lines().next().unwrap().unwrap();
        let url = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first}")).to_owned();
        // The binary's own client brings TLS into every client, and that asks for a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { child, url, client: Client::builder().no_proxy().build().unwrap() }
    }

    pub(crate) async fn acquire(&self, body: Value) -> (StatusCode, Value) {
        let answer = self.client.post(format!("{}/acquire", self.url)).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub(crate) async fn release(&self, lock: &Value) {
        let body = json!({ "key": lock["key"], "token": lock["token"] });
        let answer = self.client.post(format!("{}/release", self.url)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    pub(crate) async fn scrape(&self) -> String {
        let answer = self.client.get(format!("{}/metrics", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        answer.text().await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
