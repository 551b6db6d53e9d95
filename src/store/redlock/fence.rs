//! Fences over N nodes (L5): how a grant gets a number above every earlier grant's, or none.
//!
//! `max(INCR)` over a quorum does not rise: a node that comes back empty counts from the start. So the asker proposes
//! a number and the nodes judge it: a fence is proved once a majority accepted *the same* proposal while they held the
//! asker's token. Two majorities share a node. If it remembers, the later fence is higher, because it accepts only
//! what is higher than all it accepted. If it lost its memory in between, it kept silent for the quarantine, and its
//! **floor** holds: a node accepts nothing at or below its own clock's reading at the end of its last quarantine.
//!
//! Assumed: nodes' and askers' clocks differ by less than the quarantine, and do not step; a node's counters are not
//! evicted, and outlive their last use by more than `max_ttl` and the clocks' difference; a round takes a microsecond
//! or more, so that `+ 1` does not outrun the clock; and the lock's own exclusion (L2, L4).
//! Without the floor that is not enough: a proposal may be as old as the longest wait of its asker when a node judges it, and
//! clocks would have to differ by less than the quarantine *less the TTL*. `model` finds that history; with the floor it finds none.

use super::quorum::Quorum;
use crate::key::FencingToken;

/// The fence to propose: above what this process has seen, and not below the clock.
pub(crate) fn propose(highest_seen: u64, estimated_micros: u64) -> u64 {
    highest_seen.max(estimated_micros).saturating_add(1)
}

/// How a node judges a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Judgement {
    /// It remembers the proposal as its highest.
    Accepted,
    /// It has seen this much already.
    Refused { seen: u64 },
    /// It does not hold the asker's token, so it says nothing about the fence.
    NotHeld,
}

/// Which round of an acquire a proposal belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum RoundNumber {
    First,
    Second,
}

/// What follows from the judgements so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A majority accepted: this is the grant's fence.
    Proved(FencingToken),
    /// Propose this one, to all nodes, while the lock is valid.
    AskAgain(u64),
    /// The grant, if it is one, carries no fence.
    Unproved,
}

/// One proposal to all nodes, and their judgements: one of each node, in any order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FenceRound {
    quorum: Quorum,
    number: RoundNumber,
    proposed: u64,
    accepted: usize,
    judged: usize,
    highest_refusal: u64,
    refused: usize,
}

impl FenceRound {
    /// A second round is the one that [`Verdict::AskAgain`] asks for. There is no third.
    pub(crate) fn new(quorum: Quorum, number: RoundNumber, proposed: u64) -> Self {
        Self { quorum, number, proposed, accepted: 0, judged: 0, highest_refusal: 0, refused: 0 }
    }

    /// Counts one node's judgement; `None` is unknown: no answer came, or one that was not understood.
    ///
    /// # Panics
    /// In builds with debug assertions, if more nodes have judged than there are.
    pub(crate) fn count(&mut self, judgement: Option<Judgement>) {
        debug_assert!(self.judged < self.quorum.nodes(), "each node judges once per round");
        self.judged += 1;
        match judgement {
            Some(Judgement::Accepted) => self.accepted += 1,
            Some(Judgement::Refused { seen }) => {
                self.refused += 1;
                self.highest_refusal = self.highest_refusal.max(seen);
            }
            Some(Judgement::NotHeld) | None => {}
        }
    }

    /// What follows if no further judgement comes: for an asker that does not wait for the slow nodes.
    pub(crate) fn close(&self) -> Verdict {
        // Nodes that neither accepted nor refused are held by others or silent, and will not accept the next time.
        let hold = self.accepted + self.refused;
        if self.accepted >= self.quorum.needed() {
            Verdict::Proved(FencingToken::at_least_one(self.proposed))
        } else if self.number == RoundNumber::First && hold >= self.quorum.needed() {
            Verdict::AskAgain(self.highest_refusal.max(self.proposed).saturating_add(1))
        } else {
            Verdict::Unproved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: [Option<Judgement>; 5] = [
        Some(Judgement::Accepted),
        Some(Judgement::Refused { seen: 7 }),
        Some(Judgement::Refused { seen: 90 }),
        Some(Judgement::NotHeld),
        None,
    ];

    #[test]
    fn a_proposal_is_above_the_clock_and_all_that_was_seen() {
        assert_eq!(propose(5, 9), 10);
        assert_eq!(propose(9, 5), 10);
        assert_eq!(propose(u64::MAX, 0), u64::MAX);
    }

    #[test]
    fn a_majority_of_one_round_proves_and_every_set_of_answers_settles() {
        for nodes in [1, 3, 5] {
            let quorum = Quorum::of(nodes).unwrap();
            for code in 0..5_usize.pow(nodes as u32) {
                let answers: Vec<_> = (0..nodes).map(|at| ANSWERS[code / 5_usize.pow(at as u32) % 5]).collect();
                for number in [RoundNumber::First, RoundNumber::Second] {
                    let mut round = FenceRound::new(quorum, number, 50);
                    for (heard, &answer) in answers.iter().enumerate() {
                        let accepted = answers[..heard].iter().filter(|&&a| a == ANSWERS[0]).count();
                        let is_proved = matches!(round.close(), Verdict::Proved(_));
                        assert_eq!(is_proved, accepted > nodes / 2, "{answers:?} after {heard}");
                        round.count(answer);
                    }
                    let of = |wanted: &[Option<Judgement>]| answers.iter().filter(|a| wanted.contains(a)).count();
                    let next = if of(&ANSWERS[2..3]) > 0 { 91 } else { 51 };
                    let expected = match number {
                        _ if of(&ANSWERS[..1]) > nodes / 2 => Verdict::Proved(FencingToken::at_least_one(50)),
                        RoundNumber::First if of(&ANSWERS[..3]) > nodes / 2 => Verdict::AskAgain(next),
                        RoundNumber::First | RoundNumber::Second => Verdict::Unproved,
                    };
                    assert_eq!(round.close(), expected, "{answers:?}");
                }
            }
        }
    }
}
