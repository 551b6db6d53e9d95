//! A screen of its own on the terminal of stdout, which is as it was when it ends.

use std::fmt::Write as _;
use std::io;

use crate::exit::Failure;
use crate::output::print;
use crate::print::{Reader, cut};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// What a terminal has that does not tell its size.
const SIZE: (u16, u16) = (80, 24);

/// The terminal's other screen, without a cursor.
pub(crate) struct Screen(());

impl Screen {
    /// # Errors
    /// As for [`print`].
    pub(crate) fn enter() -> Result<Self, Failure> {
        print(ENTER).map(|()| Self(()))
    }

    /// Draws lines, the first of which is a heading, as far as they fit, and a last line below them that always does.
    ///
    /// # Errors
    /// As for [`print`].
    pub(crate) fn draw(&self, text: &str, last: &str, reader: Reader) -> Result<(), Failure> {
        let (columns, rows) = terminal_size::terminal_size_of(io::stdout()).map_or(SIZE, |(w, h)| (w.0, h.0));
        print(&frame(text, last, reader, usize::from(columns), usize::from(rows)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = print(LEAVE);
    }
}

fn frame(text: &str, last: &str, reader: Reader, columns: usize, rows: usize) -> String {
    let room = rows.saturating_sub(1).max(1);
    let mut frame = "\x1b[H".to_owned();
    for (at, line) in text.lines().take(room).enumerate() {
        let line = cut(line, columns);
        let heading = at == 0 && reader == Reader::Coloured;
        let (on, off) = if heading { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        // Writing to a string does not fail.
        let _ = write!(frame, "{on}{line}{off}\x1b[K\r\n");
    }
    let hidden = text.lines().count().saturating_sub(room);
    let last = if hidden > 0 { format!("and {hidden} more lines. {last}") } else { last.to_owned() };
    let _ = write!(frame, "{}\x1b[K\x1b[J", cut(last.trim_end(), columns));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_large_as_the_window() {
        let text = "HEADING\n".to_owned() + &"a line that is too long\n".repeat(30);
        let frame = frame(&text, "the end", Reader::Coloured, 10, 24);
        let lines: Vec<&str> = frame.split("\r\n").collect();
        assert_eq!(lines.len(), 24);
        assert_eq!(lines[0], "\x1b[H\x1b[1mHEADING\x1b[0m\x1b[K");
        assert_eq!(lines[1], "a line tha\x1b[K");
        assert_eq!(lines[23], "and 8 more\x1b[K\x1b[J");
    }
}
