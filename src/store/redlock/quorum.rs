//! Votes of N nodes (L1 to L4): when an acquire or an extend is decided, what must be released, repaired, kept silent.
//!
//! Answers come in any order, twice, late or never; each is counted with the moment at which it came. A ballot is
//! decided as soon as no further answer could change it, stays as it was decided, and is always decided once every node
//! has answered or the deadline has passed: every split settles. Nothing here asks a node.

use std::time::Duration;

use crate::clock::Moment;

/// The nodes that vote, and how many of them decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quorum {
    nodes: usize,
}

/// Why some nodes cannot vote together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum QuorumError {
    /// Configure some.
    #[error("no nodes are given")]
    None,
    /// Add one node, or take one away.
    #[error(
        "{0} nodes is an even number: it bears no more failures than {less}, and splits more often: use {less} or {more}",
        less = .0 - 1,
        more = .0 + 1
    )]
    Even(usize),
    /// Name each node once: two names of one node would give it two votes.
    #[error("nodes {first} and {second} are the same one (counted from 0)")]
    Twice { first: usize, second: usize },
}

impl Quorum {
    /// A quorum over so many nodes, which the caller knows to be distinct.
    ///
    /// # Errors
    /// [`QuorumError::None`] or [`QuorumError::Even`].
    pub(crate) fn of(nodes: usize) -> Result<Self, QuorumError> {
        match nodes {
            0 => Err(QuorumError::None),
            even if even % 2 == 0 => Err(QuorumError::Even(even)),
            nodes => Ok(Self { nodes }),
        }
    }

    /// A quorum over nodes that are told apart by `names`: endpoints when configured, run ids when connected (L1).
    ///
    /// # Errors
    /// As for [`Self::of`], and [`QuorumError::Twice`].
    pub(crate) fn over<T: PartialEq>(names: &[T]) -> Result<Self, QuorumError> {
        for (second, name) in names.iter().enumerate() {
            if let Some(first) = names[..second].iter().position(|other| other == name) {
                return Err(QuorumError::Twice { first, second });
            }
        }
        Self::of(names.len())
    }

    /// How many nodes there are.
    pub(crate) fn nodes(self) -> usize {
        self.nodes
    }

    /// How many of them decide: more than half of all, whether they answer or not.
    pub(crate) fn needed(self) -> usize {
        self.nodes / 2 + 1
    }

    /// How many can fail to agree without making a quorum impossible.
    fn spare(self) -> usize {
        self.nodes - self.needed()
    }
}

/// How one node votes on an acquire, an extend or a release.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Vote {
    /// It holds our token, for the TTL that was asked.
    Granted,
    /// It would, or does already, but not under the fence that was proposed (L5): it is to be asked again.
    Refused,
    /// It holds something else, or for an extend: not our token any more.
    Denied,
    /// It is in quarantine (L4), and says neither.
    Abstained,
    /// No answer came, or none that says. It may hold our token.
    Unknown,
}

/// How far a ballot is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum BallotState {
    /// Further votes may decide either way.
    Open,
    /// A quorum granted before the deadline.
    Granted,
    /// Too few granted, but with those that refused the fence they are a quorum: a higher one is to be proposed.
    Refused,
    /// Enough nodes denied to say that no quorum could have granted.
    Denied,
    /// Too few granted, and too few denied: nobody can tell.
    Unknown,
    /// The deadline passed first. What was granted until then has run out, or is about to.
    TooLate,
}

/// One acquire or one extend, put to all nodes at once.
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    quorum: Quorum,
    /// Local, with the drift taken off (R8); for an extend, the old one (L3).
    deadline: Moment,
    votes: Vec<Option<Vote>>,
    state: BallotState,
}

impl Ballot {
    /// An empty ballot that must be decided before `deadline`.
    pub(crate) fn new(quorum: Quorum, deadline: Moment) -> Self {
        Self { quorum, deadline, votes: vec![None; quorum.nodes()], state: BallotState::Open }
    }

    /// How far the ballot is.
    pub(crate) fn state(&self) -> BallotState {
        self.state
    }

