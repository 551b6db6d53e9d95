//! What the nodes tell by themselves, as one: [`watch`], [`events`].
//!
//! A release is told by each node that carried it out. One hint would wake a waiter while most nodes still hold the
//! key; so it is passed on when a majority has told it within a while. **What fewer tell is dropped**: whoever failed to
//! get a majority gives back what he got, and if that woke others, their failures would wake him in turn. A release
//! of which a majority's message is lost is found out by the next poll.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, SelectAll, select_all, unfold};
use tokio::sync::mpsc;

use super::super::Inner;
use crate::key::Key;
use crate::store::{Events, Hint, Sent, Store, StoreError, Watch};

/// So long is waited for the other nodes to say the same.
const GATHER: Duration = Duration::from_millis(50);
/// Between two attempts to listen to a node's events.
const AGAIN: Duration = Duration::from_millis(100);

/// Listens to one key on all nodes; answers when it is in force on a majority.
pub(crate) async fn watch(inner: &Arc<Inner>, key: &Key) -> Result<Watch, StoreError> {
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (tell, mut told) = mpsc::channel(inner.nodes.len());
    for node in &inner.nodes {
        let (node, key, tell) = (Arc::clone(node), key.clone(), tell.clone());
        runtime.spawn(async move {
            let watch = node.store.watch_unmarked(&key).await.map(|watch| (node.index, watch));
            // Nobody may be waiting for it any more: then the watch ends here.
            let _ = tell.send(watch).await;
        });
    }
    drop(tell);
    let (mut watches, mut last) = (Vec::new(), StoreError::NotRunning);
    while watches.len() < inner.quorum.needed() {
        match told.recv().await {
            Some(Ok(watch)) => watches.push(watch),
            Some(Err(error)) => last = error,
            None => return Err(last),
        }
    }
    let (ended, mut end) = tokio::sync::oneshot::channel::<()>();
    let (sender, watch) = Watch::new(move || drop(ended));
    let needed = inner.quorum.needed();
    runtime.spawn(async move {
        let mut hints = select_all(watches.into_iter().map(stream));
        loop {
            let hint = tokio::select! {
                _ = &mut end => return,
                Some(Ok(more)) = told.recv() => {
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
    });
    Ok(watch)
}

/// What a node has told.
type Told = (usize, Hint);
type Hints = SelectAll<std::pin::Pin<Box<dyn futures_util::Stream<Item = Told> + Send>>>;

fn stream((node, watch): (usize, Watch)) -> std::pin::Pin<Box<dyn futures_util::Stream<Item = Told> + Send>> {
    Box::pin(unfold(watch, move |mut watch| async move { Some(((node, watch.next().await?), watch)) }))
}

/// Waits until so many nodes have told something, or long enough; answers what they told, each thing once.
async fn gather(hints: &mut Hints, first: Told, needed: usize) -> Vec<Hint> {
    let (mut nodes, mut told) = (vec![first.0], vec![first.1]);
    let gathering = async {
        while nodes.len() < needed {
            let Some((node, hint)) = hints.next().await else { return };
            if !nodes.contains(&node) {
                nodes.push(node);
            }
            if !told.contains(&hint) {
                told.push(hint);
            }
        }
    };
    // Whoever has nothing to tell is not waited for.
    let _ = tokio::time::timeout(GATHER, gathering).await;
    if nodes.len() < needed {
        // These concern whoever waits, however few tell them.
        told.retain(|hint| matches!(hint, Hint::Forced | Hint::Resumed));
    }
    told
}

/// Listens to what concerns the process, on all nodes; in force when it is on a majority.
pub(crate) async fn events(inner: &Arc<Inner>) -> Result<Events, StoreError> {
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (sender, events) = Events::new();
    let sender = Arc::new(sender);
    let mut opening: FuturesUnordered<_> = inner
        .nodes
        .iter()
        .map(|node| {
            let (node, sender) = (Arc::clone(node), Arc::clone(&sender));
            // It goes on trying: a node that is away may come.
            let (tell, hear) = tokio::sync::oneshot::channel();
            runtime.spawn(async move {
                let mut tell = Some(tell);
                loop {
                    let opened = node.store.events().await;
                    let again = opened.as_ref().err() != Some(&StoreError::NotRunning);
                    if let Some(tell) = tell.take() {
                        // Whoever asked may have gone; then nobody hears the events either.
                        let _ = tell.send(opened.as_ref().map(drop).map_err(Clone::clone));
                    }
                    if let Ok(mut events) = opened {
                        while let Some(event) = events.next().await {
                            if sender.send(event) == Sent::Gone {
                                return;
                            }
                        }
                        return;
                    }
                    if !again {
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
            hear
        })
        .collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_majority_tells_is_told_once_and_what_fewer_tell_is_not() {
        let (senders, watches): (Vec<_>, Vec<_>) = (0..5).map(|_| Watch::new(|| ())).unzip();
        let mut hints = select_all(watches.into_iter().enumerate().map(stream));
        let told = |node: usize, hint| assert_eq!(senders[node].send(hint), Sent::Heard);
        for (node, hint) in [(0, Hint::Free), (1, Hint::Released), (2, Hint::Free)] {
            told(node, hint);
        }
        let first = hints.next().await.unwrap();
        let mut heard = gather(&mut hints, first, 3).await;
        heard.sort_by_key(|hint| *hint as u8);
        assert_eq!(heard, [Hint::Released, Hint::Free]);
        // A node that tells it often is one node.
        for (node, hint) in [(0, Hint::Released), (0, Hint::Released), (1, Hint::Free), (1, Hint::Released)] {
            told(node, hint);
        }
        let first = hints.next().await.unwrap();
        assert_eq!(gather(&mut hints, first, 3).await, []);
        told(4, Hint::Forced);
        let first = hints.next().await.unwrap();
        assert_eq!(gather(&mut hints, first, 3).await, [Hint::Forced]);
    }
}
