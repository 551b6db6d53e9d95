//! Who may do what: bearer tokens, each with rights and with the namespaces (prefixes of keys) in which they hold.
//!
//! Secrets are shown in no answer, log line or `Debug`; a token's name is what logs call it by.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use actix_web::HttpRequest;

use super::audit::{Refusal, Refusals};
pub use super::bearer::AccessError;
pub(super) use super::bearer::Right;
use super::bearer::{Bearer, find_again, read, secret, without_inner};
use super::client_addr::Proxies;
use super::problem::Fault;
use super::quota::{Quotas, Seat, Standing};
use super::rate_limit::RateLimit;
use super::same_site::AllowedHosts;
use super::views::Whoami;
use crate::{Account, LockManager, Token};

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
/// `max_locks`, `max_sessions`, `max_waiters` and `max_streams` bound what the token may have at once, in place of the
/// [`quotas`](Self::quotas) for all.
///
/// Without `namespaces` a token is good for every key. `/healthz`, `/readyz`, `/openapi.json`,
/// `/docs` and the status page need none; what the page shows does.
#[derive(Clone, Default)]
#[must_use]
pub struct Access {
    /// None: everybody may do everything.
    bearers: Arc<[Bearer]>,
    open_stats: bool,
    per_second: Option<NonZeroU32>,
    /// Of those who bring no known token.
    pace: Option<Arc<RateLimit>>,
    quotas: Quotas,
    proxies: Proxies,
    hosts: AllowedHosts,
    refusals: Arc<Refusals>,
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
        Self::default().with_tokens(text)
    }

    /// The same terms for other tokens, read as by [`from_json`](Self::from_json). A token that has the same name in both
    /// lists keeps its sessions, and what it has counts against its new quotas.
    ///
    /// # Errors
    /// As for `from_json`.
    pub fn with_tokens(&self, text: &str) -> Result<Self, AccessError> {
        let mut bearers = read(text)?;
        for bearer in &mut bearers {
            bearer.standing = match self.bearers.iter().find(|before| before.name == bearer.name) {
                Some(before) => Arc::clone(&before.standing),
                None => Arc::new(Standing::new(&bearer.name, self.per_second)),
            };
            bearer.standing.bound(bearer.quotas.or(self.quotas));
        }
        Ok(Self { bearers: bearers.into(), ..self.clone() })
    }

    /// How many tokens there are.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.bearers.len()
    }

    /// What a token may have at once unless its entry says otherwise.
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        for bearer in self.bearers.iter() {
            bearer.standing.bound(bearer.quotas.or(quotas));
        }
        self
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
        self.pace = Some(Arc::new(RateLimit::new(per_second)));
        self.per_second = Some(per_second);
        let with_pace = |bearer: &Bearer| {
            let standing = Arc::new(Standing::new(&bearer.name, Some(per_second)));
            standing.bound(bearer.quotas.or(self.quotas));
            Bearer { standing, ..bearer.clone() }
        };
        self.bearers = self.bearers.iter().map(with_pace).collect();
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
        self.tokens() > 0
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(&self, req: &HttpRequest, needs: Needs) -> Result<Caller, Fault> {
        if needs == Needs::Nothing {
            return Ok(Caller::anybody());
        }
        let bearers = &self.bearers;
        if bearers.is_empty() {
            self.hosts.check(req)?;
            if needs != Needs::GiveBack {
                self.count(req)?;
            }
            return Ok(Caller::anybody());
        }
        let given = secret(req);
        let Some(at) = given.and_then(|secret| find_again(&self.bearers, secret)) else {
            // Whoever guesses is slowed down like everybody else.
            self.count(req)?;
            return match (needs, given) {
                (Needs::Totals, None) if self.open_stats => Ok(Caller::of(Arc::clone(bearers), None)),
                (Needs::Name, None) => Ok(Caller::of(Arc::clone(bearers), None)),
                _ => Err(Fault::Unauthenticated { given: given.is_some() }),
            };
        };
        if needs != Needs::GiveBack {
            bearers[at].standing.come()?;
        }
        let right = match needs {
            Needs::Nothing | Needs::Name => None,
            Needs::Totals if self.open_stats => None,
            Needs::Totals | Needs::Read => Some(Right::Read),
            Needs::Acquire | Needs::GiveBack => Some(Right::Acquire),
            Needs::Force => Some(Right::Force),
        };
        if right.is_some_and(|right| !bearers[at].rights.contains(&right)) {
            return Err(Fault::Forbidden { why: "the token does not have the right to do this" });
        }
        Ok(Caller::of(Arc::clone(bearers), Some(at)))
    }

    /// The namespaces that the tokens are bound to: a manager that is [given](crate::Builder::namespaces) them counts each
    /// for itself, so that their tokens see totals of their own.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let mut all: Vec<_> = self.bearers.iter().flat_map(|bearer| &bearer.namespaces).cloned().collect();
        all.retain(|namespace| !namespace.is_empty());
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn has_open_stats(&self) -> bool {
        self.open_stats
    }

    /// The address that a request came from.
    pub(super) fn origin(&self, req: &HttpRequest) -> IpAddr {
        self.proxies.origin(req)
    }

    /// How logs call the token that a request brings.
    pub(super) fn name_of(&self, req: &HttpRequest) -> String {
        match secret(req) {
            _ if self.bearers.is_empty() => "anonymous".to_owned(),
            None => "no token".to_owned(),
            Some(secret) => {
                let known = find_again(&self.bearers, secret).map(|at| self.bearers[at].name.clone());
                known.unwrap_or_else(|| "an unknown token".to_owned())
            }
        }
    }

    /// Writes down who was refused.
    pub(super) fn note(&self, refusal: &Refusal<'_>) {
        self.refusals.note(refusal);
    }

    /// Refuses pages of other sites, where no token would.
    pub(super) fn check_site(&self, req: &HttpRequest) -> Result<(), Fault> {
        if self.has_tokens() { Ok(()) } else { self.hosts.check(req) }
    }

    fn count(&self, req: &HttpRequest) -> Result<(), Fault> {
        self.pace.as_ref().map_or(Ok(()), |pace| pace.take(self.proxies.origin(req)))
    }
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

    fn of(bearers: Arc<[Bearer]>, bearer: Option<usize>) -> Self {
        Self { access: Some((bearers, bearer)) }
    }

    fn standing(&self) -> Option<&Standing> {
        let (bearers, at) = self.access.as_ref()?;
        at.map(|at| &*bearers[at].standing)
    }

    /// Whom its locks and sessions are charged to, if it is to be told from others.
    pub(super) fn account(&self) -> Option<&Account> {
        self.standing().map(|standing| &standing.account)
    }

    /// A seat among those of its requests that wait: one for all that ask for this key with this token.
    pub(super) fn wait(&self, key: &str, token: Option<Token>) -> Result<Option<Seat>, Fault> {
        self.standing().map(|standing| standing.wait(key, token)).transpose()
    }

    /// A seat among its streams of events.
    pub(super) fn listen(&self) -> Result<Option<Seat>, Fault> {
        self.standing().map(Standing::listen).transpose()
    }

    /// Whether the list of tokens is still the one that it was let in by.
    pub(super) fn is_current(&self, access: &Access) -> bool {
        self.access.as_ref().is_none_or(|(bearers, _)| Arc::ptr_eq(bearers, &access.bearers))
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
    use crate::http::bearer::find;

    fn caller(namespaces: &str) -> Caller {
        let text = format!(r#"[{{"name":"n","token":"0123456789abcdef","rights":["read"]{namespaces}}}]"#);
        Caller::of(Access::from_json(&text).unwrap().bearers, Some(0))
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
        let nobody = Caller::of(Access::open().bearers, None);
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
        let bearers = Arc::clone(&access.bearers);
        assert_eq!(find(&bearers, b"0123456789abcdef"), Some(0));
        assert_eq!(find(&bearers, b"0123456789abcdeF"), None);
        for _ in 0..2 {
            assert_eq!(find_again(&bearers, b"0123456789abcdef"), Some(0));
            assert_eq!(find_again(&bearers, b"0123456789abcdeF"), None);
            assert_eq!(find_again(&bearers, b"0123456789abcde"), None);
        }
        let other = text.replace(hex, &"0".repeat(64));
        assert_eq!(
            find_again(&Access::from_json(&other).unwrap().bearers, b"0123456789abcdef"),
            None,
            "of another list"
        );
        assert!(!format!("{access:?}").contains(&hex[..8]));
    }
}
