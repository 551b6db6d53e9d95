//! The Lua scripts, each beside the file of its operation, and how they are sent (R7).

use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::fault::Fault;
use crate::key::Token;
use crate::store::ValueBytes;

/// A script and its hash.
pub(in crate::store) struct Script {
    body: &'static str,
    sha: String,
    pub(super) takes: Takes,
}

/// How much work one run of a script does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Takes {
    /// One lock's; the answer is its reply.
    One,
    /// That of many locks; the answer is a list of replies.
    Many(BatchKind),
}

/// Which calls may go out together: those of one script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum BatchKind {
    Acquire,
    Extend,
    Release,
    Renew,
    ShareAcquire,
    ShareExtend,
    ShareRelease,
}

impl BatchKind {
    pub(super) const COUNT: usize = 7;
}

macro_rules! scripts {
    ($($name:ident = [$($file:literal),+], $takes:expr;)*) => {$(
        pub(in crate::store) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("ops/", $file))),+), $takes));
    )*};
}

scripts! {
    ACQUIRE = ["prelude.lua", "each.lua", "mint.lua", "shared/marker.lua", "queue.lua", "take_all.lua", "acquire.lua"],
        Takes::Many(BatchKind::Acquire);
    EXTEND = ["prelude.lua", "each.lua", "shared/marker.lua", "extend.lua"], Takes::Many(BatchKind::Extend);
    RELEASE = ["prelude.lua", "each.lua", "shared/marker.lua", "mint.lua", "queue.lua", "hand_over.lua", "end_all.lua",
        "release.lua"], Takes::Many(BatchKind::Release);
    RELEASE_VALUE = ["prelude.lua", "mint.lua", "shared/marker.lua", "queue.lua", "hand_over.lua", "release_value.lua"],
        Takes::One;
    VALUE = ["prelude.lua", "value.lua"], Takes::One;
    RELEASE_CLAIM = ["prelude.lua", "mint.lua", "shared/marker.lua", "queue.lua", "hand_over.lua", "release_claim.lua"],
        Takes::One;
    EXCHANGE = ["prelude.lua", "mint.lua", "shared/marker.lua", "queue.lua", "hand_over.lua", "exchange.lua"],
        Takes::One;
    REPEAT = ["prelude.lua", "shared/marker.lua", "queue.lua", "repeat.lua"], Takes::One;
    FORCE = ["prelude.lua", "shared/marker.lua", "mint.lua", "queue.lua", "force.lua"], Takes::One;
    BOARD = ["prelude.lua", "board.lua"], Takes::One;
    LOOK = ["prelude.lua", "shared/marker.lua", "look.lua"], Takes::One;
    NOTICE = ["prelude.lua", "shared/marker.lua", "notice.lua"], Takes::One;
    LEAVE = ["prelude.lua", "shared/marker.lua", "queue.lua", "leave.lua"], Takes::One;
    RENEW = ["prelude.lua", "each.lua", "shared/marker.lua", "queue.lua", "renew.lua"], Takes::Many(BatchKind::Renew);
    MOVING_AHEAD = ["prelude.lua", "shared/marker.lua", "queue.lua", "moving/ahead.lua"], Takes::One;
    MOVING_RESERVE = ["prelude.lua", "moving/reserve.lua"], Takes::One;
    MOVING_FENCE = ["prelude.lua", "mint.lua", "moving/fence.lua"], Takes::One;
    MOVING_ACCEPT = ["prelude.lua", "moving/accept.lua"], Takes::One;
    MOVING_RELEASE = ["prelude.lua", "shared/marker.lua", "moving/release.lua"], Takes::One;
    MOVING_FORCE = ["prelude.lua", "moving/force.lua"], Takes::One;
    SHARE_ACQUIRE = ["prelude.lua", "each.lua", "mint.lua", "shared/marker.lua", "queue.lua", "shared/group.lua",
        "take_all.lua", "shared/acquire.lua"], Takes::Many(BatchKind::ShareAcquire);
    SHARE_EXTEND = ["prelude.lua", "each.lua", "shared/marker.lua", "shared/group.lua", "shared/extend.lua"],
        Takes::Many(BatchKind::ShareExtend);
    SHARE_RELEASE = ["prelude.lua", "each.lua", "shared/marker.lua", "queue.lua", "shared/group.lua", "end_all.lua",
        "shared/release.lua"], Takes::Many(BatchKind::ShareRelease);
    SHARE_LOOK = ["prelude.lua", "shared/marker.lua", "shared/group.lua", "shared/look.lua"], Takes::One;
    SHARE_HOLDERS = ["prelude.lua", "shared/marker.lua", "shared/group.lua", "shared/holders.lua"], Takes::One;
    SHARE_DOWNGRADE = ["prelude.lua", "mint.lua", "shared/marker.lua", "queue.lua", "shared/group.lua",
        "shared/downgrade.lua"], Takes::One;
    SHARE_FORCE = ["prelude.lua", "mint.lua", "shared/marker.lua", "queue.lua", "shared/group.lua",
        "shared/force.lua"], Takes::One;
}

