//! One request to each node at once, and the answers in the order in which they come: [`Fanout`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::inner::Inner;
use super::node::Node;
use super::quorum::Ballot;
use crate::clock::Moment;
use crate::store::StoreError;

/// Whether more answers are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Enough {
    Yes,
    No,
}

/// One future for each node, by the node's index. All are polled before any answer is given out: what can be sent at
/// once has been sent to all by then.
pub(super) struct Fanout<F: Future> {
    running: Vec<Option<Pin<Box<F>>>>,
    /// Those that came together with the one that was given out.
    answers: Vec<(usize, F::Output)>,
}

impl<F: Future> Fanout<F> {
    pub(super) fn to_all(inner: &Inner, ask: impl FnMut(&Arc<Node>) -> F) -> Self {
        let running: Vec<_> = inner.nodes.iter().map(ask).map(|asking| Some(Box::pin(asking))).collect();
        let answers = Vec::with_capacity(running.len());
        Self { running, answers }
    }

    /// The next node to answer.
    pub(super) async fn next(&mut self) -> Option<(usize, F::Output)> {
        poll_fn(|context| {
            for (node, slot) in self.running.iter_mut().enumerate() {
                if let Some(future) = slot
                    && let Poll::Ready(answer) = future.as_mut().poll(context)
                {
                    *slot = None;
                    self.answers.push((node, answer));
                }
            }
            match self.answers.pop() {
                Some(answer) => Poll::Ready(Some(answer)),
                None if self.running.iter().all(Option::is_none) => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// How many answers have not been given out.
    pub(super) fn pending(&self) -> usize {
        self.running().len() + self.answers.len()
    }

    /// The nodes that have not answered.
    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.running.len()).filter(|node| self.running[*node].is_some()).collect()
    }

    /// Passes answers on until they are enough, until there are no more, or for the per-node timeout.
    pub(super) async fn collect(
        &mut self,
        inner: &Inner,
        begun: Moment,
        mut on_answer: impl FnMut(usize, F::Output) -> Enough,
    ) {
        let collecting = async {
            while let Some((node, answer)) = self.next().await {
                if on_answer(node, answer) == Enough::Yes {
                    return;
                }
            }
        };
        // A node that has not answered by then counts as unknown.
        let _ = inner.ticks.within(begun, inner.config.node_timeout, collecting).await;
    }

    /// Passes the answers that are left on, in the background.
    pub(super) fn drain_in_background(
        mut self,
        inner: &Inner,
        mut on_answer: impl FnMut(usize, F::Output) + Send + 'static,
    ) where
        F: Send + 'static,
        F::Output: Send,
    {
        // Without a runtime the store has stopped, and the guards inside the futures take over.
        if let (false, Some(runtime)) = (self.pending() == 0, inner.runtime()) {
            runtime.spawn(async move {
                while let Some((node, answer)) = self.next().await {
                    on_answer(node, answer);
                }
            });
        }
    }
}

/// Why too few nodes voted, node by node. One that neither did nor failed was too slow.
pub(super) fn undecided(inner: &Inner, ballot: &Ballot, mut errors: Vec<(usize, StoreError)>) -> StoreError {
    let is_silent = |node: &usize| !ballot.has_voted(*node) && errors.iter().all(|(failed, _)| failed != node);
    let silent: Vec<usize> = (0..inner.nodes.len()).filter(is_silent).collect();
    let answered = inner.nodes.len() - errors.len() - silent.len();
    errors.extend(silent.into_iter().map(|node| (node, StoreError::Timeout)));
    no_quorum(inner, answered, &errors)
}

/// Why too few nodes answered, node by node.
pub(super) fn no_quorum(inner: &Inner, answered: usize, errors: &[(usize, StoreError)]) -> StoreError {
    let total = inner.nodes.len();
    // No waiting helps there, so it is not buried in a list.
    if let Some((_, StoreError::Config(why))) = errors.iter().find(|(_, e)| matches!(e, StoreError::Config(_))) {
        return StoreError::Config(Arc::clone(why));
    }
    if errors.len() == total && errors.iter().all(|(_, error)| *error == StoreError::NotRunning) {
        return StoreError::NotRunning;
    }
    let name = |node: &usize| inner.nodes.get(*node).map_or("", |node| &*node.name);
    let why: Vec<String> = errors.iter().map(|(node, error)| format!("{}: {error}", name(node))).collect();
    StoreError::NoQuorum { answered, needed: inner.quorum.needed(), nodes: total, why: why.join("; ").into() }
}
