//! The server's binary, for those who look at its metrics.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::process::Stdio;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::binary::{self, leasehold};

pub(crate) struct Process {
    _process: binary::Process,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Process {
    pub(crate) fn serve(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = leasehold(&[&["serve", "--listen", "127.0.0.1:0", "--grace", "1s"], words].concat());
        command.envs(environment.iter().copied()).stderr(Stdio::inherit());
        let process = binary::Process::start(command);
        // The binary's own client brings TLS into every client, and that asks for a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url: process.url.clone(), _process: process, client: Client::builder().no_proxy().build().unwrap() }
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