/// How a script is named in a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Form {
    Hash,
    Body,
}

impl Script {
    pub(in crate::store) fn new(body: &'static str, takes: Takes) -> Self {
        Self { body, sha: redis::Script::new(body).get_hash().to_owned(), takes }
    }

    /// The command after which the server knows the script by its hash.
    pub(super) fn load_command(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.body);
        command
    }

    /// The command that runs the script for all of these.
    pub(super) fn command<'a>(&self, form: Form, args: impl Iterator<Item = &'a ScriptArgs> + Clone) -> Cmd {
        let size: usize = args.clone().map(|args| args.text.len() + 16 * args.ends.len()).sum();
        let mut command = Cmd::with_capacity(args.clone().map(|args| args.ends.len()).sum::<usize>() + 5, size + 128);
        match form {
            Form::Hash => command.arg("EVALSHA").arg(&self.sha),
            Form::Body => command.arg("EVAL").arg(self.body),
        };
        command.arg(args.clone().map(|args| args.keys).sum::<usize>());
        let limits = args.clone().filter_map(|args| args.limits).reduce(Limits::joined);
        match limits {
            Some(limits) => push_grouped(&mut command, limits, args),
            None => {
                args.clone().flat_map(ScriptArgs::keys).for_each(|key| _ = command.arg(key));
                args.clone().flat_map(ScriptArgs::arguments).for_each(|argument| _ = command.arg(argument));
                args.filter_map(|args| args.value.as_ref()).for_each(|value| _ = command.arg(&**value));
            }
        }
        command
    }

    /// The replies in an answer, as many as locks were asked about.
    pub(super) fn replies(&self, answer: Value, locks: usize) -> Result<Vec<Result<Reply, Fault>>, Fault> {
        match (self.takes, answer) {
            (Takes::One, answer) => Ok(vec![Reply::read(answer)]),
            (Takes::Many(_), Value::Int(now_us)) => Ok((0..locks).map(|_| Ok(Reply::of([1, now_us]))).collect()),
            (Takes::Many(_), Value::Array(answers)) if answers.len() == locks => {
                Ok(answers.into_iter().map(Reply::read).collect())
            }
            _ => Err(Fault::protocol_error()),
        }
    }
}

/// Within what a script may do what it is asked for all locks at once, with few commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limits {
    /// Not after this moment of the server's clock, in microseconds.
    not_after_us: i64,
    /// Only if the clock is above this fence.
    fence: u64,
}

impl Limits {
    fn joined(self, other: Self) -> Self {
        Self { not_after_us: self.not_after_us.min(other.not_after_us), fence: self.fence.max(other.fence) }
    }
}

