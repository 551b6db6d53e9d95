//! Tests of the table as a whole: its rules after every step (`invariants`), its answers against a naive model of it
//! (`model`), and what no public call does one step at a time.

use super::*;

mod crowded_keys;
mod invariants;
mod lane;
mod model;
mod overdue;
mod shares;
