//! Fears about the way into production: packages, images, manifests, and what the tree is made of; one file each.
//!
//! Nothing is acted out: a real systemd boots on a machine of its own and has the package installed. `tests/packaging/prepare`
//! makes what that needs.
#![cfg(all(feature = "server", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/redis/mod.rs"]
mod kit;

mod built;
mod image;
mod machine;

mod aws;
mod container;
mod debian;
mod hygiene;
mod kubernetes;
mod page;
mod unit;