/// The keys by their kind, so that a script can pass all of a kind to one command; the limits of all; what all share,
/// once; and what each has of its own.
fn push_grouped<'a>(command: &mut Cmd, limits: Limits, args: impl Iterator<Item = &'a ScriptArgs> + Clone) {
    let Some(ScriptArgs { keys, shared, .. }) = args.clone().next() else { return };
    for kind in 0..*keys {
        args.clone().for_each(|args| _ = command.arg(args.slice(kind)));
    }
    command.arg(limits.not_after_us).arg(limits.fence);
    args.clone().take(1).flat_map(ScriptArgs::arguments).take(*shared).for_each(|shared| _ = command.arg(shared));
    args.flat_map(|args| args.arguments().skip(args.shared)).for_each(|own| _ = command.arg(own));
}

/// What a script gets for one lock: keys, then arguments, in one piece of memory.
#[derive(Default)]
pub(in crate::store) struct ScriptArgs {
    text: String,
    ends: Vec<usize>,
    keys: usize,
    limits: Option<Limits>,
    /// So many of the arguments are the same for all locks.
    shared: usize,
    /// One more argument behind the others.
    value: Option<ValueBytes>,
}

impl ScriptArgs {
    /// The keys, in the order of the script.
    pub(in crate::store) fn of<const N: usize>(keys: [&str; N]) -> Self {
        let mut this =
            Self { text: String::with_capacity(256), ends: Vec::with_capacity(12), keys: N, ..Self::default() };
        keys.iter().for_each(|key| this.push(key));
        this
    }

    /// For what so many locks need, keys and arguments, in the order of the script.
    pub(in crate::store) fn for_locks(locks: usize) -> Self {
        let (text, ends) = (String::with_capacity(128 * locks + 64), Vec::with_capacity(4 * locks + 5));
        Self { text, ends, ..Self::default() }
    }

    /// For a script that does for all locks at once what it is asked, where the clock is not past `not_after_us`, and
    /// above `fence`.
    pub(super) fn limits(mut self, not_after_us: i64, fence: u64) -> Self {
        self.limits = Some(Limits { not_after_us, fence });
        self
    }

    /// The arguments so far are the same for all locks.
    pub(super) fn shared(mut self) -> Self {
        self.shared = self.ends.len() - self.keys;
        self
    }

    /// One more key. They come before the arguments.
    pub(in crate::store) fn key(mut self, key: &str) -> Self {
        debug_assert_eq!(self.keys, self.ends.len(), "keys come first");
        self.push(key);
        self.keys += 1;
        self
    }

    /// A token as one more argument: the text that is the lock's value.
    pub(in crate::store) fn token(mut self, token: Token) -> Self {
        self.push(token.as_uuid().hyphenated().encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH]));
        self
    }

    /// Tokens as one more argument, one behind the other.
    pub(in crate::store) fn tokens(mut self, tokens: impl Iterator<Item = Token>) -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        tokens.for_each(|token| self.text.push_str(token.as_uuid().hyphenated().encode_lower(&mut text)));
        self.ends.push(self.text.len());
        self
    }

    /// One more argument.
    pub(in crate::store) fn arg(mut self, argument: impl fmt::Display) -> Self {
        write!(self.text, "{argument}").expect("memory takes any text");
        self.ends.push(self.text.len());
        self
    }

    /// Numbers as one more argument, with a space between two.
    pub(in crate::store) fn numbers<const N: usize>(mut self, numbers: [u64; N]) -> Self {
        for (at, number) in numbers.into_iter().enumerate() {
            if at > 0 {
                self.text.push(' ');
            }
            push_number(&mut self.text, number);
        }
        self.ends.push(self.text.len());
        self
    }

    /// A text as one more argument.
    pub(in crate::store) fn text(mut self, argument: &str) -> Self {
        self.push(argument);
        self
    }

    /// A value as the last argument, of a script for one lock.
    pub(super) fn value(mut self, value: ValueBytes) -> Self {
        self.value = Some(value);
        self
    }

    fn push(&mut self, part: &str) {
        self.text.push_str(part);
        self.ends.push(self.text.len());
    }

    fn slice(&self, at: usize) -> &str {
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[from..self.ends[at]]
    }

    fn slices(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.text[from..*to])
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.slices().take(self.keys)
    }

    fn arguments(&self) -> impl Iterator<Item = &str> {
        self.slices().skip(self.keys)
    }
}

