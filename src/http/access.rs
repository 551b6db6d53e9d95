//! Who may do what: bearer tokens, each with rights and with the namespaces (prefixes of keys) in which they hold.
//!
//! Secrets are kept as SHA-256 digests (but for the one that a thread was shown last) and compared in constant time,
//! all of them each time. They are shown in no answer, log line or `Debug`; a token's name is what logs call it by.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::origin::Proxies;
use super::pace::{Pace, Payer};
use super::problem::Fault;
use super::same_site::AllowedHosts;
use super::shown::Whoami;
use crate::LockManager;

/// A shorter secret could be guessed.
const SHORTEST_SECRET: usize = 16;
/// What stands before a secret.
const SCHEME: &[u8] = b"bearer ";

/// Who may use the routes. Make it once, outside of the app's factory, and give a clone to each app by `app_data`;
/// without one everybody may do everything who asks by the server's address.
///
/// ```
/// use leasehold::http::Access;
/// let access = Access::from_json(r#"[
///     { "name": "ci", "token": "7hKq2-change-me-9Zp", "rights": ["acquire", "read"], "namespaces": ["ci:"] },
///     { "name": "operator", "token_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
///       "rights": ["acquire", "read", "force"] }
/// ]"#)?;
/// # Ok::<(), leasehold::http::AccessError>(())
/// ```
///
/// | right | what it allows |
/// |---|---|
/// | `acquire` | acquire, release, heartbeat, sessions |
/// | `read` | locks, queues, totals, events |
/// | `force` | release by force |
///
/// A namespace is what its keys begin with; it ends with a divider (`web:`), since `web` would let in `website:` too.
/// Without `namespaces` a token is good for every key. `/healthz`, `/readyz`, `/openapi.json`,
/// `/docs` and the status page need none; what the page shows does.
#[derive(Clone, Default)]
#[must_use]
pub struct Access {
    /// None: everybody may do everything.
    bearers: Arc<[Bearer]>,
    open_stats: bool,
    pace: Option<Arc<Pace>>,
    proxies: Proxies,
    hosts: AllowedHosts,
}

/// The SHA-256 of a secret, in words: they are compared faster than bytes.
type Fingerprint = [u64; 4];

fn fingerprint(digest: [u8; 32]) -> Fingerprint {
    let (words, _) = digest.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// What a request needs to be let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// No token at all.
    Nothing,
    /// Nothing; but who brings a token is to bring one that is known.
    Name,
    Read,
    /// To read; but totals may be open to all.
    Totals,
    Acquire,
    /// To acquire; but never refused for coming too often, since it makes room.
    GiveBack,
    Force,
}

/// What a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Right {
    Acquire,
    Read,
    Force,
}

struct Bearer {
    name: String,
    digest: Fingerprint,
    rights: Vec<Right>,
    /// None of them is a prefix of another.
    namespaces: Vec<String>,
}

/// The token that a thread found last.
struct LastFound {
    among: Arc<[Bearer]>,
    secret: Box<[u8]>,
    at: usize,
}

/// Why a list of tokens makes no sense. It never quotes one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AccessError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    token: Option<String>,
    token_sha256: Option<String>,
    rights: Vec<Right>,
    namespaces: Option<Vec<String>>,
}

impl Access {
    /// Everybody may do everything, but for web pages of other sites: without tokens a request is refused unless it
    /// names an address, `localhost` or an [allowed host](Self::allow_hosts) in `Host`, and this host in `Origin` and
    /// `Sec-Fetch-Site` if it has those. Else any page could have its visitor's browser take and release locks here.
    pub fn open() -> Self {
        Self::default()
    }

