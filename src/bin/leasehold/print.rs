//! How what is printed looks: aligned tables on a terminal, tab-separated columns in a pipe, JSON when asked.
//!
//! A pipe gets no headings and no rounded numbers, so that `cut` and `awk` work on it. What comes from a server is
//! never written with its control characters: an owner's name must not steer somebody's terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person who likes colours.
    Coloured,
    /// A person, or a terminal, that does not: `NO_COLOR` is set.
    Plain,
    /// A program.
    Pipe,
}

impl Reader {
    pub(crate) fn of_stdout() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match (io::stdout().is_terminal(), no_colour) {
            (false, _) => Self::Pipe,
            (true, true) => Self::Plain,
            (true, false) => Self::Coloured,
        }
    }
}

/// One cell: for a program, and for people.
pub(crate) struct Cell {
    exact: String,
    shown: String,
}

impl Cell {
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        let text = plain(text.as_ref()).into_owned();
        Self { exact: text.clone(), shown: text }
    }

    /// `None` is empty for a program, and a dash for people.
    pub(crate) fn maybe(text: Option<impl ToString>) -> Self {
        match text {
            Some(text) => Self::text(text.to_string()),
            None => Self { exact: String::new(), shown: "-".to_owned() },
        }
    }

    pub(crate) fn number(number: impl ToString) -> Self {
        Self::text(number.to_string())
    }

    /// `None` is empty for a program, and a dash for people.
    pub(crate) fn maybe_span_ms(ms: Option<u64>) -> Self {
        ms.map_or_else(|| Self::maybe(None::<&str>), Self::span_ms)
    }

    /// Whole milliseconds for a program, `1m 3s` for people.
    pub(crate) fn span_ms(ms: u64) -> Self {
        Self { exact: ms.to_string(), shown: span(ms) }
    }
}

/// A span for people: two units at most.
pub(crate) fn span(ms: u64) -> String {
    let rounded = match ms {
        0..1000 => ms,
        1000..10_000 => ms / 100 * 100,
        10_000..3_600_000 => ms / 1000 * 1000,
        _ => ms / 60_000 * 60_000,
    };
    let whole = humantime::format_duration(Duration::from_millis(rounded)).to_string();
    match whole.match_indices(' ').nth(1) {
        Some((end, _)) => whole[..end].to_owned(),
        None => whole,
    }
}

/// Without what is invisible or steers a terminal: that is written as `\u{1b}`.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    leasehold::readable(text)
}

/// As much of a line as goes into so many columns.
pub(crate) fn cut(line: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in line.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return &line[..at];
        }
    }
    line
}

/// Rows under headings.
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn render(&self, reader: Reader) -> String {
        let mut text = String::new();
        if reader == Reader::Pipe {
            for row in &self.rows {
                let cells: Vec<&str> = row.iter().map(|cell| cell.exact.as_str()).collect();
                text.push_str(&cells.join("\t"));
                text.push('\n');
            }
            return text;
        }
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.shown.width());
                cells.max().unwrap_or(0).max(self.heads[at].width())
            })
            .collect();
        let line = |cells: Vec<&str>| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                let gap = width.saturating_sub(cell.width()) + 2;
                let _ = write!(line, "{cell}{:gap$}", "");
            }
            line.trim_end().to_owned()
        };
        let heads = line(self.heads.clone());
        if !heads.is_empty() {
            text.push_str(&if reader == Reader::Coloured { format!("\x1b[1m{heads}\x1b[0m") } else { heads });
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| cell.shown.as_str()).collect()));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["KEY", "AGE", "OWNER"]);
        table.row([Cell::text("order:42"), Cell::span_ms(63_400), Cell::maybe(None::<&str>)]);
        table.row([Cell::text("鍵"), Cell::span_ms(7), Cell::text("e\u{1b}[2Jvil\t")]);
        table
    }

    #[test]
    fn people_get_aligned_columns_and_programs_get_tabs() {
        let shown = "KEY       AGE    OWNER\norder:42  1m 3s  -\n鍵        7ms    e\\u{1b}[2Jvil\\u{9}\n";
        assert_eq!(table().render(Reader::Plain), shown);
        assert!(table().render(Reader::Coloured).starts_with("\x1b[1mKEY"));
        assert_eq!(table().render(Reader::Pipe), "order:42\t63400\t\n鍵\t7\te\\u{1b}[2Jvil\\u{9}\n");
    }

    #[test]
    fn a_line_is_cut_by_columns_and_not_in_the_middle_of_a_character() {
        assert_eq!((cut("abc", 3), cut("abc", 2), cut("鍵鍵", 3), cut("", 0)), ("abc", "ab", "鍵", ""));
    }

    #[test]
    fn spans_are_short() {
        for (ms, shown) in [(0, "0s"), (999, "999ms"), (1234, "1s 200ms"), (29_999, "29s"), (86_399_999, "23h 59m")] {
            assert_eq!(span(ms), shown);
        }
        for (ms, shown) in [(93_784_000, "1day 2h"), (u64::MAX, "584542046years 1month")] {
            assert_eq!(span(ms), shown);
        }
    }
}
