//! What the nodes say by themselves, as one: [`watch`], [`events`].
//!
//! A release is announced by each node that carried it out. One hint would wake a waiter while most nodes still hold
//! the key; so it is passed on when a majority has said it within a while. **What fewer say is dropped**: a rival that
//! failed to get a majority gives its nodes back, and if that woke others, their failures would wake the rival in turn.
//! If too many messages about a release are lost, the next poll finds the key free.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, SelectAll, select_all, unfold};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::super::inner::Inner;
use super::super::node::Node;
use crate::key::Key;
use crate::store::{Event, Events, Hint, Sender, Sent, Store, StoreError, Watch};

/// How long the other nodes are waited for to say the same.
const GATHER: Duration = Duration::from_millis(50);
/// Between two attempts to listen to a node's events.
const AGAIN: Duration = Duration::from_millis(100);

/// A hint, and the node that gave it.
type NodeHint = (usize, Hint);
type NodeHints = Pin<Box<dyn Stream<Item = NodeHint> + Send>>;

/// Listens to one key on all nodes; answers when it is in force on a majority.
pub(crate) async fn watch(inner: &Arc<Inner>, key: &Key) -> Result<Watch, StoreError> {
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (sender, mut opened) = mpsc::channel(inner.nodes.len());
    for node in &inner.nodes {
        let (node, key, sender) = (Arc::clone(node), key.clone(), sender.clone());
        runtime.spawn(async move {
            let watch = node.store.watch_unmarked(&key).await.map(|watch| (node.index, watch));
            // The receiver may be gone: then this node's watch ends here.
            let _ = sender.send(watch).await;
        });
    }
    drop(sender);
    let (mut watches, mut last) = (Vec::new(), StoreError::NotRunning);
    while watches.len() < inner.quorum.needed() {
        match opened.recv().await {
            Some(Ok(watch)) => watches.push(watch),
            Some(Err(error)) => last = error,
            None => return Err(last),
        }
    }
    let (at_end, end) = oneshot::channel::<()>();
    let (sender, watch) = Watch::new(move || drop(at_end));
    runtime.spawn(pass_on(watches, opened, end, sender, inner.quorum.needed()));
    Ok(watch)
}

/// Passes on what so many nodes say, until the end or until all nodes have stopped.
async fn pass_on(
    watches: Vec<(usize, Watch)>,
    mut opened: mpsc::Receiver<Result<(usize, Watch), StoreError>>,
    mut end: oneshot::Receiver<()>,
    sender: Sender<Hint>,
    needed: usize,
) {
    let mut hints = select_all(watches.into_iter().map(stream));
    loop {
        let hint = tokio::select! {
            _ = &mut end => return,
            Some(Ok(more)) = opened.recv() => {
                hints.push(stream(more));
                continue;
            }
            hint = hints.next() => hint,
        };
        let Some(hint) = hint else { return };
        for hint in gather(&mut hints, hint, needed).await {
            if sender.send(hint) == Sent::Gone {
                return;
            }
        }
    }
}

fn stream((node, watch): (usize, Watch)) -> NodeHints {
    Box::pin(unfold(watch, move |mut watch| async move { Some(((node, watch.next().await?), watch)) }))
}

/// Waits until so many nodes have given a hint, or long enough; answers their hints, each once.
async fn gather(hints: &mut SelectAll<NodeHints>, first: NodeHint, needed: usize) -> Vec<Hint> {
    let (mut nodes, mut gathered) = (vec![first.0], vec![first.1]);
    let gathering = async {
        while nodes.len() < needed {
            let Some((node, hint)) = hints.next().await else { return };
            if !nodes.contains(&node) {
                nodes.push(node);
            }
            if !gathered.contains(&hint) {
                gathered.push(hint);
            }
        }
    };
    // Nodes that have no hint are not waited for any longer.
    let _ = tokio::time::timeout(GATHER, gathering).await;
    if nodes.len() < needed {
        // These concern every waiter, however few nodes give them.
        gathered.retain(|hint| matches!(hint, Hint::Forced | Hint::Resumed));
    }
    gathered
}

/// Listens to what concerns the process, on all nodes; answers when it is in force on a majority.
pub(crate) async fn events(inner: &Arc<Inner>) -> Result<Events, StoreError> {
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (sender, events) = Events::new();
    let sender = Arc::new(sender);
    let open = |node: &Arc<Node>| {
        let (first, opened) = oneshot::channel();
        runtime.spawn(pass_events_on(Arc::clone(node), Arc::clone(&sender), first));
        opened
    };
    let mut opening: FuturesUnordered<_> = inner.nodes.iter().map(open).collect();
    let (mut open, mut last) = (0, StoreError::NotRunning);
    while let Some(opened) = opening.next().await {
        match opened {
            Ok(Ok(())) => open += 1,
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if open >= inner.quorum.needed() {
            return Ok(events);
        }
    }
    Err(last)
}

/// Passes the events of one node on. Goes on trying to listen, as a node that is away may come; `first` gets the result
/// of the first attempt.
async fn pass_events_on(node: Arc<Node>, sender: Arc<Sender<Event>>, first: oneshot::Sender<Result<(), StoreError>>) {
    let mut first = Some(first);
    loop {
        let opened = node.store.events().await;
        if let Some(first) = first.take() {
            // The receiver may be gone; then nobody receives the events either.
            let _ = first.send(opened.as_ref().map(drop).map_err(Clone::clone));
        }
        match opened {
            Ok(mut events) => {
                while let Some(event) = events.next().await {
                    if sender.send(event) == Sent::Gone {
                        return;
                    }
                }
                return;
            }
            Err(StoreError::NotRunning) => return,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_majority_says_is_passed_on_once_and_what_fewer_say_is_not() {
        let (senders, watches): (Vec<_>, Vec<_>) = (0..5).map(|_| Watch::new(|| ())).unzip();
        let mut hints = select_all(watches.into_iter().enumerate().map(stream));
        let say = |node: usize, hint| assert_eq!(senders[node].send(hint), Sent::Heard);
        for (node, hint) in [(0, Hint::Free), (1, Hint::Released), (2, Hint::Free)] {
            say(node, hint);
        }
        let first = hints.next().await.unwrap();
        let mut gathered = gather(&mut hints, first, 3).await;
        gathered.sort_by_key(|hint| *hint as u8);
        assert_eq!(gathered, [Hint::Released, Hint::Free]);
        // A node that says it often is one node.
        for (node, hint) in [(0, Hint::Released), (0, Hint::Released), (1, Hint::Free), (1, Hint::Released)] {
            say(node, hint);
        }
        let first = hints.next().await.unwrap();
        assert_eq!(gather(&mut hints, first, 3).await, []);
        say(4, Hint::Forced);
        let first = hints.next().await.unwrap();
        assert_eq!(gather(&mut hints, first, 3).await, [Hint::Forced]);
    }
}