    /// Reads a list of tokens, as in the example above.
    ///
    /// # Errors
    /// [`AccessError`] says which entry makes no sense: no list at all, an unknown field or right, a secret of less than
    /// 16 bytes, two of the same name or secret.
    pub fn from_json(text: &str) -> Result<Self, AccessError> {
        let written: Vec<Written> = serde_json::from_str(text).map_err(|why| {
            // Its own words may quote the text.
            AccessError(format!("not a list of tokens: see line {}, column {}", why.line(), why.column()))
        })?;
        if written.is_empty() {
            return Err(AccessError("there is no token in the list".to_owned()));
        }
        let mut bearers: Vec<Bearer> = Vec::with_capacity(written.len());
        for entry in written {
            let bearer = Bearer::read(entry)?;
            if let Some(other) = bearers.iter().find(|other| other.name == bearer.name || other.digest == bearer.digest)
            {
                let names = (&other.name, &bearer.name);
                return Err(AccessError(format!("{names:?}: two entries have the same name or the same token")));
            }
            bearers.push(bearer);
        }
        Ok(Self { bearers: bearers.into(), ..Self::default() })
    }

    /// The same terms for other tokens, read as by [`from_json`](Self::from_json).
    ///
    /// # Errors
    /// As for `from_json`.
    pub fn with_tokens(&self, text: &str) -> Result<Self, AccessError> {
        let bearers = Self::from_json(text)?.bearers;
        let pace = self.pace.as_ref().map(|pace| Arc::new(pace.for_bearers(bearers.len())));
        Ok(Self { bearers, pace, ..self.clone() })
    }

    /// Lets everybody read the totals of all keys (without the names of the most contended ones).
    pub fn open_stats(mut self) -> Self {
        self.open_stats = true;
        self
    }

    /// Takes at most so many requests per second from each token, and as many at once; beyond it, 429 `rate_limited`.
    /// Who brings no known token is counted by the address that it comes from (an IPv6 one by its /64): behind a proxy
    /// that is the proxy's, unless [`trust_proxies`](Self::trust_proxies) names it. Releases and heartbeats are not
    /// counted.
    pub fn rate_limit(mut self, per_second: NonZeroU32) -> Self {
        self.pace = Some(Arc::new(Pace::new(per_second, self.bearers.len())));
        self
    }

    /// Believes these proxies (addresses and networks, with commas between them) when they say in `x-forwarded-for` whom
    /// they speak for. Name only such as add to that header themselves: a client can write whatever it likes there.
    ///
    /// ```
    /// # use leasehold::http::Access;
    /// let access = Access::open().trust_proxies("10.0.0.0/8, 2001:db8::7")?;
    /// # Ok::<(), leasehold::http::AccessError>(())
    /// ```
    ///
    /// # Errors
    /// [`AccessError`] names the one that is neither an address nor a network.
    pub fn trust_proxies(mut self, list: &str) -> Result<Self, AccessError> {
        let wrong = |entry: &str| AccessError(format!("{entry:?} is neither an address nor a network"));
        self.proxies = Proxies::read(list).map_err(wrong)?;
        Ok(self)
    }

    /// Answers to these names as well, with commas between them; `*` is any name. Only where there are no tokens need
    /// they be known: see [`open`](Self::open). `/healthz` and `/readyz` answer to any name.
    ///
    /// ```
    /// # use leasehold::http::Access;
    /// let access = Access::open().allow_hosts("locks.example.com, lock-server")?;
    /// # Ok::<(), leasehold::http::AccessError>(())
    /// ```
    ///
    /// # Errors
    /// [`AccessError`] names the one that is no name of a host. It has no scheme and no port.
    pub fn allow_hosts(mut self, list: &str) -> Result<Self, AccessError> {
        let wrong = |entry: &str| AccessError(format!("{entry:?} is not the name of a host"));
        self.hosts = AllowedHosts::read(list).map_err(wrong)?;
        Ok(self)
    }

