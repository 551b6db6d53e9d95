//! The Lua scripts, each beside the file of its operation, and how they are sent (R7).

use std::sync::LazyLock;

use redis::{Cmd, RedisResult, Value};

/// A script and its hash.
pub(in crate::store) struct Script {
    body: &'static str,
    sha: String,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(in crate::store) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));
    )*};
}

scripts! {
    ACQUIRE = "acquire.lua";
    EXTEND = "extend.lua";
    RELEASE = "release.lua";
    FORCE = "force.lua";
    LOOK = "look.lua";
    LEAVE = "leave.lua";
    RENEW = "renew.lua";
}

/// How a script is named in a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Hash,
    Body,
}

impl Script {
    pub(in crate::store) fn new(body: &'static str) -> Self {
        Self { body, sha: redis::Script::new(body).get_hash().to_owned() }
    }

    /// The command after which the server knows it by its hash.
    pub(super) fn teaching(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.body);
        command
    }

    /// The beginning of a command that runs it.
    pub(super) fn command(&self, form: Form) -> Cmd {
        let mut command = Cmd::with_capacity(16, 512);
        match form {
            Form::Hash => command.arg("EVALSHA").arg(&self.sha),
            Form::Body => command.arg("EVAL").arg(self.body),
        };
        command
    }
}

/// The numbers that every script answers: a code, the server's clock in microseconds, and what the code brings along.
#[derive(Debug)]
pub(in crate::store) struct Reply {
    numbers: [i64; 5],
    len: usize,
}

impl Reply {
    /// `None` if it is no list of at least two and at most five numbers.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let Value::Array(values) = value else { return None };
        let mut numbers = [0; 5];
        if values.len() < 2 || values.len() > numbers.len() {
            return None;
        }
        for (number, value) in numbers.iter_mut().zip(values) {
            let Value::Int(value) = value else { return None };
            *number = *value;
        }
        Some(Self { numbers, len: values.len() })
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
}

/// Reads the answer of a script, which may be an error inside a good reply.
pub(super) fn read(answer: RedisResult<Value>) -> RedisResult<Value> {
    match answer {
        Ok(Value::ServerError(error)) => Err(error.into()),
        answer => answer,
    }
}
