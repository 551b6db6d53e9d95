//! Text for people's eyes: [`readable`].

use std::borrow::Cow;
use std::fmt::Write;

/// Blank characters that Unicode counts among letters and symbols.
const BLANKS: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// A key or a name as people should see it: what would be invisible, would look like something else, or would steer the
/// screen is written as `\u{200b}`.
///
/// That is: control and format characters (zero-width ones, those that change the direction of writing), marks that
/// combine with the letter before them, unassigned and private ones, every space but a single one between two other
/// characters. Backslashes before `u{`, or before such a character, are doubled, so that two different texts never look the same. Most texts come back
/// as they are.
///
/// ```
/// use leasehold::readable;
/// assert_eq!(readable("order:42"), "order:42");
/// assert_eq!(readable("order:\u{200b}42 "), r"order:\u{200b}42\u{20}");
/// ```
#[must_use]
pub fn readable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut backslashes = 0;
    let mut characters = text.chars().peekable();
    let mut before = None;
    while let Some(c) = characters.next() {
        let is_outer = |neighbour: Option<char>| neighbour.is_none_or(|neighbour| neighbour == ' ');
        let is_hidden = match c {
            ' ' => is_outer(before) || characters.peek().is_none(),
            // The only ones that `escape_debug` changes although they are seen.
            '\\' | '\'' | '"' => false,
            _ => BLANKS.contains(&c) || c.escape_debug().len() > 1,
        };
        if is_hidden || c == 'u' && characters.peek() == Some(&'{') {
            shown.extend(std::iter::repeat_n('\\', backslashes));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        if is_hidden {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
        before = Some(c);
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        for (text, shown) in [
            ("größe:鍵/a'b\"c\\d", "größe:鍵/a'b\"c\\d"),
            ("a b", "a b"),
            (" a", r"\u{20}a"),
            ("a ", r"a\u{20}"),
            ("a  b", r"a \u{20}b"),
            ("a\u{a0}b", r"a\u{a0}b"),
            ("a\u{202e}b", r"a\u{202e}b"),
            ("a\u{200b}", r"a\u{200b}"),
            ("e\u{301}", r"e\u{301}"),
            ("a\u{fe0f}\u{feff}", r"a\u{fe0f}\u{feff}"),
            ("\u{3164}", r"\u{3164}"),
            ("\u{1b}[2J\t", r"\u{1b}[2J\u{9}"),
            (r"a\u{200b}", r"a\\u{200b}"),
            (r"a\\u{200b}", r"a\\\\u{200b}"),
            ("a\\\u{200b}", r"a\\\u{200b}"),
            (r"DOMAIN\user", r"DOMAIN\user"),
            ("", ""),
        ] {
            assert_eq!(readable(text), shown, "{text:?}");
        }
    }

    #[test]
    fn different_texts_never_look_the_same() {
        let parts = ["a", " ", "\\", "u{20}", "u{", "\u{200b}", "}"];
        let mut seen = std::collections::HashMap::new();
        for n in 0..parts.len().pow(5) {
            let text: String = (0..5).map(|at| parts[n / parts.len().pow(at) % parts.len()]).collect();
            if let Some(other) = seen.insert(readable(&text).into_owned(), text.clone()) {
                assert_eq!(other, text);
            }
        }
    }
}
