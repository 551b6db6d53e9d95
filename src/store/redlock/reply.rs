//! What a script that is asked about several locks answers: [`Replies`], one [`LockReply`] for each lock.

use redis::Value;

use crate::store::StoreError;
use crate::store::redis::call::Failure;
use crate::store::redis::fault::{Fault, Ran, protocol_error};

/// The code of a lock of which the script failed; the error stands behind the text.
const FAILED: i64 = 9;

/// The answer of one node: a text with the time of its clock and a reply for each lock, and perhaps an error.
pub(super) struct Replies {
    body: Vec<u8>,
    /// Where the replies begin, behind the time.
    from: usize,
    failed: Option<StoreError>,
}

/// What a node said of one lock: a code, and the numbers that the code brings along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LockReply {
    numbers: [i64; 4],
    len: usize,
}

impl LockReply {
    fn read(text: &[u8]) -> Option<Self> {
        let mut reply = Self { numbers: [0; 4], len: 0 };
        for number in text.split(|byte| *byte == b':') {
            *reply.numbers.get_mut(reply.len)? = std::str::from_utf8(number).ok()?.parse().ok()?;
            reply.len += 1;
        }
        Some(reply)
    }

    /// The code, and the numbers behind it.
    pub(super) fn parts(&self) -> (i64, &[i64]) {
        (self.numbers[0], &self.numbers[1..self.len])
    }
}

impl Replies {
    /// The replies, and the node's clock in microseconds.
    pub(super) fn read(value: Value) -> Result<(Self, i64), Fault> {
        let (body, failed) = match value {
            Value::BulkString(body) => (body, None),
            Value::Array(mut both) => match (both.pop(), both.pop(), both.pop()) {
                (Some(Value::ServerError(error)), Some(Value::BulkString(body)), None) => {
                    (body, Some(Fault::of(&error.into()).error))
                }
                _ => return Err(Fault::protocol_error()),
            },
            _ => return Err(Fault::protocol_error()),
        };
        let from = body.iter().position(|byte| *byte == b' ').ok_or_else(Fault::protocol_error)?;
        let now_us = std::str::from_utf8(&body[..from]).ok().and_then(|text| text.parse().ok());
        Ok((Self { from: from + 1, body, failed }, now_us.ok_or_else(Fault::protocol_error)?))
    }

    /// The reply for each lock, in the order of the request. There is no end: where the text has none, it is a protocol
    /// error.
    fn each(&self) -> impl Iterator<Item = Result<LockReply, Failure>> {
        let replies = self.body[self.from..].split(|byte| *byte == b' ').map(LockReply::read);
        replies.chain(std::iter::repeat(None)).map(|reply| match (reply, &self.failed) {
            (Some(LockReply { numbers: [FAILED, ..], .. }), Some(error)) => {
                Err(Failure { error: error.clone(), ran: Ran::No })
            }
            (Some(reply), _) => Ok(reply),
            (None, _) => Err(Failure { error: protocol_error("not what the script answers"), ran: Ran::Maybe }),
        })
    }

    /// Whether the command came too late, for all of its locks.
    pub(super) fn is_too_late(&self) -> bool {
        self.body[self.from..].starts_with(b"3")
    }
}

/// What a node answered, or why it did not.
pub(super) type NodeAnswer = Result<Replies, Failure>;

/// What a node said of each lock, in the order of the request; without an answer the same failure for each.
pub(super) fn each_reply(answer: &NodeAnswer) -> impl Iterator<Item = Result<LockReply, Failure>> {
    let (mut replies, failed) = (answer.as_ref().ok().map(Replies::each), answer.as_ref().err());
    std::iter::from_fn(move || match &mut replies {
        Some(replies) => replies.next(),
        None => failed.cloned().map(Err),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(text: &str) -> Vec<Result<(i64, Vec<i64>), ()>> {
        let (replies, now_us) = Replies::read(Value::BulkString(text.as_bytes().to_vec())).unwrap();
        assert_eq!(now_us, 17);
        let some = replies.each().take(3);
        some.map(|reply| reply.map(|reply| (reply.parts().0, reply.parts().1.to_vec())).map_err(drop)).collect()
    }

    #[test]
    fn a_text_says_something_of_each_lock_and_nothing_where_it_makes_no_sense() {
        assert_eq!(
            replies("17 1 2:0:-1 4:9007199254740991"),
            [Ok((1, vec![])), Ok((2, vec![0, -1])), Ok((4, vec![9_007_199_254_740_991])),]
        );
        assert_eq!(replies("17 1"), [Ok((1, vec![])), Err(()), Err(())], "fewer than were asked about");
        assert_eq!(replies("17 1:2:3:4:5 x 1:"), [Err(()), Err(()), Err(())]);
        for protocol_error in [Value::Nil, Value::BulkString(b"17".to_vec()), Value::BulkString(b"x 1".to_vec())] {
            assert!(Replies::read(protocol_error).is_err());
        }
    }
}
