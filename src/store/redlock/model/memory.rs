//! What a node of the model remembers of a key, and how it judges by that.

use crate::store::redlock::fence::Judgement;

/// What a node remembers of one key's fences: the twin of `acquire.lua`, for the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Memory {
    /// The highest fence that it accepted, if it remembers one.
    pub(super) accepted: u64,
    /// Its own clock's reading at the end of its last quarantine, kept in the marker (L4).
    pub(super) floor: u64,
}

/// Whose token the node holds for the key once it has judged: it takes a free key for the asker if, and only if, it
/// accepts, so that a node that holds a token has accepted that token's fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holding {
    Asker,
    Other,
}

impl Memory {
    /// Judges a proposal, as the script on the node does. A quarantined node is not asked: it does not vote (L4).
    ///
    /// The same proposal sent twice is refused: the node cannot know that it was the same asker's.
    pub(super) fn judge(&mut self, proposed: u64, holding: Holding) -> Judgement {
        let seen = self.accepted.max(self.floor);
        if holding == Holding::Other {
            Judgement::NotHeld
        } else if proposed > seen {
            self.accepted = proposed;
            Judgement::Accepted
        } else {
            Judgement::Refused { seen }
        }
    }
}

#[test]
fn a_node_accepts_only_what_is_above_its_memory_and_its_floor() {
    for (accepted, floor) in [(7, 5), (5, 7)] {
        let mut node = Memory { accepted, floor };
        assert_eq!(node.judge(8, Holding::Other), Judgement::NotHeld);
        assert_eq!(node.judge(7, Holding::Asker), Judgement::Refused { seen: 7 });
        assert_eq!(node, Memory { accepted, floor }, "what is not accepted is not remembered");
        assert_eq!(node.judge(8, Holding::Asker), Judgement::Accepted);
        assert_eq!(node.judge(8, Holding::Asker), Judgement::Refused { seen: 8 });
    }
}
