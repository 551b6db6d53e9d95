//! Talks to a lock server over HTTP.
//!
//! No proxy is ever asked: a lock server is a neighbour. Answers are handed on as the text that came, so that `--json`
//! prints what the server said.

pub(crate) mod replies;
mod trust;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::Failure;
use crate::print::plain;

/// Where the server is unless something else is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7420";
/// Where its address may stand. Not known to the parser, for which it would conflict with `--store`.
const SERVER_VARIABLE: &str = "LEASEHOLD_SERVER";
/// Where the bearer token may stand. Not a flag: others could read that in the list of processes.
const TOKEN_VARIABLE: &str = "LEASEHOLD_TOKEN";
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that waits for nothing.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a lock server.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// The lock server [env: LEASEHOLD_SERVER=] [default: http://127.0.0.1:7420]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,

    /// A file with the bearer token; or the token itself in LEASEHOLD_TOKEN
    #[arg(long, env = "LEASEHOLD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// A PEM file with the certificates to trust instead of the system's, for an https server: of a CA, or the server's own
    #[arg(long, env = "LEASEHOLD_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// A server, and the right to ask it.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// What a server refuses with: a problem document.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: String,
    detail: String,
    holder: Option<InTheWay>,
    queue_length: Option<usize>,
}

/// Who holds what was asked for.
#[derive(Debug, Deserialize)]
struct InTheWay {
    owner: Option<String>,
    remaining_ms: Option<u64>,
}

impl Problem {
    /// Whether an option of this name is out of the server's bounds.
    pub(crate) fn is_about(&self, option: &str) -> bool {
        self.code == "invalid_option" && self.detail.contains(&format!("`{option}`"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.detail))?;
        if let Some(InTheWay { owner, remaining_ms }) = &self.holder {
            let owner = plain(owner.as_deref().unwrap_or("somebody"));
            match remaining_ms.map(Duration::from_millis).map(humantime::format_duration) {
                Some(left) => write!(f, ": {owner} has it for another {left}")?,
                None => write!(f, ": {owner} has it without an end")?,
            }
        }
        match self.queue_length {
            Some(waiting @ 1..) => write!(f, ", {waiting} waiting"),
            _ => Ok(()),
        }
    }
}

/// Why there is no answer to work with.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server answered, and refuses.
    Refused(Problem),
    /// Whether it was done is not known.
    Unknown(String),
    /// Who answers there is not trusted: nothing was asked.
    Distrusted(String),
}

impl From<CallError> for Failure {
    fn from(why: CallError) -> Self {
        match why {
            CallError::Refused(problem) => problem.into(),
            CallError::Unknown(why) | CallError::Distrusted(why) => Self::Unavailable(why),
        }
    }
}

impl Client {
    /// # Errors
    /// `Usage` if the URL, a file or the token makes no sense.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let given = args.server.clone().or_else(|| variable(SERVER_VARIABLE));
        let base = given.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let base = Url::parse(&base)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
            .ok_or_else(|| Failure::Usage(format!("--server ({SERVER_VARIABLE}): {base:?} is not an http URL")))?;
        let mut http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        // An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match &args.ca {
            Some(path) => {
                let wrong = |why: String| Failure::Usage(format!("--ca: {}: {why}", path.display()));
                let pem = std::fs::read(path).map_err(|why| wrong(why.to_string()))?;
                http = http.tls_backend_preconfigured(trust::only(&pem).map_err(wrong)?);
            }
            // The system's certificates take a while to read, and are not needed.
            None if base.scheme() == "http" => http = http.tls_certs_only([]),
            None => {}
        }
        let http = http.build().map_err(|why| Failure::Os(chain(&why)))?;
        Ok(Self { http, base, token: bearer(args)? })
    }

    /// The address, for messages. It may hold a password, which is not shown.
    fn place(&self) -> String {
        let mut shown = self.base.clone();
        // Only a URL without a host refuses, and this one has one.
        let _ = shown.set_password(None);
        shown.to_string()
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        let under = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{under}{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        within: Option<Duration>,
    ) -> Result<Response, CallError> {
        let mut request = self.http.request(method, url);
        if let Some(within) = within {
            request = request.timeout(within);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|why| self.unknown(&why))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.map_err(|why| self.unknown(&why))?;
        match serde_json::from_str(&text) {
            Ok(problem) => Err(CallError::Refused(problem)),
            Err(_) => Err(CallError::Unknown(format!("{} is no lock server: it answers {status}", self.place()))),
        }
    }

    fn unknown(&self, why: &reqwest::Error) -> CallError {
        let why = chain(why);
        let text = format!("cannot reach {}: {why}", self.place());
        match why.as_str() {
            why if ["UnknownIssuer", "CaUsedAsEndEntity"].iter().any(|unknown| why.contains(unknown)) => {
                CallError::Distrusted(format!("{text}: name its certificate, or that of its CA, by --ca"))
            }
            why if why.contains("invalid peer certificate") => CallError::Distrusted(text),
            _ => CallError::Unknown(text),
        }
    }

    async fn text(&self, answer: Result<Response, CallError>) -> Result<String, CallError> {
        answer?.text().await.map_err(|why| self.unknown(&why))
    }

    /// `POST`s a body and answers the text that comes back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn post(&self, path: &str, body: &Value, within: Duration) -> Result<String, CallError> {
        self.text(self.send(Method::POST, self.url(path, &[]), Some(body), Some(within)).await).await
    }

    /// `GET`s a text.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<String, CallError> {
        self.text(self.send(Method::GET, self.url(path, query), None, Some(ANSWER_TIMEOUT)).await).await
    }

    /// `DELETE`s something.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<String, CallError> {
        self.text(self.send(Method::DELETE, self.url(path, query), None, Some(ANSWER_TIMEOUT)).await).await
    }

    /// Opens a stream that ends when either side ends it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn stream(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, CallError> {
        self.send(Method::GET, self.url(path, query), None, None).await
    }

    /// Reads an answer as what it should be.
    ///
    /// # Errors
    /// `Unknown` if it is something else.
    pub(crate) fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, CallError> {
        let unread = |why| CallError::Unknown(format!("{} is no lock server: {why}", self.place()));
        serde_json::from_str(text).map_err(unread)
    }
}

/// A variable of the environment. An empty one is one that is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The bearer token, if there is one.
fn bearer(args: &ServerArgs) -> Result<Option<String>, Failure> {
    let given = match &args.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|why| Failure::Usage(format!("--token-file: {}: {why}", path.display())))?)
        }
        None => variable(TOKEN_VARIABLE),
    };
    let token = given.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match &token {
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Failure::Usage(format!("--token-file ({TOKEN_VARIABLE}): a token is of visible ASCII characters")))
        }
        _ => Ok(token),
    }
}

/// The last cause says the most ("connection refused"); the first repeats the URL.
fn chain(why: &reqwest::Error) -> String {
    if why.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut last: &dyn std::error::Error = why;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
