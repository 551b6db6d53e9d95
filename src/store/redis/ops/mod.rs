//! What a store does with locks, one operation a file, with its script beside it.

pub(in crate::store) mod acquire;
pub(in crate::store) mod board;
pub(in crate::store) mod exchange;
pub(in crate::store) mod extend;
pub(in crate::store) mod force;
pub(in crate::store) mod health;
pub(in crate::store) mod leave;
pub(in crate::store) mod look;
pub(in crate::store) mod moving;
pub(in crate::store) mod notice;
pub(in crate::store) mod release;
pub(in crate::store) mod release_script;
pub(in crate::store) mod renew;
pub(in crate::store) mod scan;
pub(in crate::store) mod shared;
pub(in crate::store) mod value;