    /// Counts one node's vote that came at `now`. A node's first definite vote counts; one that replaces its `Unknown`
    /// does too, as long as the ballot is open.
    ///
    /// # Panics
    /// If there is no such node.
    pub(crate) fn cast(&mut self, node: usize, vote: Vote, now: Moment) {
        self.check_deadline(now);
        let slot = &mut self.votes[node];
        if matches!(slot, None | Some(Vote::Unknown)) {
            *slot = Some(vote);
        }
        if self.state == BallotState::Open {
            self.state = self.count();
        }
    }

    /// An open ballot at or past its deadline has failed.
    pub(crate) fn check_deadline(&mut self, now: Moment) {
        if self.state == BallotState::Open && now >= self.deadline {
            self.state = BallotState::TooLate;
        }
    }

    /// Ends the wait for nodes that have not answered: each counts as unknown. The ballot is decided then.
    pub(crate) fn settle(&mut self, now: Moment) -> BallotState {
        self.check_deadline(now);
        self.votes.iter_mut().for_each(|vote| {
            vote.get_or_insert(Vote::Unknown);
        });
        if self.state == BallotState::Open {
            self.state = self.count();
        }
        self.state
    }

    /// Whether the node has voted.
    pub(crate) fn has_voted(&self, node: usize) -> bool {
        !matches!(self.votes[node], None | Some(Vote::Unknown))
    }

    /// How many nodes have voted.
    pub(crate) fn answered(&self) -> usize {
        (0..self.votes.len()).filter(|node| self.has_voted(*node)).count()
    }

    /// The nodes that said that they do not hold the token, or may have forgotten it.
    pub(crate) fn lost(&self) -> Vec<usize> {
        let lost = |node: &usize| matches!(self.votes[*node], Some(Vote::Denied | Vote::Abstained));
        (0..self.votes.len()).filter(lost).collect()
    }

    fn count(&self) -> BallotState {
        let of = |kind: Vote| self.votes.iter().filter(|vote| **vote == Some(kind)).count();
        let (granted, refused, denied) = (of(Vote::Granted), of(Vote::Refused), of(Vote::Denied));
        let missing = self.votes.iter().filter(|vote| vote.is_none()).count();
        if granted >= self.quorum.needed() {
            BallotState::Granted
        } else if denied > self.quorum.spare() {
            BallotState::Denied
        } else if granted + refused >= self.quorum.needed() && granted + missing < self.quorum.needed() {
            BallotState::Refused
        // Not before the others have answered: a denial may still distinguish contention from an outage.
        } else if missing == 0 {
            BallotState::Unknown
        } else {
            BallotState::Open
        }
    }

    /// The nodes that a granted extend found without our token, and the TTL to give them (L3): what is left until
    /// `new_deadline`, never more, and nothing once that has passed. A quarantined node may be repaired: it still
    /// does not vote for others. The caller keeps R6: no repair once the release has begun.
    pub(crate) fn to_repair(&self, new_deadline: Moment, now: Moment) -> Option<(Vec<usize>, Duration)> {
        let left = new_deadline.saturating_since(now);
        let nodes = self.lost();
        (self.state == BallotState::Granted && !left.is_zero() && !nodes.is_empty()).then_some((nodes, left))
    }
}

/// What survives a node's restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durability {
    /// `appendfsync always`: all that it answered.
    Always,
    /// Less: nothing, a snapshot, or all but the last second.
    Partial,
}

/// `INFO` gives an uptime as a difference of whole seconds, which may be this much more than the true one.
const UPTIME_RESOLUTION: Duration = Duration::from_secs(1);

/// For how long a node that has been up for `uptime` is silent still because of its start (L4): a lock that it has
/// forgotten may be held until then. Nodes that forget nothing are not silent; one that was only paused has its uptime.
///
/// `max_ttl` is the longest TTL that any process of the store may ask for. What a flush at any uptime calls for is in
/// the node's marker, which the scripts keep.
pub(crate) fn silence(uptime: Duration, durability: Durability, max_ttl: Duration) -> Duration {
    match durability {
        Durability::Always => Duration::ZERO,
        Durability::Partial => max_ttl.saturating_sub(uptime.saturating_sub(UPTIME_RESOLUTION)),
    }
}

