//! The server process.
//!
//! | file | what it does |
//! |---|---|
//! | `serve` | starts it, and ends it |
//! | `listener`, `tls` | sockets, and what is served on them |
//! | `connections`, `idle_timeout`, `fd_limits`, `bad_clients` | how many clients may connect, for how long, and what is logged of those that misbehave |
//! | `tokens`, `reload`, `signals` | who may use it, and what is read again on SIGHUP |
//! | `logs`, `metrics` | what operators see of it |

mod bad_clients;
mod connections;
mod fd_limits;
mod idle_timeout;
mod listener;
mod logs;
mod metrics;
mod reload;
pub(crate) mod serve;
mod signals;
mod tls;
mod tokens;
