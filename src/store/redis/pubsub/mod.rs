//! What servers say without being asked: messages on channels, and changes of watched keys.

pub(in crate::store) mod listen;
pub(in crate::store) mod listener;
pub(in crate::store) mod subscription;
