//! Connections to servers.
//!
//! | file | what |
//! |---|---|
//! | `url` | where the keys are |
//! | `opener`, `server_info` | opens a connection, and looks whether its server can be used |
//! | `wire` | one connection |
//! | `link` | the way to one server, by one wire after another |
//! | `cluster` | the links of a store |
//! | `dispatch`, `batch` | how a call goes out over a wire |
//! | `time` | the server's clock, and the time limits of calls |

pub(in crate::store) mod batch;
pub(in crate::store) mod cluster;
pub(in crate::store) mod dispatch;
pub(in crate::store) mod link;
pub(in crate::store) mod opener;
pub(in crate::store) mod server_info;
pub(in crate::store) mod url;
pub(in crate::store) mod wire;
