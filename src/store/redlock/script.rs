//! The Lua scripts that only Redlock has, each beside the file of its operation.

use std::sync::LazyLock;

use crate::store::redis::script::{BatchKind, Script, Takes};

macro_rules! scripts {
    ($($name:ident = $file:literal, $takes:expr;)*) => {$(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file), $takes));
    )*};
}

scripts! {
    // Those two are asked by flights, which read the answers themselves.
    ACQUIRE = "acquire.lua", Takes::One;
    RELEASE = "release.lua", Takes::One;
    EXTEND = "extend.lua", Takes::Many(BatchKind::Extend);
    REPAIR = "repair.lua", Takes::One;
    VOTE = "vote.lua", Takes::One;
    MARK = "mark.lua", Takes::One;
    LEAVE = "leave.lua", Takes::One;
    INITIALISE = "initialise.lua", Takes::One;
}
