//! The seam to what is shared between processes.

pub(crate) mod redlock;
