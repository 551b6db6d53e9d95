//! The lock server and its command line.

fn main() {}
