//! What each node has of a key: `node_states.lua`, for people who look at one lock.
//!
//! Nothing is decided here: [`look`](super::look) says who holds the key. All nodes are waited for, as long as a round
//! takes.

use std::sync::Arc;

use super::super::fanout::{Enough, Fanout};
use super::super::inner::Inner;
use super::super::node::Node;
use super::super::quorum::Quorum;
use super::super::script::NODE_STATE;
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::store::redis::call::call;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::ScriptArgs;
use crate::store::{NodeVote, Vote};

/// What a node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Has {
    Nothing,
    /// The token that was asked about.
    Ours,
    /// A value with this mark.
    Some(i64),
    OtherKind,
}

/// What a node has, and whether it is in quarantine.
type NodeState = (Has, Silence);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Silence {
    Kept,
    Over,
}

pub(crate) async fn votes(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Vec<NodeVote> {
    let begun = inner.now();
    let mut states = vec![None; inner.nodes.len()];
    if let Ok(names) = inner.names(key) {
        // Nobody can guess it, so a mark gives nothing away of a value that could be guessed.
        let salt = Token::random();
        let mut fanout = Fanout::to_all(inner, |node| ask(inner, Arc::clone(node), &names, (token, salt), begun));
        let collecting = fanout.collect(inner, begun, |node, state| {
            states[node] = state;
            Enough::No
        });
        collecting.await;
    }
    let votes = count(inner.quorum, &states);
    inner.nodes.iter().zip(votes).map(|(node, vote)| NodeVote::new(Arc::clone(&node.name), vote)).collect()
}

async fn ask(
    inner: &Inner,
    node: Arc<Node>,
    names: &KeyNames,
    (token, salt): (Option<Token>, Token),
    begun: Moment,
) -> Option<NodeState> {
    // A node that may not vote is not asked.
    node.wire(begun).await.ok()?;
    let token = token.map(|token| token.as_uuid().hyphenated().to_string()).unwrap_or_default();
    let salt = salt.as_uuid().hyphenated();
    let parts = |_| ScriptArgs::of([names.lock(), &*inner.config.marker]).arg(salt).arg(&token);
    let answer = call(&node.redis, names, &NODE_STATE, begun, (), parts).await.ok()?;
    read(answer.reply.code(), answer.reply.rest())
}

fn read(code: i64, rest: &[i64]) -> Option<NodeState> {
    let &[silent, ours, mark] = rest else { return None };
    let has = match (code, ours) {
        (0, _) => Has::Nothing,
        (1, 0) => Has::Some(mark),
        (1, _) => Has::Ours,
        _ => Has::OtherKind,
    };
    Some((has, if silent == 0 { Silence::Over } else { Silence::Kept }))
}

/// The vote of each node. Without a token the holder is whoever has a majority.
fn count(quorum: Quorum, states: &[Option<NodeState>]) -> Vec<Vote> {
    let having = |wanted: Has| states.iter().flatten().filter(|(has, _)| *has == wanted).count();
    let vote = |(has, silence): NodeState| match has {
        _ if silence == Silence::Kept => Vote::Quarantined,
        Has::Nothing => Vote::Free,
        Has::Ours => Vote::Holder,
        Has::Some(_) if having(has) >= quorum.needed() => Vote::Holder,
        Has::Some(_) | Has::OtherKind => Vote::Other,
    };
    states.iter().map(|state| state.map_or(Vote::Unknown, vote)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_the_token_that_is_known_or_else_whoever_has_a_majority() {
        use Vote::{Free, Holder, Other, Quarantined, Unknown};
        let over = |has| Some((has, Silence::Over));
        let votes = |said: &[Option<NodeState>]| count(Quorum::of(said.len()).unwrap(), said);
        let (one, two) = (over(Has::Some(1)), over(Has::Some(2)));
        assert_eq!(votes(&[one, two, one]), [Holder, Other, Holder]);
        assert_eq!(votes(&[one, two, None]), [Other, Other, Unknown], "nobody has a majority");
        assert_eq!(votes(&[over(Has::Ours), over(Has::Nothing), None]), [Holder, Free, Unknown]);
        assert_eq!(votes(&[over(Has::Ours), one, one]), [Holder, Holder, Holder], "which cannot be");
        let kept = Some((Has::Some(1), Silence::Kept));
        assert_eq!(votes(&[one, kept, None]), [Holder, Quarantined, Unknown], "it was given back");
        assert_eq!(votes(&[over(Has::OtherKind), over(Has::OtherKind), None]), [Other, Other, Unknown]);
    }

    #[test]
    fn what_no_script_of_ours_answers_is_no_vote() {
        assert_eq!(read(1, &[0, 1, 7]), Some((Has::Ours, Silence::Over)));
        assert_eq!(read(1, &[1, 0, 7]), Some((Has::Some(7), Silence::Kept)));
        assert_eq!(read(1, &[0, 1]), None);
    }
}
