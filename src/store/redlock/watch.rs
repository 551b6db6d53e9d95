//! What the nodes tell by themselves, as one: [`watch`], [`events`].
//!
//! A release is told by each node that carried it out. One hint would wake a waiter while most nodes still hold the
//! key; so it is passed on when a majority has told it, or a little later: some may have had nothing to tell.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, SelectAll, select_all, unfold};
use tokio::sync::mpsc;

use super::Inner;
use crate::key::Key;
use crate::store::{Events, Hint, Sent, Store, StoreError, Watch};

/// So long is waited for the other nodes to say the same.
const GATHER: Duration = Duration::from_millis(10);

/// Listens to one key on all nodes; answers when it is in force on a majority.
pub(super) async fn watch(inner: &Arc<Inner>, key: &Key) -> Result<Watch, StoreError> {
    let runtime = inner.runtime().ok_or(StoreError::NotRunning)?;
    let (tell, mut told) = mpsc::channel(inner.nodes.len());
    for node in &inner.nodes {
        let (node, key, tell) = (Arc::clone(node), key.clone(), tell.clone());
        runtime.spawn(async move {
            // Nobody may be waiting for it any more: then the watch ends here.
            let _ = tell.send(node.store.watch(&key).await).await;
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

type Hints = SelectAll<std::pin::Pin<Box<dyn futures_util::Stream<Item = Hint> + Send>>>;

fn stream(watch: Watch) -> std::pin::Pin<Box<dyn futures_util::Stream<Item = Hint> + Send>> {
    Box::pin(unfold(watch, async |mut watch| Some((watch.next().await?, watch))))
}

/// Waits until so many have told something, or long enough; answers what was told, each thing once.
async fn gather(hints: &mut Hints, first: Hint, needed: usize) -> Vec<Hint> {
    let (mut told, mut count) = (vec![first], 1);
    let gathering = async {
        while count < needed {
            let Some(hint) = hints.next().await else { return };
            count += 1;
            if !told.contains(&hint) {
                told.push(hint);
            }
        }
    };
    // Whoever has nothing to tell is not waited for.
    let _ = tokio::time::timeout(GATHER, gathering).await;
    told
}

/// Listens to what concerns the process, on all nodes; in force when it is on a majority.
pub(super) async fn events(inner: &Arc<Inner>) -> Result<Events, StoreError> {
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
                    tokio::time::sleep(GATHER * 10).await;
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
    async fn what_the_nodes_tell_is_told_once_and_nothing_of_it_is_lost() {
        let (senders, watches): (Vec<_>, Vec<_>) = (0..3).map(|_| Watch::new(|| ())).unzip();
        let mut hints = select_all(watches.into_iter().map(stream));
        for (sender, hint) in senders.iter().zip([Hint::Free, Hint::Forced, Hint::Free]) {
            assert_eq!(sender.send(hint), Sent::Heard);
        }
        let first = hints.next().await.unwrap();
        let mut told = gather(&mut hints, first, 3).await;
        told.sort_by_key(|hint| *hint as u8);
        assert_eq!(told, [Hint::Forced, Hint::Free]);
        // Fewer than asked for are waited for only so long.
        assert_eq!(senders[0].send(Hint::Released), Sent::Heard);
        let first = hints.next().await.unwrap();
        assert_eq!(gather(&mut hints, first, 3).await, [Hint::Released]);
    }
}
