//! Who may do what: bearer tokens, each with rights and with the namespaces (prefixes of keys) in which they hold.
//!
//! Secrets are shown in no answer, log line or `Debug`; a token's name is what logs call it by.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use actix_web::dev::RequestHead;

use super::audit::{Refusal, Refusals};
use super::caller::Caller;
use super::client_addr::Proxies;
use super::quota::{Quotas, TokenUsage};
use super::rate_limit::RateLimit;
use super::same_site::AllowedHosts;
pub use super::tokens::AccessError;
use super::tokens::{Bearer, Right, find_again, read, secret};
use crate::Account;
use crate::http::problem::Fault;

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
    pub(super) bearers: Arc<[Bearer]>,
    open_stats: bool,
    per_second: Option<NonZeroU32>,
    /// Of those who bring no known token.
    anonymous_rate: Option<Arc<RateLimit>>,
    quotas: Quotas,
    proxies: Proxies,
    hosts: AllowedHosts,
    refusals: Arc<Refusals>,
}

/// What a request needs to be let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::http) enum Needs {
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
            bearer.usage = match self.bearers.iter().find(|before| before.name == bearer.name) {
                Some(before) => Arc::clone(&before.usage),
                None => Arc::new(TokenUsage::new(&bearer.name, self.per_second)),
            };
            bearer.usage.set_quotas(bearer.quotas.or(self.quotas));
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
            bearer.usage.set_quotas(bearer.quotas.or(quotas));
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
        self.anonymous_rate = Some(Arc::new(RateLimit::new(per_second)));
        self.per_second = Some(per_second);
        let with_rate = |bearer: &Bearer| {
            let usage = Arc::new(TokenUsage::new(&bearer.name, Some(per_second)));
            usage.set_quotas(bearer.quotas.or(self.quotas));
            Bearer { usage, ..bearer.clone() }
        };
        self.bearers = self.bearers.iter().map(with_rate).collect();
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

    /// The account of the token of this name: what locks of a server that starts anew are
    /// [charged to](crate::LockManager::take_over).
    #[must_use]
    pub fn account_of(&self, name: &str) -> Option<Account> {
        self.bearers.iter().find(|bearer| bearer.name == name).map(|bearer| bearer.usage.account.clone())
    }

    /// Lets a request in, or says why not.
    pub(in crate::http) fn admit(&self, head: &RequestHead, needs: Needs) -> Result<Caller, Fault> {
        if needs == Needs::Nothing {
            return Ok(Caller::anybody());
        }
        let bearers = &self.bearers;
        if bearers.is_empty() {
            self.hosts.check(head)?;
            if needs != Needs::GiveBack {
                self.count(head)?;
            }
            return Ok(Caller::anybody());
        }
        let given = secret(head);
        let Some(at) = given.and_then(|secret| find_again(&self.bearers, secret)) else {
            // Whoever guesses is slowed down like everybody else.
            self.count(head)?;
            return match (needs, given) {
                (Needs::Totals, None) if self.open_stats => Ok(Caller::of(Arc::clone(bearers), None)),
                (Needs::Name, None) => Ok(Caller::of(Arc::clone(bearers), None)),
                _ => Err(Fault::Unauthenticated { given: given.is_some() }),
            };
        };
        if needs != Needs::GiveBack {
            bearers[at].usage.count_request()?;
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

    pub(in crate::http) fn has_open_stats(&self) -> bool {
        self.open_stats
    }

    /// The address that a request came from.
    pub(in crate::http) fn client_addr(&self, head: &RequestHead) -> IpAddr {
        self.proxies.client_addr(head)
    }

    /// How logs call the token that a request brings.
    pub(in crate::http) fn name_of(&self, head: &RequestHead) -> String {
        match secret(head) {
            _ if self.bearers.is_empty() => "anonymous".to_owned(),
            None => "no token".to_owned(),
            Some(secret) => {
                let known = find_again(&self.bearers, secret).map(|at| self.bearers[at].name.clone());
                known.unwrap_or_else(|| "an unknown token".to_owned())
            }
        }
    }

    /// Logs a refusal.
    pub(in crate::http) fn log_refusal(&self, refusal: &Refusal<'_>) {
        self.refusals.log(refusal);
    }

    /// Refuses pages of other sites, where no token would.
    pub(in crate::http) fn check_site(&self, head: &RequestHead) -> Result<(), Fault> {
        if self.has_tokens() { Ok(()) } else { self.hosts.check(head) }
    }

    fn count(&self, head: &RequestHead) -> Result<(), Fault> {
        self.anonymous_rate.as_ref().map_or(Ok(()), |limit| limit.take(self.client_addr(head)))
    }
}

debug_of!(Access, |it| tokens: it.bearers.iter().map(|bearer| &bearer.name).collect::<Vec<_>>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::tokens::find;

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
