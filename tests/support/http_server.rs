//! A real server on a real socket, in the test's own process, and a client for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use leasehold::LockManager;
use leasehold::http::{Access, Limits, ReloadableAccess, configure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// However loaded the machine is, a thing that has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) locks: LockManager,
    pub(crate) address: SocketAddr,
    client: Client,
    handle: ServerHandle,
    pub(crate) access: ReloadableAccess,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::over(LockManager::builder().build().unwrap())
    }

    pub(crate) fn over(locks: LockManager) -> Self {
        Self::with_limits(locks, Limits::new())
    }

    pub(crate) fn with_limits(locks: LockManager, limits: Limits) -> Self {
        Self::with_access(locks, limits, Access::open())
    }

    pub(crate) fn with_access(locks: LockManager, limits: Limits, access: Access) -> Self {
        let shared = locks.clone();
        let access = ReloadableAccess::new(access);
        let reloadable = access.clone();
        let measured = measured();
        let app = move || {
            let app = App::new().app_data(shared.clone()).app_data(limits).app_data(reloadable.clone());
            app.configure(measured.clone()).configure(configure)
        };
        let server = HttpServer::new(app)
            .workers(1)
            .h1_allow_half_closed(false)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { locks, address, client: client(), handle, access }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    /// Sends `body` as JSON, whatever it is.
    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body.into())).await
    }

    /// A request that goes on while the test does something else.
    pub(crate) fn post_later(&self, path: &str, body: Value) -> actix_web::rt::task::JoinHandle<Answer> {
        actix_web::rt::spawn(Answer::of(self.request(Method::POST, path).json(&body)))
    }

    /// A connection of one's own, with the head of an acquire and as much of its body as `body` has.
    pub(crate) fn raw_acquire(&self, content_length: usize, body: &str) -> TcpStream {
        let mut socket = self.connect();
        let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        write!(socket, "{head}content-length: {content_length}\r\n\r\n{body}").unwrap();
        socket
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Listens to server-sent events.
    pub(crate) async fn events(&self, path: &str) -> Listener {
        Listener::of(self.request(Method::GET, path)).await
    }

    /// Another list of tokens takes the place of the present one.
    pub(crate) fn replace_tokens(&self, list: &Value) {
        self.access.replace(self.access.current().with_tokens(&list.to_string()).unwrap());
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.locks.stats().waiting
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The order is given at once; the future would only tell when it is carried out.
        drop(self.handle.stop(false));
    }
}

/// A process that ends with the test.
pub(crate) struct KillOnDrop(pub(crate) std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `/metrics`, where it can be had.
#[cfg(feature = "prometheus")]
fn measured() -> impl FnOnce(&mut ServiceConfig) + Clone + Send {
    use leasehold::metrics::{Exposition, HttpMetrics, configure_prometheus};
    use metrics_exporter_prometheus::PrometheusBuilder;
    let recorder = configure_prometheus(PrometheusBuilder::new()).unwrap().build_recorder();
    let (exposition, requests) = (Exposition::new(recorder.handle()), HttpMetrics::new());
    move |cfg| {
        cfg.app_data(exposition).app_data(requests).configure(leasehold::http::configure_metrics);
    }
}

#[cfg(not(feature = "prometheus"))]
fn measured() -> impl FnOnce(&mut ServiceConfig) + Clone + Send {
    |_| {}
}

pub(crate) fn client() -> Client {
    // The binary's own client brings TLS into every client, and that asks for a provider.
    #[cfg(feature = "server")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
        let headers: BTreeMap<_, _> = headers.collect();
        let bytes = answer.bytes().await.unwrap();
        let is_text = headers.get("content-type").is_some_and(|kind| kind.starts_with("text/"));
        let body = match bytes.is_empty() {
            _ if is_text => String::from_utf8(bytes.into()).unwrap().into(),
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap(),
        };
        Self { status, headers, body }
    }

    /// The answer's text, for one who reads from the socket.
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
        Self { status, headers: headers.collect(), body }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        self.body
    }

    /// A problem document of this status and code, and no token in it.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        self.any_problem()
    }

    #[track_caller]
    pub(crate) fn any_problem(self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], self.status);
        for member in ["code", "title", "detail"] {
            assert!(self.body[member].is_string(), "no {member}: {self:?}");
        }
        assert!(self.body.get("token").is_none());
        self.body
    }
}

pub(crate) fn text<'a>(body: &'a Value, member: &str) -> &'a str {
    body[member].as_str().unwrap_or_else(|| panic!("no text `{member}` in {body}"))
}

pub(crate) fn number(body: &Value, member: &str) -> u64 {
    body[member].as_u64().unwrap_or_else(|| panic!("no whole number `{member}` in {body}"))
}

/// Polls until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    let began = Instant::now();
    async move {
        while !so() {
            assert!(began.elapsed() < PATIENCE, "it never came: {what}");
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Reads what comes until the other side closes, off the test's own thread.
pub(crate) async fn read_to_end(mut socket: TcpStream) -> String {
    let reading = actix_web::rt::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    });
    reading.await.unwrap()
}

/// A client of a stream of server-sent events.
pub(crate) struct Listener {
    answer: reqwest::Response,
    seen: String,
    /// How much of it was told already.
    told: usize,
}

impl Listener {
    /// Listens from when this resolves: the stream has begun then.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut listener = Self { answer, seen: String::new(), told: 0 };
        assert!(listener.frame().await.unwrap().contains("retry:"), "the opening");
        listener
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.answer.headers()[name].to_str().unwrap()
    }

    /// All text so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// The data of the next event.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("the stream goes on");
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(data) = field("data: ") {
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(Some(text(&data, "kind")), field("event: ").as_deref(), "{frame}");
                return data;
            }
        }
    }

    /// Whether nothing more comes.
    pub(crate) async fn ended(&mut self) -> bool {
        self.frame().await.is_none()
    }

    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, _)) = self.seen[self.told..].split_once("\n\n") {
                let frame = frame.to_owned();
                self.told += frame.len() + 2;
                return Some(frame);
            }
            let chunk = self.answer.chunk().await.unwrap()?;
            self.seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
