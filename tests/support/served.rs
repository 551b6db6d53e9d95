//! The binary's server, and a client for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

use crate::binary;
use crate::http_server::{Answer, client, number};

pub(crate) struct Process {
    process: binary::Process,
    pub(crate) client: Client,
}

impl Process {
    pub(crate) fn serve(words: &[&str]) -> Self {
        Self { process: binary::Process::serve(words), client: client() }
    }

    pub(crate) fn start(command: Command) -> Self {
        Self { process: binary::Process::start(command), client: client() }
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> impl Future<Output = Answer> + use<> {
        Answer::of(self.client.post(format!("{}{path}", self.url)).json(&body))
    }

    pub(crate) fn get(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        Answer::of(self.client.get(format!("{}{path}", self.url)))
    }

    /// The same over a connection of its own, which has not idled.
    pub(crate) fn post_afresh(&self, path: &str, body: Value) -> impl Future<Output = Answer> + use<> {
        Answer::of(client().post(format!("{}{path}", self.url)).json(&body))
    }

    pub(crate) async fn takes_and_gives_back_a_lock(&self) {
        let lock = self.post_afresh("/acquire", json!({ "key": "mine" })).await.ok();
        let mine = json!({ "key": "mine", "token": lock["token"] });
        assert_eq!(self.post_afresh("/release", mine).await.ok(), json!({ "outcome": "released" }));
    }

    /// The sum of a family's series, with these labels.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let lines = metrics.body.as_str().unwrap().lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum()
    }

    pub(crate) async fn has_waiting(&self, waiting: u64) {
        while number(&self.get("/stats").await.ok(), "waiting") != waiting {
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Deref for Process {
    type Target = binary::Process;

    fn deref(&self) -> &binary::Process {
        &self.process
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut binary::Process {
        &mut self.process
    }
}
