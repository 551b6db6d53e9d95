//! What happens to locks, as a stream of server-sent events.
//!
//! A listener that is too slow gets the number of events that it missed; it never slows a lock down. A comment every 15
//! seconds shows the client, and every proxy in between, that the stream lives.

mod feed;
mod written;

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream::unfold;
pub(in crate::http) use written::EventDocument;

use crate::http::auth::{Caller, ReloadableAccess, UsageGuard};
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::host::shared;
use crate::http::problem::Fault;
use crate::http::query::{invalid, parameters};
use feed::{Feed, Filter, Listening};

/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// At the start of a stream: the client comes back two seconds after it broke.
const OPENING: &str = "retry: 2000\n: what happens to locks from now on\n\n";

/// Tells what happens to locks, as it happens, in server-sent events.
///
/// Each has the name of its kind, its sequence number as `id`, and JSON as `data`: `granted`, `released`, `expired`,
/// `refreshed`, `lost`, `forced`, `deadlock`. `missed` stands for as many events as the client was too slow to hear, or as were
/// too many for all who listen.
/// The data is an `Event` of the schemas. Nothing is told again after a break: read the locks anew then. Over a store it is what happens through this server.
#[utoipa::path(
    get, path = "/events", tag = "looking", operation_id = "events",
    params(
        ("prefix" = Option<String>, Query, description = "Only of keys that begin so."),
        ("max_rate" = Option<u32>, Query, minimum = 1,
            description = "How many events a second are enough: of the others there is only the number, in `missed`."),
    ),
    responses((
        status = 200, description = "The stream, until either side ends it.", body = String,
        content_type = "text/event-stream",
        example = "event: granted\nid: 7\ndata: {\"sequence\":7,\"kind\":\"granted\",\"key\":\"order:42\",\"owner\":\"worker-7\",\"fencing_token\":1795229686733898,\"mode\":\"exclusive\",\"ttl_ms\":30000}\n\n",
    )),
)]
pub(in crate::http) async fn events(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [prefix, max_rate] = parameters(req, ["prefix", "max_rate"])?;
    let max_rate = max_rate.map(|rate| rate.parse().map_err(|_| invalid("`max_rate` is a whole number from 1 on")));
    let max_rate = max_rate.transpose()?;
    let counted = ctx.locks.count_listener();
    // Counted with this one, so that those who come at the same moment cannot both be the last.
    if ctx.locks.listeners() > ctx.limits.max_streams {
        return Err(Fault::TooManyStreams.into());
    }
    let (usage, access) = (ctx.caller.count_stream()?, shared::<ReloadableAccess>(req).cloned());
    let filter = Filter::new(&ctx.caller, ctx.locks, prefix.as_deref().unwrap_or_default(), max_rate);
    let listening = ctx.locks.attached::<Feed>().listen(ctx.locks, filter, counted);
    let listening = listening.map_err(|_| Fault::Internal { why: "there is no thread to listen with" })?;
    let client = Client { listening, caller: ctx.caller.clone(), access, opening: Some(OPENING), _usage: usage };
    let stream = unfold(client, async |mut client| Some((Ok::<_, Infallible>(client.next().await?), client)));
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies that gather answers would hold events back.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream))
}

/// A client that listens.
struct Client {
    listening: Listening,
    caller: Caller,
    access: Option<ReloadableAccess>,
    opening: Option<&'static str>,
    /// It counts as a stream of its token.
    _usage: Option<UsageGuard>,
}

impl Client {
    /// The next piece of the stream; `None` when nothing more will happen, or the client may not listen any more.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(Bytes::from_static(opening.as_bytes()));
        }
        let piece = match timeout(KEEP_ALIVE, self.listening.next()).await {
            Ok(piece) => piece?,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        let is_let_in = self.access.as_ref().is_none_or(|access| self.caller.is_current(&access.current()));
        is_let_in.then_some(piece)
    }
}
