//! Connections to servers: from a URL ([`url`]) over one server's link to the servers of a Cluster ([`cluster`]).
//!
//! A `link` leads to one server and opens a `wire`, one connection, whenever there is none. `batch` decides how a call
//! goes out over a wire.

pub(in crate::store) mod batch;
pub(in crate::store) mod cluster;
pub(in crate::store) mod link;
pub(in crate::store) mod time;
pub(in crate::store) mod url;
pub(in crate::store) mod wire;
