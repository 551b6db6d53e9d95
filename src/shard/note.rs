//! What a store that outlives its process keeps beside a lock, so that the next process can say whose it is (S20).
//!
//! Of a lock that a client has the token of, and of no other: a guard ends with its process. The bytes begin with the number
//! of their form; what is of another form, or broken off, is read as no note.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Shard;
use crate::table::{Grant, Terms};

/// The number of this form.
const FORM: u8 = 1;

/// On what terms a lock was asked for, beside its key, token and mode.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Note {
    /// The TTL that it was asked for with; of a session's lock, what the store keeps it for.
    pub(crate) ttl: Duration,
    /// Who holds it, for people who look.
    pub(crate) owner: Option<Arc<str>>,
    /// Whom it is charged to.
    pub(crate) account: Option<Arc<str>>,
    /// The session that it is a lock of, if that is found by its id.
    pub(crate) session: Option<NotedSession>,
}

/// A session, as the note of each of its locks has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotedSession {
    pub(crate) id: Uuid,
    pub(crate) name: Arc<str>,
    pub(crate) ttl: Duration,
}

impl Note {
    fn of(terms: &Terms) -> Self {
        let session = terms.session().and_then(|session| {
            let ttl = session.ttl()?.as_duration();
            Some(NotedSession { id: session.known_as()?, name: session.label(), ttl })
        });
        Self {
            ttl: terms.ttl.as_duration(),
            owner: terms.owner_label().cloned(),
            account: terms.account().map(|account| account.name().into()),
            session,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        put_span(&mut bytes, self.ttl);
        put_text(&mut bytes, self.owner.as_deref());
        put_text(&mut bytes, self.account.as_deref());
        if let Some(NotedSession { id, name, ttl }) = &self.session {
            bytes.extend(id.as_bytes());
            put_span(&mut bytes, *ttl);
            put_text(&mut bytes, Some(name));
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [FORM] {
            return None;
        }
        let ttl = take_span(&mut rest)?;
        let (owner, account) = (take_text(&mut rest)?, take_text(&mut rest)?);
        let session = match rest {
            [] => None,
            _ => {
                let id = Uuid::from_bytes(take(&mut rest)?);
                let ttl = take_span(&mut rest)?;
                Some(NotedSession { id, ttl, name: take_text(&mut rest)?? })
            }
        };
        rest.is_empty().then_some(Self { ttl, owner, account, session })
    }
}

impl Shard {
    /// The note of a lock that the store is asked for; empty for one that ends with this process.
    pub(super) fn note_of(&self, grant: &Grant) -> Vec<u8> {
        let terms = self.state().table.terms_of_ticket(grant).cloned();
        terms.map_or_else(Vec::new, |terms| Note::of(&terms).to_bytes())
    }
}

fn put_span(bytes: &mut Vec<u8>, span: Duration) {
    bytes.extend(u64::try_from(span.as_micros()).unwrap_or(u64::MAX).to_le_bytes());
}

/// A text is its length and its bytes; `u16::MAX` in place of the length means none.
fn put_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    let fits = text.and_then(|text| Some((u16::try_from(text.len()).ok().filter(|len| *len < u16::MAX)?, text)));
    match fits {
        Some((len, text)) => {
            bytes.extend(len.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        None => bytes.extend(u16::MAX.to_le_bytes()),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

fn take_span(rest: &mut &[u8]) -> Option<Duration> {
    Some(Duration::from_micros(u64::from_le_bytes(take(rest)?)))
}

fn take_text(rest: &mut &[u8]) -> Option<Option<Arc<str>>> {
    let len = u16::from_le_bytes(take(rest)?);
    if len == u16::MAX {
        return Some(None);
    }
    let (text, others) = rest.split_at_checked(usize::from(len))?;
    *rest = others;
    Some(Some(std::str::from_utf8(text).ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Note {
        let session = NotedSession { id: Uuid::from_u128(7), name: "w-7".into(), ttl: Duration::from_secs(9) };
        Note {
            ttl: Duration::from_millis(1500),
            owner: Some("ü".into()),
            account: Some("".into()),
            session: Some(session),
        }
    }

    #[test]
    fn a_note_reads_as_it_was_written() {
        let plain = Note { ttl: Duration::from_secs(1), ..Note::default() };
        for note in [Note::default(), plain, Note { session: None, ..full() }, full()] {
            assert_eq!(Note::from_bytes(&note.to_bytes()), Some(note));
        }
        let too_long = Note { owner: Some("o".repeat(70_000).into()), ..Note::default() };
        assert_eq!(Note::from_bytes(&too_long.to_bytes()), Some(Note::default()), "it is left out");
    }

    #[test]
    fn what_is_no_note_is_read_as_none() {
        let bytes = full().to_bytes();
        // Broken off where the session begins, it would be a note without one.
        let without_session = Note { session: None, ..full() }.to_bytes().len();
        for len in (0..bytes.len()).filter(|len| *len != without_session) {
            assert_eq!(Note::from_bytes(&bytes[..len]), None, "{len} of {} bytes", bytes.len());
        }
        assert_eq!(Note::from_bytes(&[&bytes[..], &[0]].concat()), None);
        let other_form = [&[FORM + 1], &bytes[1..]].concat();
        assert_eq!(Note::from_bytes(&other_form), None);
    }
}
