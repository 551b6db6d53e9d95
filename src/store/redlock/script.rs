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
    ACQUIRE = "ops/acquire.lua", Takes::One;
    RELEASE = "ops/release.lua", Takes::One;
    EXTEND = "ops/extend.lua", Takes::Many(BatchKind::Extend);
    REPAIR = "ops/repair.lua", Takes::One;
    VOTE = "ops/node_states.lua", Takes::One;
    MARK = "ops/mark.lua", Takes::One;
    LEAVE = "ops/leave.lua", Takes::One;
    INITIALISE = "ops/initialise.lua", Takes::One;
}
