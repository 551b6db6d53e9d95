//! A client that was let in, and what is open to it.

use std::sync::Arc;

use super::access::Access;
use super::quota::{TokenUsage, UsageGuard};
use super::tokens::{Bearer, Right, without_inner};
use crate::http::problem::Fault;
use crate::{Account, LockManager, Token};

/// Somebody who was let in.
#[derive(Clone)]
pub(in crate::http) struct Caller {
    /// None: everything is open. No bearer: one who may see totals and no key.
    access: Option<(Arc<[Bearer]>, Option<usize>)>,
}

impl Caller {
    /// One of those to whom everything is open.
    pub(in crate::http) fn anybody() -> Self {
        Self { access: None }
    }

    pub(super) fn of(bearers: Arc<[Bearer]>, bearer: Option<usize>) -> Self {
        Self { access: Some((bearers, bearer)) }
    }

    fn usage(&self) -> Option<&TokenUsage> {
        self.bearer().map(|bearer| &*bearer.usage)
    }

    /// Whom its locks and sessions are charged to, if it is to be told from others.
    pub(in crate::http) fn account(&self) -> Option<&Account> {
        self.usage().map(|usage| &usage.account)
    }

    /// Counts one of its requests that wait: all that ask for this key with this token count as one.
    pub(in crate::http) fn count_waiter(&self, key: &str, token: Option<Token>) -> Result<Option<UsageGuard>, Fault> {
        self.usage().map(|usage| usage.count_waiter(key, token)).transpose()
    }

    /// Counts one of its streams of events.
    pub(in crate::http) fn count_stream(&self) -> Result<Option<UsageGuard>, Fault> {
        self.usage().map(TokenUsage::count_stream).transpose()
    }

    /// Whether the list of tokens is still the one that it was let in by.
    pub(in crate::http) fn is_current(&self, access: &Access) -> bool {
        self.access.as_ref().is_none_or(|(bearers, _)| Arc::ptr_eq(bearers, &access.bearers))
    }

    /// How logs call it.
    pub(in crate::http) fn name(&self) -> &str {
        self.token_name().unwrap_or("anonymous")
    }

    /// The name of its token, if it brings one.
    pub(in crate::http) fn token_name(&self) -> Option<&str> {
        self.bearer().map(|bearer| bearer.name.as_str())
    }

    /// All of them where no token is asked for.
    pub(in crate::http) fn rights(&self) -> &[Right] {
        match &self.access {
            None => &[Right::Acquire, Right::Read, Right::Force],
            Some(_) => self.bearer().map_or(&[], |bearer| &bearer.rights),
        }
    }

    fn bearer(&self) -> Option<&Bearer> {
        let (bearers, at) = self.access.as_ref()?;
        at.map(|at| &bearers[at])
    }

    /// The prefixes of the keys that are open to it; `None`: all keys are, by no token.
    pub(in crate::http) fn namespaces(&self) -> Option<&[String]> {
        self.access.as_ref()?;
        Some(self.bearer().map_or(&[][..], |bearer| &bearer.namespaces))
    }

    /// Whether every key is open to it, so that none need be looked at.
    pub(in crate::http) fn is_unbound(&self) -> bool {
        self.namespaces().is_none_or(|all| all.first().is_some_and(String::is_empty))
    }

    /// Whether this key, as the manager keeps it, is open to it.
    pub(in crate::http) fn may_use(&self, locks: &LockManager, key: &str) -> bool {
        let begins = |namespace: &String| key.starts_with(&*locks.canonical_prefix(namespace));
        self.namespaces().is_none_or(|all| all.iter().any(begins))
    }

    /// The names of the tokens whose keys are all open to it: what they do it may see. `None`: whoever does it.
    pub(in crate::http) fn tokens_within(&self, locks: &LockManager) -> Option<Vec<&str>> {
        let (bearers, _) = self.access.as_ref().filter(|_| !self.is_unbound())?;
        let is_open = |namespace: &String| self.may_use(locks, &locks.canonical_prefix(namespace));
        let within = bearers.iter().filter(|bearer| bearer.namespaces.iter().all(is_open));
        Some(within.map(|bearer| bearer.name.as_str()).collect())
    }

    /// The prefixes, as the manager keeps them, that make up what it may see of the keys with this one. No key has two
    /// of them.
    pub(in crate::http) fn prefixes(&self, locks: &LockManager, prefix: &str) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(namespaces: &str) -> Caller {
        let text = format!(r#"[{{"name":"n","token":"0123456789abcdef","rights":["read"]{namespaces}}}]"#);
        Caller::of(Access::from_json(&text).unwrap().bearers, Some(0))
    }

    #[test]
    fn one_sees_of_other_tokens_what_can_only_be_of_its_own_keys() {
        let token = |name: &str, namespaces: &str| {
            format!(r#"{{"name":"{name}","token":"{name}-0123456789abcdef","rights":["read"]{namespaces}}}"#)
        };
        let list = [
            token("own", r#","namespaces":["a:","b:"]"#),
            token("inner", r#","namespaces":["a:x:"]"#),
            token("wider", r#","namespaces":["a:","c:"]"#),
            token("all", ""),
        ];
        let bearers = Access::from_json(&format!("[{}]", list.join(","))).unwrap().bearers;
        let locks = LockManager::builder().build().unwrap();
        let seen =
            |at: usize| Caller::of(Arc::clone(&bearers), Some(at)).tokens_within(&locks).map(|names| names.join(" "));
        let seen: Vec<_> = (0..bearers.len()).map(seen).collect();
        let some = |names: &str| Some(names.to_owned());
        assert_eq!(seen, [some("own inner"), some("inner"), some("inner wider"), None]);
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
        assert_eq!((all.tokens_within(&locks), Caller::anybody().tokens_within(&locks)), (None, None));
        let nobody = Caller::of(Access::open().bearers, None);
        assert!(!nobody.is_unbound() && !nobody.may_use(&locks, "a") && nobody.prefixes(&locks, "").is_empty());
    }
}
