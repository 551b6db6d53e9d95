//! The list of bearer tokens, as `--tokens-file` has it.

use leasehold::http::Access;
use serde_json::Value;

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let written: Option<Vec<Value>> = serde_json::from_str(text).ok();
    let named =
        written.iter().flatten().any(|entry| entry["name"].as_str().is_some_and(|name| name.contains(super::SECRET)));
    match Access::from_json(text) {
        Ok(access) => {
            let entries = written.expect("a list");
            assert!(access.has_tokens() && !entries.is_empty());
            for (at, entry) in entries.iter().enumerate() {
                assert_eq!(entry["token"].is_string(), !entry["token_sha256"].is_string(), "{entry}");
                assert!(entry["rights"].as_array().is_some_and(|rights| !rights.is_empty()), "{entry}");
                assert!(entry["token"].as_str().is_none_or(|token| token.len() >= 16), "{entry}");
                assert!(entries[..at].iter().all(|other| other["name"] != entry["name"]), "{entry} twice");
            }
            assert!(named || !format!("{access:?}").contains(super::SECRET), "it shows a secret");
        }
        Err(why) => {
            let why = why.to_string();
            assert!(!why.is_empty() && !why.chars().any(char::is_control), "no line: {why:?}");
            assert!(named || !why.contains(super::SECRET), "it tells a secret: {why:?}");
        }
    }
}
