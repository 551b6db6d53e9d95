//! The names in Redis that belong to one lock: [`KeyNames`].
//!
//! The lock key is what other libraries see. Beside it, in the same cluster slot, stand its fence, its queue (a
//! sorted set: which ticket was taken when; a hash: what each is worth), those who share it (`ops/shared`), what a release has left (`ops/value`) and its channel. Their names begin with a
//! prefix ([`SIDE_KEYS`] unless the store is set to another), as no lock's may. They hold the lock's name in braces, and
//! so its slot; where that would not work, because the
//! name holds braces itself, they hold a short tag of the same slot, from a table that is built when it is first needed.

use std::borrow::Borrow;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::key::Key;
use crate::store::{KeyTemplate, StoreError};

/// What the names beside a lock begin with, unless the store is set to another prefix.
pub(in crate::store) const SIDE_KEYS: &str = "leasehold:";
pub(super) const SLOTS: u16 = 16384;
/// The kind that the names of fences have.
const FENCE: &str = "fence:";

/// One lock's names, in one piece of memory that clones share. Within a store the lock's own stands for them all.
#[derive(Clone)]
pub(in crate::store) struct KeyNames {
    text: Arc<str>,
    ends: [u16; 4],
    slot: u16,
}

impl KeyNames {
    /// The names of the lock that `template` makes of `key`; those beside it begin with `side_keys`.
    pub(in crate::store) fn new(template: &KeyTemplate, side_keys: &str, key: &Key) -> Result<Self, StoreError> {
        check_name(template, side_keys, key)?;
        let mut text = String::with_capacity(5 * key.as_str().len() + 128);
        template.fill_into(key.as_str(), &mut text);
        let lock = text.len();
        let (mut ends, mut tagged) = ([0; 4], None);
        for (end, kind) in ends.iter_mut().zip([FENCE, "queue:", "tickets:", "wake:"]) {
            // A key has 1024 bytes at most, a template 256, a prefix 64, and there are five names.
            *end = u16::try_from(text.len()).expect("five names are shorter than 64 KiB");
            text.push_str(side_keys);
            text.push_str(kind);
            // They end alike.
            match tagged.clone() {
                Some(same) => text.extend_from_within(same),
                None => tagged = Some(push_tagged(&mut text, lock)),
            }
        }
        let slot = slot_of(&text.as_bytes()[..lock]);
        Ok(Self { text: text.into(), ends, slot })
    }

    /// A name that no lock has, in the slot that it has by itself.
    pub(super) fn alone(name: &str) -> Self {
        // Made of a prefix and a template: less than a kilobyte.
        let end = u16::try_from(name.len()).expect("the name is short");
        Self { text: name.into(), ends: [end; 4], slot: slot_of(name.as_bytes()) }
    }

    fn part(&self, at: usize) -> &str {
        let from = if at == 0 { 0 } else { usize::from(self.ends[at - 1]) };
        let to = self.ends.get(at).map_or(self.text.len(), |end| usize::from(*end));
        &self.text[from..to]
    }

    pub(in crate::store) fn lock(&self) -> &str {
        self.part(0)
    }

    pub(in crate::store) fn fence(&self) -> &str {
        self.part(1)
    }

    pub(in crate::store) fn queue(&self) -> &str {
        self.part(2)
    }

    pub(super) fn tickets(&self) -> &str {
        self.part(3)
    }

    /// The channel of those who watch the lock without a place in its queue.
    pub(in crate::store) fn wake(&self) -> &str {
        self.part(4)
    }

    /// The name of something else that stands beside the lock, where those names begin with `side_keys`.
    pub(super) fn beside(&self, side_keys: &str, kind: &str) -> String {
        // They end alike.
        let tagged = &self.fence()[side_keys.len() + FENCE.len()..];
        [side_keys, kind, tagged].concat()
    }

    pub(super) fn slot(&self) -> u16 {
        self.slot
    }
}

/// Whether a lock may have the name that `template` makes of `key`.
pub(in crate::store) fn check_name(template: &KeyTemplate, side_keys: &str, key: &Key) -> Result<(), StoreError> {
    if template.name_begins_with(key.as_str(), side_keys) {
        let why = "its name begins with the prefix of what stands beside locks (`leasehold:` unless it is set)";
        return Err(StoreError::InvalidKey { key: key.clone(), why });
    }
    Ok(())
}

impl PartialEq for KeyNames {
    fn eq(&self, other: &Self) -> bool {
        self.lock() == other.lock()
    }
}