    /// Whether a token is asked for at all.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.bearers.is_empty()
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(&self, req: &HttpRequest, needs: Needs) -> Result<Caller, Fault> {
        if needs == Needs::Nothing {
            return Ok(Caller::anybody());
        }
        self.check_site(req)?;
        if !self.has_tokens() {
            self.count(req, needs, None)?;
            return Ok(Caller::anybody());
        }
        let given = secret(req);
        let Some(at) = given.and_then(|secret| self.find_again(secret)) else {
            // Whoever guesses is slowed down like everybody else.
            self.count(req, needs, None)?;
            return match (needs, given) {
                (Needs::Totals, None) if self.open_stats => Ok(self.caller(None)),
                (Needs::Name, None) => Ok(self.caller(None)),
                _ => Err(Fault::Unauthenticated { given: given.is_some() }),
            };
        };
        self.count(req, needs, Some(at))?;
        let right = match needs {
            Needs::Nothing | Needs::Name => None,
            Needs::Totals if self.open_stats => None,
            Needs::Totals | Needs::Read => Some(Right::Read),
            Needs::Acquire | Needs::GiveBack => Some(Right::Acquire),
            Needs::Force => Some(Right::Force),
        };
        if right.is_some_and(|right| !self.bearers[at].rights.contains(&right)) {
            return Err(Fault::Forbidden { why: "the token does not have the right to do this" });
        }
        Ok(self.caller(Some(at)))
    }

    /// Refuses pages of other sites, where no token would.
    pub(super) fn check_site(&self, req: &HttpRequest) -> Result<(), Fault> {
        if self.has_tokens() { Ok(()) } else { self.hosts.check(req) }
    }

    fn caller(&self, bearer: Option<usize>) -> Caller {
        Caller { access: Some((Arc::clone(&self.bearers), bearer)) }
    }

    /// [`find`](Self::find), which most often is asked for what it was asked for just before. That is compared in
    /// constant time too: how long it takes tells no more of the last token than its length.
    fn find_again(&self, secret: &[u8]) -> Option<usize> {
        thread_local! {
            static LAST: RefCell<Option<LastFound>> = const { RefCell::new(None) };
        }
        LAST.with_borrow_mut(|last| {
            if let Some(last) = last
                && Arc::ptr_eq(&last.among, &self.bearers)
                && bool::from(last.secret.ct_eq(secret))
            {
                return Some(last.at);
            }
            let at = self.find(secret)?;
            *last = Some(LastFound { among: Arc::clone(&self.bearers), secret: secret.into(), at });
            Some(at)
        })
    }

    /// Which token has this secret. Looks at all of them, whatever it finds.
    fn find(&self, secret: &[u8]) -> Option<usize> {
        let digest = fingerprint(Sha256::digest(secret).into());
        let same = |(at, bearer): (usize, &Bearer)| bool::from(bearer.digest.ct_eq(&digest)).then_some(at);
        self.bearers.iter().enumerate().map(same).fold(None, |found, at| found.or(at))
    }

    fn count(&self, req: &HttpRequest, needs: Needs, bearer: Option<usize>) -> Result<(), Fault> {
        match &self.pace {
            Some(pace) if needs != Needs::GiveBack || bearer.is_none() && self.has_tokens() => {
                pace.take(bearer.map_or_else(|| Payer::at(self.proxies.origin(req)), Payer::Bearer))
            }
            _ => Ok(()),
        }
    }
}

/// The secret that a request brings.
fn secret(req: &HttpRequest) -> Option<&[u8]> {
    let (scheme, secret) = req.headers().get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| secret.trim_ascii())
}

