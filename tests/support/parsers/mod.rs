//! What must hold of every parser, whatever it is fed: one function for each, which takes any bytes and panics when
//! something does not hold.
//!
//! Two feed them: `tests/house/corpora.rs` with the kept corpora, in every run of the tests, and libFuzzer with what it makes
//! up (`fuzz/`). Secrets are told by a mark, [`SECRET`]: where the input has it in the place of a password or token, no
//! message may.

mod answers;
mod bodies;
mod durations;
mod fences;
mod grant_tokens;
mod headers;
mod keys;
mod printed;
mod redis_replies;
mod routes;
mod settings;
mod stores;
mod token_files;
mod urls;

/// A property, by the name of its fuzz target and corpus.
pub(crate) type Property = (&'static str, fn(&[u8]));

pub(crate) const ALL: [Property; 12] = [
    ("bodies", bodies::hold),
    ("durations", durations::hold),
    ("fences", fences::hold),
    ("grant_tokens", grant_tokens::hold),
    ("headers", headers::hold),
    ("keys", keys::hold),
    ("printed", printed::hold),
    ("redis_replies", redis_replies::hold),
    ("settings", settings::hold),
    ("stores", stores::hold),
    ("token_files", token_files::hold),
    ("urls", urls::hold),
];

/// Holds the parser of this name to what must hold.
#[allow(dead_code, reason = "the fuzz targets call it")]
pub(crate) fn hold(name: &str, data: &[u8]) {
    let property = ALL.iter().find(|property| property.0 == name);
    (property.expect("there is a property of this name").1)(data);
}

/// What a secret has in it, and nothing else.
const SECRET: &str = "hunter2";

/// A message that people read: there, in one line, without the secret.
fn is_plain(message: &str) {
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "no line: {message:?}");
    assert!(!message.contains(SECRET), "it tells a secret: {message:?}");
}

/// Text and the line before it.
fn split_line(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\n')
}
