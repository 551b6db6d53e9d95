//! What Redis tells without being asked: one connection that listens for the whole process (S10).
//!
//! Every watched key is one subscription, however many watch it. A task keeps the connection and the subscriptions in
//! step with the table of topics; after a break everybody is told to try, and to verify.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, Msg};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::Shared;
use super::names::Names;
use crate::key::Key;
use crate::store::{Event, Events, Hint, Sender, Sent, StoreError, Watch};

/// How often a connection that says nothing is asked whether it is there.
const PING: Duration = Duration::from_secs(1);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);
/// So many changes of subscriptions are taken up at once.
const BATCH: usize = 256;

/// Who listens to what.
pub(super) struct Ears {
    /// The channel of locks that were ended by force. Channels know no databases, so the number is in its name.
    pub(super) forced: Box<str>,
    topics: Mutex<Topics>,
    /// Channels whose subscription may have to change.
    changes: mpsc::UnboundedSender<Arc<str>>,
}

/// The receiving end of the changes, for the task.
pub(super) struct EarKeeper {
    changes: mpsc::UnboundedReceiver<Arc<str>>,
}

#[derive(Default)]
struct Topics {
    by_channel: HashMap<Arc<str>, Topic>,
    events: Vec<Sender<Event>>,
    last_id: u64,
    state: Listening,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Listening {
    #[default]
    Open,
    Closed,
}

struct Topic {
    watches: Vec<(u64, Sender<Hint>)>,
    in_force: watch::Sender<Force>,
}

/// Whether a subscription is confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    No,
    Yes,
}

impl Ears {
    pub(super) fn new(db: i64) -> (Arc<Self>, EarKeeper) {
        let (sender, changes) = mpsc::unbounded_channel();
        let forced = format!("{}forced@{db}", super::names::RESERVED).into();
        (Arc::new(Self { forced, topics: Mutex::default(), changes: sender }), EarKeeper { changes })
    }

    pub(super) fn events(&self) -> Result<Events, StoreError> {
        let (sender, events) = Events::new();
        let mut topics = self.topics.lock();
        if topics.state == Listening::Closed {
            return Err(StoreError::NotRunning);
        }
        topics.events.push(sender);
        Ok(events)
    }

    /// A watch of a channel, and where its confirmation is seen.
    fn watch(self: &Arc<Self>, channel: &str) -> Result<(Watch, watch::Receiver<Force>), StoreError> {
        let mut topics = self.topics.lock();
        if topics.state == Listening::Closed {
            return Err(StoreError::NotRunning);
        }
        topics.last_id += 1;
        let id = topics.last_id;
        let channel: Arc<str> = channel.into();
        let (ears, gone) = (Arc::clone(self), Arc::clone(&channel));
        let (sender, watch) = Watch::new(move || ears.unwatch(&gone, id));
        let topic = topics.by_channel.entry(Arc::clone(&channel)).or_insert_with(|| {
            // Without its task the subscription is never confirmed.
            let _ = self.changes.send(channel);
            Topic { watches: Vec::new(), in_force: watch::Sender::new(Force::No) }
        });
        topic.watches.push((id, sender));
        Ok((watch, topic.in_force.subscribe()))
    }

    fn unwatch(&self, channel: &Arc<str>, id: u64) {
        let mut topics = self.topics.lock();
        let Some(topic) = topics.by_channel.get_mut(channel) else { return };
        topic.watches.retain(|(other, _)| *other != id);
        if topic.watches.is_empty() {
            topics.by_channel.remove(channel);
            let _ = self.changes.send(Arc::clone(channel));
        }
    }

    /// Tells all who listen for events that they may have missed some.
    pub(super) fn resumed(&self) {
        self.topics.lock().tell(&Event::Resumed);
    }

    /// Ends every watch and all events.
    pub(super) fn close(&self) {
        let mut topics = self.topics.lock();
        topics.state = Listening::Closed;
        let ended = (std::mem::take(&mut topics.by_channel), std::mem::take(&mut topics.events));
        drop(topics);
        drop(ended);
    }

    /// Listens until it is dropped.
    pub(super) async fn listen(&self, mut keeper: EarKeeper, client: &Client, limit: Duration) {
        loop {
            if let Ok(Some((sink, stream))) = timeout(limit, self.connect(client)).await {
                self.hear(&mut keeper, sink, stream, limit).await;
                self.topics.lock().all_out_of_force();
            }
            sleep(RETRY).await;
        }
    }

