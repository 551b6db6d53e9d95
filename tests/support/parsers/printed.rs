//! What a server's words look like on a terminal and in a pipe. Each line of the input is a cell.

use std::time::Duration;

#[path = "../../../src/bin/leasehold/print.rs"]
#[allow(dead_code, reason = "the properties do not need all of it")]
mod print;

use print::{Cell, Reader, Table};

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let plain = print::plain(text);
    assert!(!plain.chars().any(char::is_control), "{plain:?}");
    let is_plain = |c: char| c.is_ascii_graphic() && c != '\\';
    assert!(!text.chars().all(is_plain) || plain == text, "what is plain stays so: {plain:?}");
    let mut table = Table::new(&["ONE", "TWO", "SPAN"]);
    let cells: Vec<&str> = text.split('\n').collect();
    for pair in cells.chunks(2) {
        let ms = pair[0].parse().unwrap_or(pair[0].len() as u64);
        table.row([Cell::text(pair[0]), Cell::maybe(pair.get(1)), Cell::span_ms(ms)]);
        let span = print::span(ms);
        assert!(span.split(' ').count() <= 2, "{span}");
        assert!(humantime::parse_duration(&span).is_ok_and(|span| span <= Duration::from_millis(ms)), "{ms}: {span}");
    }
    let rows = cells.len().div_ceil(2);
    let piped = table.render(Reader::Pipe);
    assert_eq!(piped.lines().count(), rows, "{piped:?}");
    assert!(piped.split_terminator('\n').all(|row| row.matches('\t').count() == 2), "{piped:?}");
    for reader in [Reader::Plain, Reader::Coloured] {
        assert_eq!(table.render(reader).split_terminator('\n').count(), rows + 1);
    }
}
