//! Looking who holds a lock, on all nodes, and what a majority of that means: [`Views`].

use std::sync::Arc;
use std::time::Duration;

use super::super::fanout::{Enough, Fanout, no_quorum};
use super::super::inner::Inner;
use super::super::node::Node;
use super::super::quorum::{Quorum, left_by_quorum};
use crate::key::{Key, Token};
use crate::store::{Holder, KeyState, Store, StoreError};

pub(crate) async fn look(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Result<KeyState, StoreError> {
    let begun = inner.now();
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), key.clone(), token));
    let (mut views, mut errors, mut seen) = (Views::new(inner.quorum), Vec::new(), None);
    let collecting = fanout.collect(inner, begun, |node, answer| {
        match answer {
            Ok(view) => views.0.push(view),
            Err(error) => errors.push((node, error)),
        }
        seen = views.meaning();
        if seen.is_some() { Enough::Yes } else { Enough::No }
    });
    collecting.await;
    seen.ok_or_else(|| no_quorum(inner, views.0.len(), &errors))
}

async fn ask(node: Arc<Node>, key: Key, token: Option<Token>) -> Result<KeyState, StoreError> {
    node.reachable()?.look(&key, token).await
}

/// What the nodes that have answered see.
struct Views(Vec<KeyState>, Quorum);

impl Views {
    fn new(quorum: Quorum) -> Self {
        Self(Vec::with_capacity(quorum.nodes()), quorum)
    }

    /// What it means, as soon as nodes that have not answered can change nothing.
    fn meaning(&self) -> Option<KeyState> {
        let (views, quorum) = (&self.0, self.1);
        let missing = quorum.nodes() - views.len();
        let held = |wanted: Option<Holder>| {
            views.iter().filter_map(move |view| match view {
                KeyState::Held { by, ends_in, fence } if wanted.is_none_or(|wanted| *by == wanted) => {
                    Some((ends_in.unwrap_or(Duration::MAX), *fence))
                }
                _ => None,
            })
        };
        let ends = |end: Duration| (end < Duration::MAX).then_some(end);
        let fence = held(None).filter_map(|(_, fence)| fence).max();
        let free = views.len() - held(None).count();
        if free >= quorum.needed() {
            return Some(KeyState::Free);
        }
        let mut ours: Vec<Duration> = held(Some(Holder::Ours)).map(|(end, _)| end).collect();
        if let Some(end) = left_by_quorum(quorum, &mut ours) {
            return Some(KeyState::Held { by: Holder::Ours, ends_in: ends(end), fence });
        }
        if free + missing >= quorum.needed() || ours.len() + missing >= quorum.needed() {
            return None;
        }
        // It is free again when a majority is.
        let mut others: Vec<Duration> = held(None).map(|(end, _)| end).collect();
        others.sort_unstable();
        let end = others.get(quorum.needed() - free - 1).copied().unwrap_or(Duration::MAX);
        let other_kind = held(Some(Holder::OtherKind)).count();
        let by = if other_kind >= quorum.needed() { Holder::OtherKind } else { Holder::Other };
        Some(KeyState::Held { by, ends_in: ends(end), fence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: Holder, ms: u64) -> KeyState {
        KeyState::Held { by, ends_in: Some(Duration::from_millis(ms)), fence: Some(ms) }
    }

    fn seen(nodes: usize, views: &[KeyState]) -> Option<KeyState> {
        Views(views.to_vec(), Quorum::of(nodes).unwrap()).meaning()
    }

    #[test]
    fn a_majority_says_who_holds_and_until_when() {
        use Holder::{Other, OtherKind, Ours};
        let free = || KeyState::Free;
        assert_eq!(seen(3, &[]), None);
        assert_eq!(seen(3, &[free()]), None);
        assert_eq!(seen(3, &[free(), held(Ours, 5)]), None, "the third decides");
        assert_eq!(seen(3, &[free(), held(Ours, 5), free()]), Some(KeyState::Free), "a minority is nothing");
        let until =
            |by, ms, fence| Some(KeyState::Held { by, ends_in: Some(Duration::from_millis(ms)), fence: Some(fence) });
        assert_eq!(seen(3, &[held(Ours, 9), held(Ours, 5)]), until(Ours, 5, 9), "until a majority ends");
        assert_eq!(seen(3, &[held(Ours, 9), held(Ours, 5), held(Ours, 7)]), until(Ours, 7, 9));
        assert_eq!(seen(3, &[held(Other, 9), held(Other, 5)]), until(Other, 9, 9), "until a majority is free");
        assert_eq!(seen(3, &[held(Other, 9), free(), held(Ours, 5)]), until(Other, 5, 9), "a split");
        assert_eq!(seen(3, &[held(OtherKind, 9), held(OtherKind, 9)]), until(OtherKind, 9, 9));
        assert_eq!(seen(1, &[held(Other, 4)]), until(Other, 4, 4));
    }
}
