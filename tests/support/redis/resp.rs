//! Where one RESP frame ends: all that the proxy needs to know of the protocol, version 2 and 3.

/// What stands at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// A whole frame of so many bytes.
    Frame(usize),
    /// The beginning of one.
    Part,
    /// Something else: TLS, or a replica's stream.
    Foreign,
}

/// Looks at the first frame: a request (an array, or an inline command) or a reply.
pub(crate) fn front(bytes: &[u8]) -> Front {
    match bytes.first() {
        None => return Front::Part,
        // An inline command is a line of text.
        Some(first) if first.is_ascii_alphabetic() => {}
        Some(first) if b"+-:,#_($!=*~>%|".contains(first) => {}
        Some(_) => return Front::Foreign,
    }
    end(bytes, 0).map_or(Front::Part, Front::Frame)
}

/// Whether a reply frame was not asked for: a push message.
pub(crate) fn is_push(frame: &[u8]) -> bool {
    frame.first() == Some(&b'>')
}

/// Where the frame that begins at `from` ends.
fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let kind = *bytes.get(from)?;
    let line = from + bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&bytes[from + 1..line - 2]).ok()?.parse::<i64>().ok();
    let frames = |n: i64| (0..n).try_fold(line, |at, _| end(bytes, at));
    match kind {
        b'$' | b'!' | b'=' => match usize::try_from(count()?) {
            Ok(length) => Some(line + length + 2).filter(|&end| end <= bytes.len()),
            Err(_) => Some(line),
        },
        b'*' | b'~' | b'>' => frames(count()?),
        b'%' => frames(2 * count()?),
        // Attributes go before the reply that they describe.
        b'|' => frames(2 * count()?).and_then(|at| end(bytes, at)),
        _ => Some(line),
    }
}
