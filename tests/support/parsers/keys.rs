//! Keys, templates, and the names that they make in a store. The first line is a template, the rest a key.

use std::hash::BuildHasher;

use leasehold::store::redis::probe::{names_of, slot_of};
use leasehold::store::{KeyTemplate, StoreError};
use leasehold::{Key, KeyFault};

pub(super) fn hold(data: &[u8]) {
    let Some((template, text)) = super::split_line(data) else { return };
    let template = templates(template);
    let Some(key) = key(text) else { return };
    order(&key, template.as_ref().map_or("a", |(text, _)| text));
    for template in [template.map(|(_, template)| template), Some(KeyTemplate::default())].into_iter().flatten() {
        names(&template, &key);
    }
}

/// A key is what its rules say, and reads as it was written.
fn key(text: &str) -> Option<Key> {
    let control = text.char_indices().find(|(_, c)| c.is_control()).map(|(at, _)| at);
    let fault = match (text.len(), control) {
        (0, _) => Some(KeyFault::Empty),
        (bytes @ 1025.., _) => Some(KeyFault::TooLong { bytes, max: Key::MAX_BYTES }),
        (_, Some(at)) => Some(KeyFault::ControlCharacter { at }),
        _ => None,
    };
    match Key::new(text) {
        Ok(key) => {
            assert_eq!(fault, None, "{text:?}");
            assert_eq!((key.as_str(), key.to_string().as_str()), (text, text));
            Some(key)
        }
        Err(why) => {
            assert_eq!(Some(why), fault, "{text:?}");
            super::is_plain(&why.to_string());
            None
        }
    }
}

/// Two keys compare and hash as their texts do.
fn order(key: &Key, other: &str) {
    let Ok(other_key) = Key::new(other) else { return };
    let hasher = std::hash::RandomState::new();
    assert_eq!(key.cmp(&other_key), key.as_str().cmp(other));
    assert_eq!(key == &other_key, key.as_str() == other);
    assert_eq!(hasher.hash_one(key) == hasher.hash_one(&other_key), key == &other_key);
}

fn templates(text: &str) -> Option<(&str, KeyTemplate)> {
    let holes = text.matches("{key}").count();
    let good = holes == 1 && text.len() <= 256 && !text.chars().any(char::is_control);
    match KeyTemplate::new(text) {
        Ok(template) => {
            assert!(good, "{text:?}");
            assert_eq!(template.fill("\u{1}"), text.replace("{key}", "\u{1}"));
            Some((text, template))
        }
        Err(why) => {
            assert!(!good, "{text:?}");
            super::is_plain(&why.to_string());
            None
        }
    }
}

/// All names of a lock differ, and lie in the slot that the specification gives to its own.
fn names(template: &KeyTemplate, key: &Key) {
    let lock = template.fill(key.as_str());
    assert_eq!(template.fill(&lock), lock, "two spellings of one lock");
    let names = match names_of(template, key) {
        Ok(names) => names,
        Err(StoreError::InvalidKey { .. }) => return assert!(lock.starts_with("leasehold:"), "{lock:?}"),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(names[0], lock);
    for (at, name) in names.iter().enumerate() {
        assert_eq!(slot_of(name.as_bytes()), slot(lock.as_bytes()), "{name:?}");
        assert!(at == 0 || name.starts_with("leasehold:"), "{name:?}");
        assert!(!names[..at].contains(name), "{name:?} twice");
    }
}

/// The slot of a name, as the specification of Redis Cluster has it, a bit at a time.
fn slot(name: &[u8]) -> u16 {
    let tag = || {
        let open = name.iter().position(|byte| *byte == b'{')?;
        let close = name[open + 1..].iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &name[open + 1..open + 1 + close])
    };
    let crc = tag().unwrap_or(name).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    crc % 16384
}
