//! An event as JSON, as `GET /events` writes it: never a token, and of other keys only what the listener may see.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::wire::{Edge, ModeFields, ModeName, whole_ms};
use crate::{Event, EventKind};

/// An event in writing, but for its number.
pub(in crate::http) struct EventText {
    pub(in crate::http) kind: &'static str,
    /// The members of its JSON object behind the number, and the closing brace.
    pub(in crate::http) rest: String,
}

impl EventText {
    pub(in crate::http) fn of(event: &Event, may_see: impl Fn(&str) -> bool) -> Self {
        let written = Written::of(event, may_see);
        let mut rest = serde_json::to_string(&written).expect("an event is JSON");
        rest.remove(0);
        Self { kind: written.kind, rest }
    }

    /// Whether the text depends on what the listener may see.
    pub(in crate::http) fn differs_by_listener(event: &Event) -> bool {
        matches!(event.kind, EventKind::Deadlock { .. })
    }
}

#[derive(Serialize)]
struct Written<'a> {
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
        mode: ModeFields,
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

impl<'a> Written<'a> {
    fn of(event: &'a Event, may_see: impl Fn(&str) -> bool) -> Self {
        let ended = |held: &Duration| More::Ended { held_ms: whole_ms(*held) };
        let (kind, more) = match &event.kind {
            EventKind::Granted { mode, ttl } => {
                ("granted", More::Granted { mode: (*mode).into(), ttl_ms: whole_ms(*ttl) })
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
        let Event { key, owner, fencing_token, .. } = event;
        let fencing_token = fencing_token.map(|fence| fence.get());
        Self { kind, key: key.as_str(), owner: owner.as_deref(), fencing_token, more }
    }
}

/// The `data` of one server-sent event of `GET /events`.
#[derive(ToSchema)]
#[schema(as = Event, example = json!({
    "sequence": 7, "kind": "granted", "key": "order:42", "owner": "worker-7", "fencing_token": 1795229686733898_u64,
    "mode": "exclusive", "ttl_ms": 30000,
}))]
#[expect(dead_code, reason = "it describes what `EventText` writes")]
pub(in crate::http) struct EventDocument {
    kind: EventName,
    /// Not with `missed`.
    sequence: Option<u64>,
    /// Not with `missed`.
    key: Option<String>,
    owner: Option<String>,
    fencing_token: Option<u64>,
    /// With `granted`.
    mode: Option<ModeName>,
    /// With `granted`, of permits.
    limit: Option<u32>,
    /// With `granted`, of permits.
    permits: Option<u32>,
    /// With `granted`.
    ttl_ms: Option<u64>,
    /// With `refreshed`.
    remaining_ms: Option<u64>,
    /// With `released`, `expired`, `forced` and `lost`.
    held_ms: Option<u64>,
    /// With `lost`.
    why: Option<String>,
    /// With `deadlock`.
    cycle: Option<Vec<Edge>>,
    /// With `missed`: how many events were left out.
    missed: Option<u64>,
}

/// The kinds of event.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes what `EventText` writes")]
pub(in crate::http) enum EventName {
    Granted,
    Released,
    Expired,
    Refreshed,
    Lost,
    Forced,
    Deadlock,
    /// The client was too slow for as many.
    Missed,
}