impl Eq for KeyNames {}

impl Hash for KeyNames {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lock().hash(state);
    }
}

impl Borrow<str> for KeyNames {
    fn borrow(&self) -> &str {
        self.lock()
    }
}

/// The name of something that is kept beside `name`, in its slot.
pub(crate) fn beside(kind: &str, name: &str) -> String {
    let mut text = String::with_capacity(2 * name.len() + kind.len() + SIDE_KEYS.len() + 2);
    text.push_str(name);
    text.push_str(SIDE_KEYS);
    text.push_str(kind);
    push_tagged(&mut text, name.len());
    text.split_off(name.len())
}

/// Appends the name that `text` begins with, so that the whole has the slot of that name. Answers where it stands.
fn push_tagged(text: &mut String, lock: usize) -> Range<usize> {
    let from = text.len();
    let name = &text[..lock];
    let (before, after) = match (name.contains('}'), hash_tag(name.as_bytes()).len() == name.len()) {
        // Without a closing brace the whole name can be the tag.
        (false, _) => ("{", "}"),
        // It has a tag of its own, and it stands first in a name that goes on with it.
        (true, false) => ("", ""),
        (true, true) => {
            let tag = tags()[usize::from(slot_of(name.as_bytes()))];
            // Writing to a string cannot fail.
            let _ = write!(text, "{{{tag}}}");
            ("", "")
        }
    };
    text.push_str(before);
    text.extend_from_within(..lock);
    text.push_str(after);
    from..text.len()
}

/// The part of a name that decides its slot.
fn hash_tag(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|byte| *byte == b'{') else { return name };
    let rest = &name[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => name,
        Some(close) => &rest[..close],
    }
}

pub(super) fn slot_of(name: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(hash_tag(name)) % SLOTS
}

/// A number for each slot whose digits have that slot. Takes some milliseconds to build.
fn tags() -> &'static [u32] {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    TAGS.get_or_init(|| {
        let mut tags = vec![None; usize::from(SLOTS)];
        let mut missing = tags.len();
        let mut digits = String::new();
        for number in 0_u32.. {
            digits.clear();
            let _ = write!(digits, "{number}");
            let tag = &mut tags[usize::from(slot_of(digits.as_bytes()))];
            if tag.is_none() {
                *tag = Some(number);
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        tags.into_iter().flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(template: &KeyTemplate, key: &str) -> KeyNames {
        KeyNames::new(template, SIDE_KEYS, &Key::new(key).unwrap()).unwrap()
    }

    #[test]
    fn a_locks_names_differ_and_lie_in_its_slot_whatever_braces_it_has() {
        let keys = ["a", "foo}bar", "{user}:1", "{}x", "a{b", "a{b}c}", "}", "{", "{}", "}{", "x{}y{z}", "ü{日}本"];
        let mut seen = std::collections::HashSet::new();
        for template in [KeyTemplate::default(), KeyTemplate::bare(), KeyTemplate::new("{t}{key}").unwrap()] {
            for key in keys {
                let names = names(&template, key);
                assert_eq!(names.lock(), template.fill(key));
                let further = ["ends:", "holds:"].map(|kind| names.beside(SIDE_KEYS, kind));
                let [ends, holds] = further.each_ref().map(String::as_str);
                for name in [names.fence(), names.queue(), names.tickets(), names.wake(), ends, holds] {
                    assert_eq!(slot_of(name.as_bytes()), names.slot(), "{name}");
                    assert!(seen.insert(name.to_owned()), "{name} twice");
                }
            }
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16::State::<crc16::XMODEM>::calculate(b"foo{}{bar}") % SLOTS);
        assert_eq!(tags().len(), usize::from(SLOTS));
    }

    #[test]
    fn no_lock_may_have_a_name_that_stands_beside_another() {
        let beside = names(&KeyTemplate::bare(), "a").fence().to_owned();
        let key = Key::new(beside).unwrap();
        let refused = KeyNames::new(&KeyTemplate::bare(), SIDE_KEYS, &key);
        assert!(matches!(refused, Err(StoreError::InvalidKey { .. })));
        let elsewhere = KeyNames::new(&KeyTemplate::bare(), "app:locks:", &key).unwrap();
        assert!(elsewhere.fence().starts_with("app:locks:fence:") && elsewhere.wake().starts_with("app:locks:wake:"));
        assert!(KeyNames::new(&KeyTemplate::bare(), "app:locks:", &Key::new("app:locks:x").unwrap()).is_err());
    }
}