impl Bearer {
    fn read(written: Written) -> Result<Self, AccessError> {
        let Written { name, token, token_sha256, rights, namespaces } = written;
        let wrong = |why: &str| Err(AccessError(format!("the token {name:?}: {why}")));
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(AccessError("a token's name has 1 to 64 bytes and no control characters".to_owned()));
        }
        let digest = match (token, token_sha256) {
            (Some(secret), None) if secret.len() < SHORTEST_SECRET => return wrong("it has less than 16 bytes"),
            (Some(secret), None) if secret.chars().any(|c| !c.is_ascii_graphic()) => {
                return wrong("it has characters that no header can carry");
            }
            (Some(secret), None) => fingerprint(Sha256::digest(secret).into()),
            (None, Some(hex)) => match digest_of_hex(&hex) {
                Some(digest) => fingerprint(digest),
                None => return wrong("`token_sha256` is not 64 hexadecimal digits"),
            },
            _ => return wrong("give either `token` or `token_sha256`"),
        };
        if rights.is_empty() {
            return wrong("it has no rights");
        }
        if namespaces.as_ref().is_some_and(Vec::is_empty) {
            return wrong("it has an empty list of namespaces; leave that out for every key");
        }
        let ends_in_a_word = |namespace: &String| namespace.ends_with(char::is_alphanumeric);
        if namespaces.iter().flatten().any(ends_in_a_word) {
            return wrong(
                "a namespace ends in a letter or a digit, and would let in all that goes on from there: `web` \
                the keys of `website:`. End it with `:` or another divider",
            );
        }
        let mut all = namespaces.unwrap_or_else(|| vec![String::new()]);
        without_inner(&mut all);
        Ok(Self { name, digest, rights, namespaces: all })
    }
}

/// Leaves out those prefixes that begin with another.
fn without_inner(prefixes: &mut Vec<String>) {
    prefixes.sort_unstable();
    // In order, each comes behind what it begins with, and only such are in between.
    prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
}

fn digest_of_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// Somebody who was let in.
#[derive(Clone)]
pub(super) struct Caller {
    /// None: everything is open. No bearer: one who may see totals and no key.
    access: Option<(Arc<[Bearer]>, Option<usize>)>,
}

impl Caller {
    /// One of those to whom everything is open.
    pub(super) fn anybody() -> Self {
        Self { access: None }
    }

    /// How logs call it.
    pub(super) fn name(&self) -> &str {
        match &self.access {
            Some((bearers, Some(at))) => &bearers[*at].name,
            _ => "anonymous",
        }
    }

    /// What it may tell of itself.
    pub(super) fn whoami(&self) -> Whoami {
        match &self.access {
            None => Whoami { name: None, rights: vec![Right::Acquire, Right::Read, Right::Force], namespaces: None },
            Some((bearers, at)) => {
                let bearer = at.map(|at| &bearers[at]);
                let rights = bearer.map_or_else(Vec::new, |bearer| bearer.rights.clone());
                let namespaces = self.namespaces().filter(|_| !self.is_unbound()).map(<[String]>::to_vec);
                Whoami { name: bearer.map(|bearer| bearer.name.clone()), rights, namespaces }
            }
        }
    }

    fn namespaces(&self) -> Option<&[String]> {
        let (bearers, at) = self.access.as_ref()?;
        Some(at.map_or(&[][..], |at| &bearers[at].namespaces))
    }

    /// Whether every key is open to it, so that none need be looked at.
    pub(super) fn is_unbound(&self) -> bool {
        self.namespaces().is_none_or(|all| all.first().is_some_and(String::is_empty))
    }

    /// Whether this key, as the manager keeps it, is open to it.
    pub(super) fn may_use(&self, locks: &LockManager, key: &str) -> bool {
        let begins = |namespace: &String| key.starts_with(&*locks.canonical_prefix(namespace));
        self.namespaces().is_none_or(|all| all.iter().any(begins))
    }