/// Appends a number in digits. What `Display` does, in a quarter of the time: a call for a lock has six numbers.
fn push_number(text: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[from..].iter().map(|digit| char::from(*digit)));
}

/// What every script answers: numbers, which are a code, the server's clock in microseconds, and what belongs to the code;
/// and behind them perhaps a value.
#[derive(Debug)]
pub(in crate::store) struct Reply {
    numbers: [i64; 5],
    len: usize,
    value: Option<ValueBytes>,
}

impl Reply {
    /// A list of at least two and at most five numbers, with or without a value behind them, or an error inside a good
    /// answer. Where a script did for all locks what it was asked, it answers its clock alone.
    fn read(value: Value) -> Result<Self, Fault> {
        let mut values = match value {
            Value::Array(values) => values,
            Value::ServerError(error) => return Err(Fault::of(&error.into())),
            _ => return Err(Fault::protocol_error()),
        };
        let value = match values.last_mut() {
            Some(Value::BulkString(bytes)) => Some(std::mem::take(bytes).into()),
            _ => None,
        };
        let (mut numbers, len) = ([0; 5], values.len() - usize::from(value.is_some()));
        if !(2..=5).contains(&len) {
            return Err(Fault::protocol_error());
        }
        for (number, value) in numbers.iter_mut().zip(&values[..len]) {
            let Value::Int(value) = value else { return Err(Fault::protocol_error()) };
            *number = *value;
        }
        Ok(Self { numbers, len, value })
    }

    /// What one script would have answered for the steps of several (`moving`).
    pub(super) fn of<const N: usize>(given: [i64; N]) -> Self {
        const { assert!(2 <= N && N <= 5) }
        let mut numbers = [0; 5];
        numbers[..N].copy_from_slice(&given);
        Self { numbers, len: N, value: None }
    }

    pub(in crate::store) fn code(&self) -> i64 {
        self.numbers[0]
    }

    pub(in crate::store) fn server_us(&self) -> i64 {
        self.numbers[1]
    }

    /// The numbers behind code and clock.
    pub(in crate::store) fn rest(&self) -> &[i64] {
        &self.numbers[2..self.len]
    }

    /// The value behind the numbers.
    pub(super) fn value(self) -> Option<ValueBytes> {
        self.value
    }
}

/// Reads the answer of a script, which may be an error inside a good reply.
pub(super) fn read(answer: RedisResult<Value>) -> RedisResult<Value> {
    match answer {
        Ok(Value::ServerError(error)) => Err(error.into()),
        answer => answer,
    }
}

/// Whole milliseconds, as scripts take them.
pub(in crate::store) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_display_writes_them() {
        for number in [0, 7, 10, 1_795_833_848_153_075, u64::MAX] {
            let mut text = String::from("at ");
            push_number(&mut text, number);
            assert_eq!(text, format!("at {number}"));
        }
        assert_eq!(ScriptArgs::of(["k"]).numbers([3, 20]).slice(1), "3 20");
    }

    #[test]
    fn what_scripts_get_for_several_locks_is_grouped_by_kind_within_the_limits_of_all() {
        let args = |n: u64| {
            let (lock, queue) = (format!("lock{n}"), format!("queue{n}"));
            ScriptArgs::of([lock.as_str(), &queue]).limits(10 + n as i64, n).text("all").shared().numbers([n])
        };
        let command = RELEASE.command(Form::Hash, [args(1), args(2)].iter());
        let sent = command.args_iter().skip(2).map(|arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => unreachable!("all are plain"),
        });
        let sent = sent.collect::<Vec<_>>().join(" ");
        assert_eq!(sent, "4 lock1 lock2 queue1 queue2 11 2 all 1 2");
    }
}
