//! The Lua scripts that only Redlock has, each beside the file of its operation.

use std::sync::LazyLock;

use crate::store::redis::script::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));
    )*};
}

scripts! {
    ACQUIRE = "acquire.lua";
    EXTEND = "extend.lua";
    REPAIR = "repair.lua";
    MARK = "mark.lua";
    INITIALISE = "initialise.lua";
}
