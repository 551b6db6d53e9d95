//! What stands in for the [tally](super::histogram) without the feature `metrics`: nothing is counted.

use crate::clock::Moment;
use crate::error::AttemptOutcome;
use crate::mode::{Kind, Mode};

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {}

impl Tally {
    pub(crate) fn attempt(self, _: Mode, _: AttemptOutcome) {}
    pub(super) fn acquired(self, _: Mode) {}
    pub(super) fn held_for(self, _: u64) {}
    pub(super) fn waited_for(self, _: AttemptOutcome, _: u64) {}
    pub(super) fn joined_group(self, _: Kind) {}
    pub(super) fn left_group(self, _: Kind) {}
    pub(super) fn lost_its_head(self, _: Kind) {}
    pub(super) fn has_a_head_or_none(self, _: Kind) {}
    pub(super) fn queued(self, _: Mode, _: u32, _: Moment) {}
    pub(super) fn left_queue(self, _: Mode) {}
    pub(super) fn claimed(self, _: bool) {}
    pub(super) fn reused_claim(self) {}
    pub(super) fn wanted_claim(self) {}
    pub(super) fn kept_claim(self) {}
    pub(super) fn took_idle_claim(self) {}
    pub(super) fn unclaimed(self) {}
    pub(super) fn revoked_by_store(self) {}
    pub(super) fn revoked_for_deadlock(self) {}
}
