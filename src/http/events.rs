//! What happens to locks, as a stream of server-sent events.
//!
//! A listener that is too slow is told how many events it missed; it never slows a lock down. A comment every while
//! tells the client, and whatever stands between, that the stream lives.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::rt::time::timeout;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Serialize;

use super::access::Caller;
use super::call::{Answer, Call};
use super::problem::Fault;
use super::query::parameters;
use super::shown::{Edge, Held};
use super::wire::whole_ms;
use crate::{Event, EventKind, Events, Heard, LockManager};

/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// At the start of a stream: the client comes back two seconds after it broke.
const OPENING: &str = "retry: 2000\n: what happens to locks from now on\n\n";

/// Tells what happens to locks, as it happens, in server-sent events.
///
/// Each has the name of its kind, its sequence number as `id`, and JSON as `data`: `granted`, `released`, `expired`,
/// `refreshed`, `lost`, `forced`, `deadlock`. `missed` stands for as many events as the client was too slow to hear.
/// Nothing is told again after a break: read the locks anew then.
#[utoipa::path(
    get, path = "/events", tag = "looking", operation_id = "events",
    params(("prefix" = Option<String>, Query, description = "Only of keys that begin so.")),
    responses((
        status = 200, description = "The stream, until either side ends it.", body = String,
        content_type = "text/event-stream",
        example = "event: granted\nid: 7\ndata: {\"sequence\":7,\"kind\":\"granted\",\"key\":\"order:42\",\"owner\":\"worker-7\",\"fencing_token\":1795229686733898,\"mode\":\"exclusive\",\"ttl_ms\":30000}\n\n",
    )),
)]
pub(super) async fn events(call: &Call, _: web::Payload) -> Answer {
    let [prefix] = parameters(&call.req, ["prefix"])?;
    let events = call.locks.events();
    // Counted with this one, so that those who come at the same moment cannot both be the last.
    if call.locks.listeners() > call.limits.max_streams {
        return Err(Fault::TooManyStreams.into());
    }
    let prefix = call.locks.canonical_prefix(prefix.as_deref().unwrap_or_default()).into_owned();
    let ear = Ear { events, prefix, locks: call.locks.clone(), caller: call.caller.clone(), opening: Some(OPENING) };
    let stream = unfold(ear, async |mut ear| Some((Ok::<_, Infallible>(ear.next().await?), ear)));
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies that gather answers would hold events back.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream))
}

/// One who listens.
struct Ear {
    events: Events,
    prefix: String,
    locks: LockManager,
    caller: Caller,
    opening: Option<&'static str>,
}

impl Ear {
    /// The next piece of the stream; `None` when nothing more will happen.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(Bytes::from_static(opening.as_bytes()));
        }
        let heard = timeout(KEEP_ALIVE, async {
            loop {
                match self.events.next().await? {
                    Heard::Event(event) if !self.is_for_us(&event) => {}
                    heard => return Some(heard),
                }
            }
        });
        match heard.await {
            Ok(heard) => Some(self.tell(&heard?)),
            Err(_) => Some(Bytes::from_static(b":\n\n")),
        }
    }

    fn is_for_us(&self, event: &Event) -> bool {
        event.key.as_str().starts_with(&self.prefix) && self.may_see(event.key.as_str())
    }

    fn may_see(&self, key: &str) -> bool {
        self.caller.may_use(&self.locks, key)
    }

    fn tell(&self, heard: &Heard) -> Bytes {
        let mut text = String::with_capacity(256);
        match heard {
            Heard::Event(event) => {
                let told = Told::of(event, |key| self.may_see(key));
                let data = serde_json::to_string(&told).expect("an event is JSON");
                let _ = write!(text, "event: {}\nid: {}\ndata: {data}\n\n", told.kind, event.sequence);
            }
            Heard::Missed(missed) => {
                let _ = write!(text, "event: missed\ndata: {{\"kind\":\"missed\",\"missed\":{missed}}}\n\n");
            }
        }
        text.into()
    }
}

/// An event as JSON.
#[derive(Serialize)]
struct Told<'a> {
    sequence: u64,
    kind: &'static str,
    key: &'a str,
    owner: Option<&'a str>,
    fencing_token: Option<u64>,
    #[serde(flatten)]
    more: More,
}

#[derive(Serialize)]
#[serde(untagged)]
enum More {
    Granted {
        #[serde(flatten)]
        held: Held,
        ttl_ms: u64,
    },
    Ended {
        held_ms: u64,
    },
    Refreshed {
        remaining_ms: u64,
    },
    Lost {
        why: String,
        held_ms: u64,
    },
    Deadlock {
        cycle: Vec<Edge>,
    },
}

impl<'a> Told<'a> {
    fn of(event: &'a Event, may_see: impl Fn(&str) -> bool) -> Self {
        let ended = |held: &Duration| More::Ended { held_ms: whole_ms(*held) };
        let (kind, more) = match &event.kind {
            EventKind::Granted { mode, ttl } => {
                ("granted", More::Granted { held: (*mode).into(), ttl_ms: whole_ms(*ttl) })
            }
            EventKind::Released { held } => ("released", ended(held)),
            EventKind::Expired { held } => ("expired", ended(held)),
            EventKind::Refreshed { remaining } => ("refreshed", More::Refreshed { remaining_ms: whole_ms(*remaining) }),
            EventKind::Lost { why, held } => ("lost", More::Lost { why: why.to_string(), held_ms: whole_ms(*held) }),
            EventKind::Forced { held } => ("forced", ended(held)),
            EventKind::Deadlock { cycle } => {
                let seen = cycle.iter().filter(|edge| may_see(edge.key.as_str()));
                ("deadlock", More::Deadlock { cycle: seen.map(Edge::from).collect() })
            }
        };
        let Event { sequence, key, owner, fencing_token, .. } = event;
        let fencing_token = fencing_token.map(|fence| fence.get());
        Self { sequence: *sequence, kind, key: key.as_str(), owner: owner.as_deref(), fencing_token, more }
    }
}
