//! Bearer tokens: read from a list, and found again by the secrets that requests bring.
//!
//! Secrets are kept as SHA-256 digests (but for the one that a thread was shown last) and compared in constant time,
//! all of them each time.

use std::cell::RefCell;
use std::sync::Arc;

use actix_web::dev::RequestHead;
use actix_web::http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use utoipa::ToSchema;

use super::quota::{Quotas, TokenUsage};
use crate::http::number::bytes_of_hex;

/// A shorter secret could be guessed.
const SHORTEST_SECRET: usize = 16;
/// What stands before a secret.
const SCHEME: &[u8] = b"bearer ";

/// The SHA-256 of a secret, in words: they are compared faster than bytes.
type Fingerprint = [u64; 4];

fn fingerprint(digest: [u8; 32]) -> Fingerprint {
    let (words, _) = digest.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// What a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Right {
    Acquire,
    Read,
    Force,
}

/// One token.
#[derive(Clone)]
pub(in crate::http) struct Bearer {
    pub(in crate::http) name: String,
    pub(in crate::http) digest: Fingerprint,
    pub(in crate::http) rights: Vec<Right>,
    /// None of them is a prefix of another.
    pub(in crate::http) namespaces: Vec<String>,
    /// Its own.
    pub(in crate::http) quotas: Quotas,
    pub(in crate::http) usage: Arc<TokenUsage>,
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
pub struct AccessError(pub(in crate::http) String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    pub(in crate::http) name: String,
    token: Option<String>,
    token_sha256: Option<String>,
    pub(in crate::http) rights: Vec<Right>,
    namespaces: Option<Vec<String>>,
    max_locks: Option<u32>,
    max_sessions: Option<u32>,
    max_waiters: Option<u32>,
    max_streams: Option<u32>,
}

/// The tokens of a list.
pub(in crate::http) fn read(text: &str) -> Result<Vec<Bearer>, AccessError> {
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
        if let Some(other) = bearers.iter().find(|other| other.name == bearer.name || other.digest == bearer.digest) {
            let names = (&other.name, &bearer.name);
            return Err(AccessError(format!("{names:?}: two entries have the same name or the same token")));
        }
        bearers.push(bearer);
    }
    Ok(bearers)
}

/// [`find`], which most often is asked for what it was asked for just before. That is compared in constant time too: how
/// long it takes tells no more of the last token than its length.
pub(in crate::http) fn find_again(bearers: &Arc<[Bearer]>, secret: &[u8]) -> Option<usize> {
    thread_local! {
        static LAST: RefCell<Option<LastFound>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if let Some(last) = last
            && Arc::ptr_eq(&last.among, bearers)
            && is_same(&last.secret, secret)
        {
            return Some(last.at);
        }
        let at = find(bearers, secret)?;
        *last = Some(LastFound { among: Arc::clone(bearers), secret: secret.into(), at });
        Some(at)
    })
}

/// Whether two secrets are the same, in a time that tells no more of them than their lengths. Compared by words: by bytes
/// it takes five times as long.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let same_word = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*one).ct_eq(&u64::from_ne_bytes(*other));
    let words_are = words.iter().zip(other_words).map(same_word).fold(Choice::from(1), |all, same| all & same);
    one.len() == other.len() && bool::from(words_are & rest.ct_eq(other_rest))
}

/// Which token has this secret. Looks at all of them, whatever it finds.
pub(in crate::http) fn find(bearers: &[Bearer], secret: &[u8]) -> Option<usize> {
    let digest = fingerprint(Sha256::digest(secret).into());
    let same = |(at, bearer): (usize, &Bearer)| bool::from(bearer.digest.ct_eq(&digest)).then_some(at);
    bearers.iter().enumerate().map(same).fold(None, |found, at| found.or(at))
}

/// The secret that a request brings.
pub(in crate::http) fn secret(head: &RequestHead) -> Option<&[u8]> {
    let (scheme, secret) = head.headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| secret.trim_ascii())
}

impl Bearer {
    fn read(written: Written) -> Result<Self, AccessError> {
        let Written { name, token, token_sha256, rights, namespaces, .. } = written;
        let quotas = Quotas {
            locks: written.max_locks,
            sessions: written.max_sessions,
            waiters: written.max_waiters,
            streams: written.max_streams,
        };
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
            (None, Some(hex)) => match bytes_of_hex(&hex).and_then(|digest| digest.try_into().ok()) {
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
        let usage = Arc::new(TokenUsage::new(&name, None));
        Ok(Self { name, digest, rights, namespaces: all, quotas, usage })
    }
}

/// Leaves out those prefixes that begin with another.
pub(in crate::http) fn without_inner(prefixes: &mut Vec<String>) {
    prefixes.sort_unstable();
    // In order, each comes behind what it begins with, and only such are in between.
    prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
}