    /// The prefixes, as the manager keeps them, that make up what it may see of the keys with this one. No key has two
    /// of them.
    pub(super) fn prefixes(&self, locks: &LockManager, prefix: &str) -> Vec<String> {
        let kept = |prefix: &str| locks.canonical_prefix(prefix).into_owned();
        let prefix = kept(prefix);
        let Some(all) = self.namespaces() else { return vec![prefix] };
        let mut all: Vec<String> = all.iter().map(|namespace| kept(namespace)).collect();
        if all.iter().any(|namespace| prefix.starts_with(namespace.as_str())) {
            return vec![prefix];
        }
        all.retain(|namespace| namespace.starts_with(&prefix));
        without_inner(&mut all);
        all
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.bearers.iter().map(|bearer| &bearer.name).collect();
        f.debug_struct("Access").field("tokens", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(namespaces: &str) -> Caller {
        let text = format!(r#"[{{"name":"n","token":"0123456789abcdef","rights":["read"]{namespaces}}}]"#);
        Access::from_json(&text).unwrap().caller(Some(0))
    }

    #[test]
    fn namespaces_bound_the_keys_and_the_lists() {
        let locks = LockManager::builder().build().unwrap();
        let all = caller("");
        assert!(all.is_unbound() && all.may_use(&locks, "x"));
        let some = caller(r#","namespaces":["b:","a:","a:b:"]"#);
        assert!(!some.is_unbound());
        for (key, open) in [("a:", true), ("a:b:c", true), ("b:1", true), ("a", false), ("", false), ("c:1", false)] {
            assert_eq!(some.may_use(&locks, key), open, "{key}");
        }
        assert_eq!(some.prefixes(&locks, ""), ["a:", "b:"], "one that is within another adds nothing");
        assert_eq!(some.prefixes(&locks, "a"), ["a:"]);
        assert_eq!(some.prefixes(&locks, "a:x"), ["a:x"]);
        assert!(some.prefixes(&locks, "c").is_empty());
        let nobody = Access::open().caller(None);
        assert!(!nobody.is_unbound() && !nobody.may_use(&locks, "a") && nobody.prefixes(&locks, "").is_empty());
    }

    #[test]
    fn lists_that_make_no_sense_are_refused_and_never_quoted() {
        let entry = |more: &str| format!(r#"[{{"name":"n","rights":["read"],{more}}}]"#);
        let hunter = r#""token":"hunter2-hunter2-hunter2""#;
        let texts = [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            r#"["hunter2-hunter2-hunter2"]"#.to_owned(),
            entry(r#""token":"hunter2""#),
            entry(r#""token":"hunter2 hunter2 hunter2""#),
            entry(r#""token_sha256":"hunter2""#),
            entry(r#""namespaces":[]"#),
            entry(&format!("{hunter},\"namespaces\":[]")),
            entry(&format!("{hunter},\"token_sha256\":\"{}\"", "0".repeat(64))),
            entry(&format!("{hunter},\"namespace\":[\"a:\"]")),
            entry(&format!("{hunter},\"namespaces\":[\"a:\",\"web\"]")),
            entry(hunter).replace("read", "hunter2"),
            entry(hunter).replace("\"read\"", ""),
            entry(hunter).replace("\"n\"", "\"\""),
            format!("[{0},{0}]", &entry(hunter)[1..entry(hunter).len() - 1]),
        ];
        for text in texts {
            let why = Access::from_json(&text).expect_err(&text).to_string();
            assert!(!why.contains("hunter"), "{why}");
        }
    }

    #[test]
    fn a_secret_and_its_digest_are_the_same_token() {
        let hex = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let text = format!(r#"[{{"name":"n","token_sha256":"{hex}","rights":["read"]}}]"#);
        let access = Access::from_json(&text).unwrap();
        assert_eq!(access.find(b"0123456789abcdef"), Some(0));
        assert_eq!(access.find(b"0123456789abcdeF"), None);
        for _ in 0..2 {
            assert_eq!(access.find_again(b"0123456789abcdef"), Some(0));
            assert_eq!(access.find_again(b"0123456789abcdeF"), None);
            assert_eq!(access.find_again(b"0123456789abcde"), None);
        }
        let other = text.replace(hex, &"0".repeat(64));
        assert_eq!(Access::from_json(&other).unwrap().find_again(b"0123456789abcdef"), None, "of another list");
        assert!(!format!("{access:?}").contains(&hex[..8]));
    }
}
