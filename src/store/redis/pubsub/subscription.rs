//! One listening connection, from its first subscription to its end: [`session`]. [`listen`] starts another.
//!
//! [`listen`]: super::listen

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::store::redis::conn::server_info::{about, field};
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::fault::Fault;
use crate::store::redis::hand_over::{self, Call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::ops::notice;
use crate::store::redis::ops::renew::mark_watched;
use crate::store::{ClaimReuse, Event, Hint, StoreError};

/// Between two looks whether the server lives, and is what it was.
const HEARTBEAT: Duration = Duration::from_secs(1);

struct Session<'a> {
    inner: &'a Arc<Inner>,
    /// To the same server.
    wire: &'a Wire,
    connection: MultiplexedConnection,
    tracking: Tracking,
    channels: Channels,
    /// The locks that are subscribed to, and their channels.
    subscribed: HashMap<Box<str>, Box<str>>,
}

/// Whether the server reports changes of keys that this connection has read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracking {
    On,
    Off,
}

/// Whether the user has rights to channels. Without them tracking and polling are left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channels {
    Open,
    Refused,
}

/// No message can arrive over this connection any more.
struct Disconnected(StoreError);

impl Disconnected {
    fn because(why: &str) -> Self {
        Self(StoreError::Io(why.into()))
    }
}

/// What a server says without being asked, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Push {
    /// The connection is gone.
    Gone,
    Message {
        channel: Box<str>,
        text: Box<str>,
    },
    /// Keys that this connection has read have changed.
    Changed(Vec<Box<str>>),
    /// All keys were deleted.
    Flushed,
    Nothing,
}

impl Push {
    /// Names that are not UTF-8 are none of ours.
    pub(in crate::store) fn of(push: PushInfo) -> Self {
        let text = |value: Option<&Value>| match value {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).map(Box::<str>::from).ok(),
            _ => None,
        };
        match push.kind {
            PushKind::Disconnection => Self::Gone,
            PushKind::Message => match (text(push.data.first()), text(push.data.get(1))) {
                (Some(channel), Some(text)) => Self::Message { channel, text },
                _ => Self::Nothing,
            },
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => Self::Changed(keys.iter().filter_map(|key| text(Some(key))).collect()),
                _ => Self::Flushed,
            },
            _ => Self::Nothing,
        }
    }
}

/// Listens until no message can arrive any more, and answers why.
pub(in crate::store) async fn session(inner: &Arc<Inner>, wire: &Wire) -> StoreError {
    let (sender, pushes) = mpsc::unbounded_channel();
    let connection = match inner.opener.listening(&wire.info, sender).await {
        Ok(connection) => connection,
        Err(why) => return why,
    };
    let (tracking, channels) = (Tracking::Off, Channels::Open);
    let mut session = Session { inner, wire, connection, tracking, channels, subscribed: HashMap::new() };
    // An error means that it ended, which is the only way out.
    let Err(Disconnected(why)) = session.listen(pushes).await;
    why
}