    /// Connects, and subscribes to all that is watched.
    async fn connect(&self, client: &Client) -> Option<(PubSubSink, PubSubStream)> {
        let (mut sink, stream) = client.get_async_pubsub().await.ok()?.split();
        let mut channels = self.topics.lock().by_channel.keys().cloned().collect::<Vec<_>>();
        channels.push(self.forced.as_ref().into());
        self.subscribe(&mut sink, &channels).await?;
        self.topics.lock().tell(&Event::Resumed);
        Some((sink, stream))
    }

    async fn subscribe(&self, sink: &mut PubSubSink, channels: &[Arc<str>]) -> Option<()> {
        let names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        sink.subscribe(&names).await.ok()?;
        let topics = self.topics.lock();
        for channel in channels {
            if let Some(topic) = topics.by_channel.get(channel) {
                // What was told before is to be seen by a try.
                topic.tell(Hint::Resumed);
                topic.in_force.send_replace(Force::Yes);
            }
        }
        Some(())
    }

    /// Passes on what comes until the connection breaks.
    async fn hear(&self, keeper: &mut EarKeeper, mut sink: PubSubSink, mut stream: PubSubStream, limit: Duration) {
        let mut ping = interval(PING);
        let mut changed = Vec::new();
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.pass_on(&message),
                    None => return,
                },
                _ = keeper.changes.recv_many(&mut changed, BATCH) => {
                    let change = self.change(&mut sink, &mut changed);
                    if !matches!(timeout(limit, change).await, Ok(Some(()))) {
                        return;
                    }
                }
                _ = ping.tick() => {
                    if !matches!(timeout(limit, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }

    /// Brings the subscriptions of some channels in step with who watches them now.
    async fn change(&self, sink: &mut PubSubSink, changed: &mut Vec<Arc<str>>) -> Option<()> {
        changed.sort_unstable();
        changed.dedup();
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        {
            let topics = self.topics.lock();
            for channel in changed.drain(..) {
                match topics.by_channel.get(&channel) {
                    Some(topic) if *topic.in_force.borrow() == Force::Yes => {}
                    Some(_) => wanted.push(channel),
                    None => unwanted.push(channel),
                }
            }
        }
        if !unwanted.is_empty() {
            let names: Vec<&str> = unwanted.iter().map(AsRef::as_ref).collect();
            sink.unsubscribe(&names).await.ok()?;
        }
        if wanted.is_empty() { Some(()) } else { self.subscribe(sink, &wanted).await }
    }

    fn pass_on(&self, message: &Msg) {
        let mut topics = self.topics.lock();
        let payload = message.get_payload_bytes();
        if message.get_channel_name() == &*self.forced {
            // A name that is no key of ours concerns nobody here.
            let key = std::str::from_utf8(payload).ok().and_then(|name| Key::new(name).ok());
            if let Some(key) = key {
                topics.tell(&Event::Forced(key));
            }
        } else if let Some(topic) = topics.by_channel.get(message.get_channel_name()) {
            topic.tell(if payload == b"forced" { Hint::Forced } else { Hint::Released });
        }
    }
}

impl Topics {
    fn tell(&mut self, event: &Event) {
        self.events.retain(|events| events.send(event.clone()) == Sent::Heard);
    }

    fn all_out_of_force(&self) {
        for topic in self.by_channel.values() {
            topic.in_force.send_replace(Force::No);
        }
    }
}

impl Topic {
    fn tell(&self, hint: Hint) {
        for (_, watch) in &self.watches {
            // A watch that has gone takes itself off the list.
            let _ = watch.send(hint);
        }
    }
}

impl Shared {
    pub(super) async fn watch(&self, key: &Key) -> Result<Watch, StoreError> {
        let begun = self.ticks.now();
        let names = Names::new(&self.settings.template, key)?;
        let (watch, mut in_force) = self.ears.watch(names.wake())?;
        let confirmed = in_force.wait_for(|force| *force == Force::Yes);
        match self.ticks.within(begun, self.settings.operation_timeout, confirmed).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(StoreError::NotRunning),
            Err(error) => return Err(error),
        }
        Ok(watch)
    }
}
