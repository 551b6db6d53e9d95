//! Where a key belongs: to which shard, and of which namespace.
//!
//! A namespace is a prefix of keys that metrics tell apart ([`Builder::namespaces`](crate::Builder::namespaces)). Each
//! has shards of its own, so whatever a shard counts is of one namespace, and nobody who counts has to look for it.
//! What is in none of them is in [`OTHER`], where all keys are if none are declared. Called by the engine.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use crate::key::Key;

/// The label of keys that are in no namespace.
pub(crate) const OTHER: &str = "other";
/// The most that can be declared: each multiplies the text of a scrape.
pub(crate) const MOST: usize = 32;
/// The most shards of all namespaces together.
const MOST_SHARDS: usize = 4096;

/// Finds the shard of a key.
#[derive(Clone, Debug)]
pub(crate) struct ShardRouter {
    hasher: foldhash::fast::RandomState,
    /// One less than the shards of each namespace, of which there are a power of two.
    mask: u32,
    /// In the order of their shards, after those of `OTHER`.
    namespaces: Arc<[Namespace]>,
}

#[derive(Clone, Debug)]
struct Namespace {
    /// As declared; the label.
    #[cfg(feature = "metrics")]
    declared: Box<str>,
    /// As the manager keeps keys.
    prefix: Box<str>,
}

/// How many shards a namespace has if it is one of so many, `OTHER` counted.
pub(crate) fn shards_each(wanted: usize, namespaces: usize) -> usize {
    let fair = MOST_SHARDS / namespaces;
    wanted.min(1 << fair.max(1).ilog2())
}

/// What is wrong with the prefixes, if anything is.
pub(crate) fn fault(declared: &[Box<str>]) -> Option<&'static str> {
    if declared.len() > MOST {
        return Some("there may be at most 32");
    }
    let twice = |at: usize| declared[..at].contains(&declared[at]);
    if (0..declared.len()).any(twice) {
        return Some("each must be declared once");
    }
    let bad = |prefix: &str| prefix == OTHER || Key::new(prefix).is_err();
    declared.iter().any(|prefix| bad(prefix)).then_some("each must be the beginning of a key, and not `other`")
}

impl ShardRouter {
    /// `keep` spells a prefix as the manager keeps keys.
    pub(crate) fn new(shards_each: usize, declared: &[Box<str>], keep: impl Fn(&str) -> Box<str>) -> Self {
        let namespace = |declared: &str| Namespace {
            #[cfg(feature = "metrics")]
            declared: declared.into(),
            prefix: keep(declared),
        };
        Self {
            hasher: foldhash::fast::RandomState::default(),
            mask: shards_each as u32 - 1,
            namespaces: declared.iter().map(|declared| namespace(declared)).collect(),
        }
    }

    /// A key's shard and its hash there.
    #[inline(always)]
    pub(crate) fn of(&self, key: &Key) -> (u32, u32) {
        let hash = self.hasher.hash_one(key);
        // The shard from the high half, the slot from the low one: they must not depend on each other.
        let shard = (hash >> 32) as u32 & self.mask;
        let shard = if self.namespaces.is_empty() { shard } else { self.first_of(key) + shard };
        (shard, hash as u32)
    }

    /// The first shard of a key's namespace: the longest that it begins with.
    #[inline(never)]
    fn first_of(&self, key: &Key) -> u32 {
        let begins = |(_, namespace): &(usize, &Namespace)| key.as_bytes().starts_with(namespace.prefix.as_bytes());
        let found = self.namespaces.iter().enumerate().filter(begins);
        let longest = found.max_by_key(|(_, namespace)| namespace.prefix.len());
        longest.map_or(0, |(at, _)| (at as u32 + 1) * self.each())
    }

    fn each(&self) -> u32 {
        self.mask + 1
    }

    /// Somewhere in `OTHER`, for what is no key.
    pub(crate) fn of_number(&self, number: u32) -> u32 {
        number & self.mask
    }

    /// How many shards there are in all.
    pub(crate) fn shards(&self) -> usize {
        self.each() as usize * (self.namespaces.len() + 1)
    }

    /// The shards of the keys with a prefix, if that is empty or declared; else they are among others.
    pub(crate) fn shards_of(&self, prefix: &str) -> Option<Vec<Range<usize>>> {
        let each = self.each() as usize;
        if prefix.is_empty() {
            return Some(std::iter::once(0..self.shards()).collect());
        }
        let within = self.namespaces.iter().enumerate().filter(|(_, namespace)| namespace.prefix.starts_with(prefix));
        let shards = within.map(|(at, _)| (at + 1) * each..(at + 2) * each).collect();
        self.namespaces.iter().any(|namespace| *namespace.prefix == *prefix).then_some(shards)
    }

    /// The labels of all namespaces, `OTHER` first, and which shards are theirs.
    #[cfg(feature = "metrics")]
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        let labels = std::iter::once(OTHER).chain(self.namespaces.iter().map(|namespace| &*namespace.declared));
        let each = self.each() as usize;
        labels.enumerate().map(move |(at, label)| (label, at * each..(at + 1) * each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn a_key_belongs_to_the_longest_prefix_and_keeps_its_shard_there() {
        let declared = boxed(&["a:", "a:b:", "c"]);
        let router = ShardRouter::new(4, &declared, |prefix| prefix.into());
        assert_eq!(router.shards(), 16);
        for (key, namespace) in [("x", 0), ("a", 0), ("a:1", 1), ("a:b", 1), ("a:b:1", 2), ("c", 3), ("cc", 3)] {
            let (shard, hash) = router.of(&Key::new(key).unwrap());
            assert_eq!(shard / 4, namespace, "{key}");
            assert_eq!(router.of(&Key::new(key).unwrap()), (shard, hash));
        }
    }

    #[test]
    fn a_declared_prefix_has_its_shards_and_those_within_it() {
        let router = ShardRouter::new(4, &boxed(&["a:", "a:b:", "c"]), |prefix| prefix.into());
        assert_eq!(router.shards_of("a:"), Some(vec![4..8, 8..12]));
        assert_eq!(router.shards_of("a:b:"), Some(std::iter::once(8..12).collect()));
        assert_eq!(router.shards_of(""), Some(std::iter::once(0..16).collect()));
        for undeclared in ["a", "a:b", "cc", "d"] {
            assert_eq!(router.shards_of(undeclared), None, "{undeclared}");
        }
    }

    #[test]
    fn prefixes_that_could_not_be_told_apart_or_are_too_many_are_refused() {
        assert_eq!(fault(&boxed(&["a", "b"])), None);
        for wrong in [&[""][..], &["a", "a"], &["other"], &["a\n"]] {
            assert!(fault(&boxed(wrong)).is_some(), "{wrong:?}");
        }
        let many: Vec<Box<str>> = (0..=MOST).map(|n| n.to_string().into()).collect();
        assert!(fault(&many).is_some() && fault(&many[1..]).is_none());
    }

    #[test]
    fn many_namespaces_share_what_shards_there_may_be() {
        assert_eq!((shards_each(64, 1), shards_each(1024, 1)), (64, 1024));
        assert_eq!((shards_each(64, 33), shards_each(1024, 33), shards_each(1024, 3)), (64, 64, 1024));
    }
}