/// How much time a quorum of nodes has left, each of which may have another end: the time after which fewer than a
/// quorum of them are left. `None` if they are no quorum.
pub(crate) fn left_by_quorum(quorum: Quorum, lefts: &mut [Duration]) -> Option<Duration> {
    lefts.sort_unstable_by(|one, other| other.cmp(one));
    lefts.get(quorum.needed() - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const VOTES: [Vote; 5] = [Vote::Granted, Vote::Refused, Vote::Denied, Vote::Abstained, Vote::Unknown];

    fn ms(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn quorum(nodes: usize) -> Quorum {
        Quorum::of(nodes).unwrap()
    }

    fn open(nodes: usize) -> Ballot {
        Ballot::new(quorum(nodes), ms(100))
    }

    /// Every way in which nodes can have voted: 5^n of them.
    fn every_vote(nodes: usize) -> impl Iterator<Item = Vec<Vote>> {
        let of = |code: usize, at: usize| VOTES[code / 5_usize.pow(at as u32) % 5];
        (0..5_usize.pow(nodes as u32)).map(move |code| (0..nodes).map(|at| of(code, at)).collect())
    }

    /// What a set of votes must come to, by the words of L1 and L2.
    fn truth(votes: &[Vote]) -> BallotState {
        let of = |kind| votes.iter().filter(|&&vote| vote == kind).count();
        if 2 * of(Vote::Granted) > votes.len() {
            BallotState::Granted
        } else if 2 * of(Vote::Denied) > votes.len() {
            BallotState::Denied
        } else if 2 * (of(Vote::Granted) + of(Vote::Refused)) > votes.len() {
            BallotState::Refused
        } else {
            BallotState::Unknown
        }
    }

    #[test]
    fn only_odd_numbers_of_distinct_nodes_vote() {
        assert_eq!(Quorum::of(0), Err(QuorumError::None));
        for nodes in 1..=9 {
            match nodes % 2 {
                0 => assert_eq!(Quorum::of(nodes), Err(QuorumError::Even(nodes))),
                _ => assert_eq!(quorum(nodes).needed(), nodes.div_ceil(2)),
            }
        }
        let even = QuorumError::Even(4).to_string();
        assert!(even.contains("even") && even.contains("3 or 5"), "{even}");
        assert_eq!(Quorum::over(&["a", "b", "c"]), Ok(quorum(3)));
        assert_eq!(Quorum::over(&["a", "b", "a"]), Err(QuorumError::Twice { first: 0, second: 2 }));
        assert_eq!(Quorum::over::<&str>(&[]), Err(QuorumError::None));
    }

    /// Walks every order in which nodes can vote, each with every vote, and looks after each of them. Orders that led
    /// to the same ballot go on together.
    fn walk(ballot: &Ballot, cast: &mut Vec<Option<Vote>>, seen: &mut HashSet<(Vec<Option<Vote>>, BallotState)>) {
        if !seen.insert((cast.clone(), ballot.state())) {
            return;
        }
        let of = |kind| cast.iter().filter(|&&vote| vote == Some(kind)).count();
        let majority = cast.len() / 2 + 1;
        let expected = match () {
            () if of(Vote::Granted) >= majority => BallotState::Granted,
            () if of(Vote::Denied) >= majority => BallotState::Denied,
            () if of(Vote::Granted) + of(Vote::Refused) >= majority
                && of(Vote::Granted) + cast.iter().filter(|vote| vote.is_none()).count() < majority =>
            {
                BallotState::Refused
            }
            () if cast.iter().all(Option::is_some) => BallotState::Unknown,
            () => BallotState::Open,
        };
        assert_eq!(ballot.state(), expected, "{cast:?}");
        let mut settled = ballot.clone();
        let rest: Vec<Vote> = cast.iter().map(|vote| vote.unwrap_or(Vote::Unknown)).collect();
        assert_eq!(settled.settle(ms(1)), truth(&rest), "every set of votes settles: {cast:?}");
        for node in 0..cast.len() {
            if cast[node].is_some() {
                continue;
            }
            for vote in VOTES {
                let mut next = ballot.clone();
                next.cast(node, vote, ms(1));
                if ballot.state() != BallotState::Open {
                    assert_eq!(next.state(), ballot.state(), "a decided ballot stays decided");
                }
                cast[node] = Some(vote);
                walk(&next, cast, seen);
                cast[node] = None;
            }
        }
    }

    #[test]
    fn every_order_of_every_vote_is_decided_as_soon_as_it_can_be() {
        for nodes in [1, 3, 5, 7] {
            let mut seen = HashSet::new();
            walk(&open(nodes), &mut vec![None; nodes], &mut seen);
            assert_eq!(seen.len(), 6_usize.pow(nodes as u32), "the order changes nothing, and nothing was left out");
        }
    }

    #[test]
    fn a_quorum_at_the_deadline_is_too_late() {
        for nodes in [1, 3, 5, 7] {
            for granted in 0..=nodes {
                let mut ballot = open(nodes);
                for node in 0..nodes {
                    let now = if node < granted { ms(99) } else { ms(100) };
                    ballot.cast(node, Vote::Granted, now);
                }
                let quorum = granted > nodes / 2;
                assert_eq!(ballot.state(), if quorum { BallotState::Granted } else { BallotState::TooLate });
            }
            let mut silent = open(nodes);
            silent.check_deadline(ms(99));
            assert_eq!(silent.state(), BallotState::Open);
            assert_eq!(silent.settle(ms(100)), BallotState::TooLate);
        }
    }

    #[test]
    fn a_node_votes_once_unless_it_was_unknown() {
        let mut ballot = open(3);
        (0..2).for_each(|_| ballot.cast(0, Vote::Granted, ms(1)));
        assert_eq!(ballot.state(), BallotState::Open);
        for (node, vote) in [(0, Vote::Denied), (1, Vote::Unknown), (1, Vote::Granted)] {
            ballot.cast(node, vote, ms(1));
        }
        assert_eq!(ballot.state(), BallotState::Granted);
    }

    #[test]
    fn only_a_granted_extend_repairs_and_only_with_the_time_that_is_left() {
        for nodes in [1, 3, 5, 7] {
            for votes in every_vote(nodes) {
                let mut ballot = open(nodes);
                for (node, &vote) in votes.iter().enumerate() {
                    ballot.cast(node, vote, ms(1));
                }
                let lost: Vec<usize> =
                    (0..nodes).filter(|&n| matches!(votes[n], Vote::Denied | Vote::Abstained)).collect();
                let repaired = (ballot.state() == BallotState::Granted && !lost.is_empty())
                    .then_some((lost, Duration::from_millis(40)));
                assert_eq!(ballot.to_repair(ms(50), ms(10)), repaired, "{votes:?}");
                assert_eq!(ballot.to_repair(ms(50), ms(50)), None);
                assert_eq!(ballot.to_repair(ms(50), ms(60)), None);
            }
        }
    }

    #[test]
    fn a_node_that_may_have_forgotten_is_silent_for_the_longest_ttl() {
        let s = Duration::from_secs;
        let left = |uptime, durability| silence(s(uptime), durability, s(30));
        assert_eq!(left(0, Durability::Partial), s(30));
        assert_eq!(left(11, Durability::Partial), s(20));
        assert_eq!(left(30, Durability::Partial), s(1), "whole seconds overstate");
        assert_eq!(left(31, Durability::Partial), s(0));
        assert_eq!(left(0, Durability::Always), s(0));
    }

    #[test]
    fn a_quorum_lasts_until_too_few_are_left() {
        let lefts = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        for (left, of_three) in
            [(&[][..], None), (&[9], None), (&[9, 5], Some(5)), (&[5, 9, 7], Some(7)), (&[0, 9, 9], Some(9))]
        {
            assert_eq!(left_by_quorum(quorum(3), &mut lefts(left)), of_three.map(Duration::from_millis), "{left:?}");
        }
    }
}
