//! The rules, held to.
