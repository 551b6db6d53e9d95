//! How the last grants of a shard ended: a ring of fixed size that answers "why was it released?" for a while (T9).
//!
//! It keeps no key, only its hash.

use std::collections::VecDeque;
use std::sync::Arc;

use super::end::EndRecord;
use crate::key::FencingToken;

/// Ends that a shard remembers; a power of two.
const ENDS: usize = 128;

#[derive(Debug)]
#[repr(C)]
pub(crate) struct EndLog {
    /// A ring: the next end goes to `next`, modulo its length.
    ends: Box<[Option<EndRecord>; ENDS]>,
    next: usize,
    /// Owners of the last ends that had one, apart, so that the lane has nothing to drop.
    owners: VecDeque<(FencingToken, Arc<str>)>,
}

impl EndLog {
    pub(crate) fn new() -> Self {
        Self { ends: Box::new([None; ENDS]), next: 0, owners: VecDeque::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, record: EndRecord, owner: Option<Arc<str>>) {
        self.ends[self.next % ENDS] = Some(record);
        self.next = self.next.wrapping_add(1);
        if let Some(owner) = owner {
            self.push_owner(record.fence, owner);
        }
    }

    #[inline(never)]
    fn push_owner(&mut self, fence: FencingToken, owner: Arc<str>) {
        if self.owners.len() == ENDS {
            self.owners.pop_front();
        }
        self.owners.push_back((fence, owner));
    }

    /// The ends of one key's grants, the last first, with their owners.
    pub(crate) fn of(&self, key_hash: u32) -> impl Iterator<Item = (&EndRecord, Option<&Arc<str>>)> {
        let newest_first = (1..=ENDS).map(|back| &self.ends[self.next.wrapping_sub(back) % ENDS]);
        let of_key = newest_first.flatten().filter(move |record| record.key_hash == key_hash);
        of_key.map(|record| {
            let owner = self.owners.iter().find(|(fence, _)| *fence == record.fence);
            (record, owner.map(|(_, owner)| owner))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::End;
    use super::*;
    use crate::clock::Moment;

    #[test]
    fn the_log_has_a_keys_last_ends_the_newest_first_and_keeps_its_bound() {
        let mut end_log = EndLog::new();
        for n in 1..=300_u64 {
            let record = EndRecord {
                key_hash: n as u32 % 2,
                end: End::Released,
                fence: FencingToken::at_least_one(n),
                proof: None,
                granted_at: Moment::from_nanos(n),
                ended_at: Moment::from_nanos(2 * n),
            };
            end_log.push(record, n.is_multiple_of(4).then(|| n.to_string().into()));
        }
        let fences: Vec<u64> = end_log.of(0).map(|(record, _)| record.fence.get()).collect();
        assert_eq!(fences.len(), ENDS / 2);
        let owners: Vec<Option<&str>> = end_log.of(0).map(|(_, owner)| owner.map(|owner| &**owner)).collect();
        assert_eq!(owners[..3], [Some("300"), None, Some("296")]);
        assert!(end_log.owners.len() <= ENDS);
        assert_eq!(fences[..3], [300, 298, 296]);
        assert_eq!(end_log.of(7).count(), 0);
    }
}