impl Session<'_> {
    async fn listen(
        &mut self,
        mut pushes: mpsc::UnboundedReceiver<PushInfo>,
    ) -> Result<std::convert::Infallible, Disconnected> {
        self.track().await;
        let history = self.history().await?;
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Inner { forced_channel, notice_channel, turn_channel, claims_channel, shares_channel, .. } = &**self.inner;
        let mut channels = vec![&**forced_channel, &**notice_channel, &**turn_channel];
        if self.inner.config.claim_reuse != ClaimReuse::Off {
            channels.extend([&**claims_channel, &**shares_channel]);
        }
        self.subscribe(&channels).await?;
        // Messages before that were missed: every listener has to look again.
        self.follow(Some(Hint::Resumed)).await?;
        self.inner.tickets.hint_all(Hint::Resumed);
        self.inner.listener.resumed();
        loop {
            tokio::select! {
                push = pushes.recv() => {
                    let mut changed = Vec::new();
                    self.take(push.ok_or_else(|| Disconnected::because("the connection was lost"))?, &mut changed)?;
                    while let Ok(push) = pushes.try_recv() {
                        self.take(push, &mut changed)?;
                    }
                    self.look_again(changed).await?;
                }
                () = self.inner.listener.changed.notified() => self.follow(None).await?,
                _ = beat.tick() => if self.history().await? != history {
                    // What it kept may be gone, though no connection broke: the next session says so (R21).
                    return Err(Disconnected::because("the server has another history"));
                }
            }
        }
    }

    async fn bounded<T>(&self, work: impl Future<Output = RedisResult<T>>) -> Result<T, Disconnected> {
        let limit = self.inner.config.operation_timeout;
        let answer = tokio::time::timeout(limit, work).await.map_err(|_| Disconnected(StoreError::Timeout))?;
        answer.map_err(|error| Disconnected(Fault::of(&error).error))
    }

    /// Subscribes. Where the user has no rights to channels, the rest of the session goes on without.
    async fn subscribe(&mut self, channels: &[&str]) -> Result<(), Disconnected> {
        if self.channels == Channels::Refused {
            return Ok(());
        }
        let mut connection = self.connection.clone();
        match self.bounded(connection.subscribe(channels)).await {
            Err(Disconnected(why @ StoreError::Denied(_))) => {
                self.channels = Channels::Refused;
                self.inner.listener.refused(self.inner.config.on_warning.as_ref(), why);
                Ok(())
            }
            Ok(()) => {
                self.inner.listener.granted();
                Ok(())
            }
            failed => failed,
        }
    }

    /// Which history the server's data belong to: another one after each change of its role.
    async fn history(&self) -> Result<String, Disconnected> {
        let mut connection = self.connection.clone();
        let about = self.bounded(about(&mut connection, Some("replication"))).await?;
        if field(&about, "role") == "slave" {
            self.wire.mark_broken();
            self.inner.servers.rediscover();
            return Err(Disconnected(StoreError::ReadOnly));
        }
        Ok(field(&about, "master_replid").to_owned())
    }

    /// Asks for tracking, where the keys are on this server. If the server refuses, polling is left.
    async fn track(&mut self) {
        if self.inner.servers.is_cluster() {
            return;
        }
        let mut connection = self.connection.clone();
        let mut on = redis::cmd("CLIENT");
        on.arg("TRACKING").arg("ON").arg("OPTIN");
        if self.bounded(on.exec_async(&mut connection)).await.is_ok() {
            self.tracking = Tracking::On;
        }
    }

    /// Subscribes to what is watched now, and to nothing else.
    async fn follow(&mut self, hint: Option<Hint>) -> Result<(), Disconnected> {
        let (new, unwatched) = self.inner.listener.difference(&self.subscribed);
        let ended: Vec<Box<str>> = unwatched.iter().filter_map(|lock| self.subscribed.remove(lock)).collect();
        if !ended.is_empty() && self.channels == Channels::Open {
            let mut connection = self.connection.clone();
            let ended: Vec<&str> = ended.iter().map(AsRef::as_ref).collect();
            self.bounded(connection.unsubscribe(&ended[..])).await?;
        }
        if !new.is_empty() {
            let channels: Vec<&str> = new.iter().map(KeyNames::wake).collect();
            self.subscribe(&channels).await?;
            self.look(new.iter().map(KeyNames::lock)).await?;
            self.subscribed.extend(new.iter().map(|names| (names.lock().into(), names.wake().into())));
            // Releases are published once the server knows the mark.
            mark_watched(self.inner, self.inner.listener.watched_of(&new)).await;
        }
        self.inner.listener.open(&new, hint);
        Ok(())
    }

    /// Reads locks, so that the server reports their changes; answers which are there.
    async fn look(&self, locks: impl Iterator<Item = &str>) -> Result<Vec<i64>, Disconnected> {
        if self.tracking == Tracking::Off {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for lock in locks {
            // Not its value, which is not to leave the server (R25).
            pipe.cmd("CLIENT").arg("CACHING").arg("YES").ignore().cmd("EXISTS").arg(lock);
        }
        let mut connection = self.connection.clone();
        self.bounded(pipe.query_async(&mut connection)).await
    }

    /// Looks again at locks that have changed. Only one that is gone is worth a hint.
    async fn look_again(&self, mut changed: Vec<Box<str>>) -> Result<(), Disconnected> {
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|lock| self.subscribed.contains_key(lock));
        if changed.is_empty() {
            return Ok(());
        }
        let there = self.look(changed.iter().map(AsRef::as_ref)).await?;
        for (lock, there) in changed.iter().zip(there) {
            if there == 0 {
                self.inner.listener.hint(lock, Hint::Free);
            }
        }
        Ok(())
    }

    fn take(&self, push: PushInfo, changed: &mut Vec<Box<str>>) -> Result<(), Disconnected> {
        match Push::of(push) {
            Push::Gone => return Err(Disconnected::because("the connection was lost")),
            Push::Message { channel, text } => self.message(&channel, &text),
            Push::Changed(locks) => changed.extend(locks),
            Push::Flushed => changed.extend(self.subscribed.keys().cloned()),
            Push::Nothing => {}
        }
        Ok(())
    }

    fn called(&self, text: &str) {
        match Call::read(text) {
            Some((Call::Try(ticket), lock)) => self.inner.tickets.called(lock, ticket),
            Some((Call::HandOver(given), lock)) => {
                let Some(names) = self.inner.key_of(lock).and_then(|key| self.inner.names(&key).ok()) else { return };
                let refuse = || hand_over::refuse(self.inner, names, given.token);
                self.inner.tickets.handed_over(lock, &given, refuse);
            }
            None => {}
        }
    }

    fn message(&self, channel: &str, text: &str) {
        if channel == &*self.inner.turn_channel {
            self.called(text);
        } else if channel == &*self.inner.forced_channel {
            self.inner.key_of(text).map(Event::Forced).iter().for_each(|event| self.inner.listener.publish(event));
        } else if channel == &*self.inner.claims_channel || channel == &*self.inner.shares_channel {
            self.inner.key_of(text).map(Event::Wanted).iter().for_each(|event| self.inner.listener.publish(event));
        } else if channel == &*self.inner.notice_channel {
            notice::read(self.inner, text).iter().for_each(|notice| self.inner.listener.publish(notice));
        } else {
            let hint = if text == "forced" { Hint::Forced } else { Hint::Released };
            self.inner.listener.hint_on(channel, hint);
        }
    }
}
