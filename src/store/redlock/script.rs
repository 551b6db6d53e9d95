//! The Lua scripts that only Redlock has, each beside the file of its operation.

use std::sync::LazyLock;

use crate::store::redis::script::{BatchKind, Script, Takes};

macro_rules! scripts {
    ($($name:ident = [$($file:literal),+], $takes:expr;)*) => {$(
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!($file)),+), $takes));
    )*};
}

scripts! {
    // The answers of these two are read by `reply`.
    ACQUIRE = ["ops/acquire.lua"], Takes::One;
    RELEASE = ["ops/queue.lua", "ops/release.lua"], Takes::One;
    EXTEND = ["ops/extend.lua"], Takes::Many(BatchKind::Extend);
    REPAIR = ["ops/repair.lua"], Takes::One;
    NODE_STATE = ["ops/node_states.lua"], Takes::One;
    MARK = ["ops/mark.lua"], Takes::One;
    LEAVE = ["ops/queue.lua", "ops/leave.lua"], Takes::One;
    INITIALISE = ["ops/initialise.lua"], Takes::One;
}
