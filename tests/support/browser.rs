//! A real Chromium, driven over WebDriver, and ended with the test. What it logs and what it asks the network for are
//! kept, so that a test can hold the page to silence.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use http::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the browser and its driver, whatever becomes of the test.
struct Driver {
    child: Child,
    port: u16,
    session: Option<String>,
}

impl Driver {
    /// Where two drivers are given one port at the same time, the later one ends at once: it is started again.
    fn start() -> Self {
        (0..10).find_map(|_| Self::try_start()).expect("a driver that starts")
    }

    fn try_start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.args(["--port=0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("chromedriver, of the package chromium-driver");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        let Some(port) = port else {
            child.wait().expect("its output has ended");
            return None;
        };
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, port, session: None })
    }

    fn end_session(&self) -> std::io::Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "DELETE /session/{session} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
        // The answer comes when the browser has ended; the connection stays open.
        socket.read_exact(&mut [0])
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.end_session();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    // Of this process, where the system tells.
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Own(&'static str, Value);

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}

pub(crate) struct Browser {
    pub(crate) page: Client,
    _driver: Driver,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let mut driver = Driver::start();
        let mut words = vec!["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"];
        words.extend(["--hide-scrollbars", "--no-first-run", "--no-proxy-server", "--lang=en"]);
        words.extend(more);
        if is_root() {
            // Chromium's own sandbox refuses to run as root.
            words.push("--no-sandbox");
        }
        let wanted = json!({
            "goog:chromeOptions": { "args": words },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let Value::Object(wanted) = wanted else { unreachable!("it is an object") };
        let address = format!("http://127.0.0.1:{}", driver.port);
        let page = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(Capabilities::from(wanted))
            .connect(&address)
            .await
            .unwrap();
        driver.session = page.session_id().await.unwrap();
        Self { page, _driver: driver }
    }

    /// A command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.page.issue_cmd(Own("goog/cdp/execute", body)).await.unwrap();
    }

    pub(crate) async fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.page.execute(&format!("return ({expression})"), vec![]).await.unwrap()
    }

    /// Polls until an expression holds.
    pub(crate) async fn until(&self, expression: &str) {
        let began = Instant::now();
        loop {
            if self.value(&format!("Boolean({expression})")).await == json!(true) {
                return;
            }
            if began.elapsed() > PATIENCE {
                let seen = self.value("document.body.innerText").await;
                panic!("it never came: {expression}\n{}\n{:?}", seen.as_str().unwrap(), self.log("browser").await);
            }
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses a key where the focus is.
    pub(crate) async fn press(&self, key: fantoccini::key::Key) {
        self.type_in(&char::from(key).to_string()).await;
    }

    pub(crate) async fn type_in(&self, text: &str) {
        self.page.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.page.find(fantoccini::Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// What was logged since the last time it was asked.
    pub(crate) async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.page.issue_cmd(Own("se/log", json!({ "type": kind }))).await.unwrap();
        log.as_array().unwrap().clone()
    }

    /// The addresses that were asked for since the last time.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in self.log("performance").await {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if message["message"]["method"] == "Network.requestWillBeSent" {
                found.push(message["message"]["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
        }
        found
    }

    /// Writes what the window shows to the folder that `LEASEHOLD_PICTURES` names, if it does.
    pub(crate) async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("LEASEHOLD_PICTURES") {
            let picture = self.page.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(name).with_extension("png"), picture).unwrap();
        }
    }
}
