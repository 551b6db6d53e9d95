//! Listening to what other processes say (`LISTEN`), over a connection of its own. What is said is a hint: whoever misses
//! it is told by the renewals.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client};

use super::builder::Connected;
use super::call;
use super::fault::{Fault, unconnected};
use super::inner::Inner;
use crate::backoff::Backoff;
use crate::key::Key;
use crate::store::{Event, Hint, StoreError, Warning};

/// Between two tries to connect, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));
/// The same while the server refuses us.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A silent connection is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(5);
/// So long a message to ourselves may take.
const ECHO: Duration = Duration::from_secs(3);
/// Messages that wait to be read.
const WAITING: usize = 1024;

/// A channel, and what was said on it.
type Message = (String, String);

/// Listens until the store stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let (mut broken, mut refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
    loop {
        let limit = inner.settings.connect_timeout;
        let opened = match tokio::time::timeout(limit, inner.settings.connect_to_listen()).await {
            Ok(None) => return,
            Ok(Some(opened)) => opened.map_err(|error| unconnected(&error)),
            Err(_) => Err(StoreError::Timeout),
        };
        let why = match opened {
            Ok(connected) => {
                let why = listen(&inner, connected).await;
                inner.ears.set_up(false);
                why
            }
            Err(why) => why,
        };
        if why.is_refusal() {
            inner.warn(&Warning::Refused { server: inner.settings.server.clone(), why: why.clone() });
            tokio::time::sleep(refused.next()).await;
        } else {
            tokio::time::sleep(broken.next()).await;
        }
    }
}

/// Listens for as long as the connection lasts; answers why it ended.
async fn listen(inner: &Arc<Inner>, (client, mut connection): Connected) -> StoreError {
    let (tell, mut hear) = mpsc::channel::<Message>(WAITING);
    let driving = tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(said))) => {
                    let message = (said.channel().to_owned(), said.payload().to_owned());
                    if tell.send(message).await.is_err() {
                        return StoreError::NotRunning;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Fault::of(&error).error,
                None => return StoreError::Io("it was closed".into()),
            }
        }
    });
    let _ended = AbortOnDrop(driving.abort_handle());
    let ours = format!("{}_{}", inner.settings.names.channel(), inner.places.process());
    let begin = format!("LISTEN \"{}\"; LISTEN \"{ours}\"", inner.settings.names.channel());
    match tokio::time::timeout(inner.settings.connect_timeout, client.batch_execute(&begin)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Fault::of(&error).error,
        Err(_) => return StoreError::Timeout,
    }
    inner.ears.set_up(true);
    // What was said before, nobody heard.
    inner.ears.resumed();
    inner.places.hint_all();
    let mut echo = std::pin::pin!(echo(inner, &ours));
    let mut echoed = Echo::Awaited;
    loop {
        tokio::select! {
            message = hear.recv() => match message {
                Some((channel, said)) if channel == ours && said.is_empty() => echoed = Echo::Heard,
                Some((channel, said)) => heard(inner, channel == ours, &said),
                None => break,
            },
            why = &mut echo, if echoed == Echo::Awaited => {
                echoed = Echo::Missed;
                inner.warn(&Warning::Unheard { why });
            }
            () = tokio::time::sleep(SILENCE) => {
                if let Err(why) = is_alive(inner, &client).await {
                    return why;
                }
            }
        }
    }
    driving.await.unwrap_or(StoreError::NotRunning)
}

/// Whether the message to ourselves came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Awaited,
    Heard,
    Missed,
}

/// Says something to ourselves, and waits. It ends when that should have come; a proxy that pools transactions takes a
/// `LISTEN`, and passes nothing on.
async fn echo(inner: &Arc<Inner>, ours: &str) -> StoreError {
    let params: &[_] = &[(&ours as _, Type::TEXT)];
    let said = call::rows(inner, "SELECT pg_notify($1, '')", params).await;
    tokio::time::sleep(ECHO).await;
    match said {
        Ok(_) => {
            StoreError::Other("a message to ourselves did not come: is a proxy between that pools transactions?".into())
        }
        Err(why) => why,
    }
}

async fn is_alive(inner: &Inner, client: &Client) -> Result<(), StoreError> {
    match tokio::time::timeout(inner.settings.connect_timeout, client.simple_query("")).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Fault::of(&error).error),
        Err(_) => Err(StoreError::Timeout),
    }
}

/// Passes a message on. Who has the right to the channels of a database can say anything: what makes no sense is nothing.
fn heard(inner: &Inner, is_to_us: bool, said: &str) {
    if is_to_us {
        inner.places.called(said);
        return;
    }
    let Some((what, rest)) = said.split_at_checked(1) else { return };
    match what {
        "r" => tell(inner, rest, Hint::Released),
        "f" => {
            tell(inner, rest, Hint::Forced);
            inner.places.hint(rest, Hint::Forced);
            if let Ok(key) = Key::new(rest) {
                inner.ears.publish(&Event::Forced(key));
            }
        }
        "n" => {
            if let Some(notice) = notice(rest) {
                inner.ears.publish(&notice);
            }
        }
        _ => {}
    }
}

fn tell(inner: &Inner, key: &str, hint: Hint) {
    if let Ok(key) = Key::new(key) {
        inner.ears.hint(&key, hint);
    }
}

/// The fence, or 0, and in how many microseconds, and the key.
fn notice(text: &str) -> Option<Event> {
    let mut words = text.splitn(3, ' ');
    let fence = words.next()?.parse().ok()?;
    let within = Duration::from_micros(words.next()?.parse().ok()?);
    let key = Key::new(words.next()?).ok()?;
    Some(Event::Notice { key, fence: Some(fence).filter(|fence| *fence > 0), within })
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_and_nonsense_is_none() {
        let key = Key::new("a b").unwrap();
        let within = Duration::from_millis(3);
        assert_eq!(notice("7 3000 a b"), Some(Event::Notice { key: key.clone(), fence: Some(7), within }));
        assert_eq!(notice("0 3000 a b"), Some(Event::Notice { key, fence: None, within }));
        for text in ["", "7", "7 x k", "7 3000", "-7 3000 k"] {
            assert_eq!(notice(text), None, "{text}");
        }
    }
}
