//! Where a list goes on: the last key of the page before, in hexadecimal digits, so that nobody takes it for a key.

use std::fmt::Write;

use crate::http::number::bytes_of_hex;
use crate::http::problem::Problem;
use crate::http::query::invalid;
use crate::{Key, ListOrder};

/// The cursor behind a key, or at a place in a store.
pub(in crate::http) fn write(place: &str) -> String {
    place.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key that a list goes on behind.
pub(in crate::http) fn read(text: &str, order: ListOrder) -> Result<Key, Problem> {
    if !matches!(order, ListOrder::Key | ListOrder::KeyDescending) {
        return Err(invalid("`cursor` goes with an order by `key` only"));
    }
    decode(text).and_then(|key| Key::try_from(key).ok()).ok_or_else(not_ours)
}

/// The place in a store that a list goes on at.
pub(in crate::http) fn read_place(text: &str) -> Result<String, Problem> {
    decode(text).ok_or_else(not_ours)
}

fn not_ours() -> Problem {
    invalid("`cursor` is not the `next_cursor` of a page")
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(bytes_of_hex(text)?).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        let key = Key::new("größe/42").unwrap();
        assert_eq!(read(&write(key.as_str()), ListOrder::Key).unwrap(), key);
        for bad in ["", "6", "6g", "order", "c3", "00"] {
            assert!(read(bad, ListOrder::Key).is_err(), "{bad}");
        }
    }
}
