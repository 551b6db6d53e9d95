//! The description of the routes for machines: OpenAPI, made from the handlers and their types.
//!
//! Which errors a route answers stands here, in one table; their examples are what the server itself would answer. A
//! test asks every route for everything, and holds the answers to this description.

pub(in crate::http) mod docs;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::http::context::HandlerResult;
use crate::http::host::current_access;
use crate::http::problem::{Fault, Problem};
use crate::http::routes::{
    acquire, events, force_release, health, heartbeat, history, locks, release, server, session_list, sessions, stats,
    whoami,
};
use crate::http::wire;
use crate::{KeyFault, LockError, Loss, Mode, ModeConflict, TtlFault, WaitEdge};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "leasehold",
        description = "Keyed locks: each with a TTL, a fencing token and a place in a fair queue.\n\n\
            A lock is exclusive until its local deadline, as long as clocks run at a bounded rate; after that the \
            fencing token lets the resource refuse a stale holder. A client's deadline is the time at which it sent the \
            acquire, plus `waited_ms`, plus `remaining_ms`, less its own clock's drift.\n\n\
            Every error is a problem document (RFC 9457) with a stable `code`. Unknown routes answer `not_found`, \
            other methods `method_not_allowed`; what is no HTTP at all is refused with 400 and no document. An \
            unknown field or parameter is an error, so that a misspelt one is not silently ignored. Every answer names \
            its request in `x-request-id`.",
    ),
    paths(
        acquire::acquire, release::release, heartbeat::heartbeat,
        sessions::open, sessions::heartbeat, sessions::end, session_list::list,
        locks::locks, locks::lock, stats::stats, history::history, events::events,
        whoami::whoami, force_release::force_release, force_release::force_release_in_path,
        health::healthz, health::readyz, server::server,
    ),
    components(schemas(ProblemDocument, events::EventDocument, wire::ModeName, locks::Sort, locks::Missing)),
    tags(
        (name = "locking", description = "Take locks, keep them, give them back."),
        (name = "sessions", description = "Owners of several locks, kept alive by one heartbeat."),
        (name = "looking", description = "Who holds what, who waits, what happens."),
        (name = "operating", description = "Release by force; how the server is."),
    ),
    security(("bearer" = [])),
    modifiers(&Errors),
)]
struct Api;

/// What every error looks like.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "it describes what `Problem` writes")]
struct ProblemDocument {
    status: u16,
    title: String,
    /// For people; it may change.
    detail: String,
    /// For programs; it does not.
    code: String,
    /// With `held` and `timeout`: who is in the way, `null` if the key came free meanwhile.
    holder: Option<locks::HolderView>,
    /// With `held` and `timeout`: how many wait for the key.
    queue_length: Option<usize>,
    /// With `deadlock`: who waits for which key, in a circle.
    cycle: Option<Vec<wire::Edge>>,
}

/// Of every route that may ask for a token.
const GUARD: &str = "unauthenticated forbidden forbidden_host cross_site rate_limited internal";
/// Of every route that reads a body.
const BODY: &str = "invalid_body body_timeout too_large unsupported_media_type";
const SHOW: &str = "invalid_query invalid_key not_locked";
/// Of an acquire, beside those.
const ACQUIRE: &str = "invalid_key invalid_ttl invalid_option held timeout lost deadlock wrong_mode token_reused \
    unknown_session session_ended queue_full too_many_keys too_many_holders too_many_locks lock_quota waiter_quota \
    store_unavailable shutting_down starting";
const HEARTBEAT: &str =
    "invalid_key invalid_ttl invalid_option not_held lost lock_quota store_unavailable shutting_down";
const RELEASE: &str = "invalid_key invalid_option not_held store_unavailable shutting_down";

/// The codes that an operation answers.
fn codes(operation: &str) -> impl Iterator<Item = &'static str> {
    let lists: &[&str] = match operation {
        "acquire" => &[GUARD, BODY, ACQUIRE],
        "release" => &[GUARD, BODY, RELEASE],
        "heartbeat" => &[GUARD, BODY, HEARTBEAT],
        "open_session" => &[GUARD, BODY, "invalid_ttl invalid_option too_many_sessions session_quota"],
        "heartbeat_session" => &[GUARD, BODY, "unknown_session session_ended"],
        "end_session" => &[GUARD, BODY, "unknown_session store_unavailable"],
        "list_locks" => &[GUARD, SHOW, "invalid_option"],
        "whoami" | "metrics" => &[GUARD],
        "history" | "server" => &[GUARD, "invalid_query"],
        "list_sessions" => &[GUARD, "invalid_query invalid_option"],
        "show_lock" | "stats" => &[GUARD, SHOW],
        "events" => &[GUARD, "invalid_query too_many_streams stream_quota"],
        "force_release" | "force_release_in_path" => &[GUARD, SHOW, "store_unavailable shutting_down"],
        "readyz" => &["internal store_unavailable shutting_down"],
        _ => &[],
    };
    lists.iter().flat_map(|list| list.split(' '))
}

/// One of each error that a route may answer.
fn samples() -> Vec<Problem> {
    let second = Duration::from_secs(1);
    let edge = |owner: &str, key: &str| Some(WaitEdge { owner: owner.into(), key: key.try_into().ok()? });
    let cycle: Arc<[WaitEdge]> =
        [edge("worker-7", "account:3"), edge("worker-9", "account:7")].into_iter().flatten().collect();
    let errors = [
        KeyFault::Empty.into(),
        TtlFault::TooShort { min: Duration::from_millis(10) }.into(),
        LockError::InvalidOption { option: "wait_ms", why: "it must be a whole number from 0 to 60000" },
        LockError::Lost(Loss::Expired),
        LockError::Deadlock { cycle },
        ModeConflict::Semaphore { limit: 10, asked: Mode::Shared }.into(),
        LockError::TokenReused,
        LockError::NotHeld,
        LockError::SessionEnded,
        LockError::QueueFull,
        LockError::TooManyKeys,
        LockError::TooManyHolders,
        LockError::TooManyLocks,
        LockError::TooManySessions,
        LockError::LockQuota,
        LockError::SessionQuota,
        LockError::StoreUnavailable,
        LockError::ShuttingDown,
    ];
    let faults = [
        Fault::InvalidBody("unknown field `ttl`, expected one of `key`, `ttl_ms`".into()),
        Fault::InvalidQuery("the parameter `key` is given twice".into()),
        Fault::BodyTimeout { after: Duration::from_secs(5) },
        Fault::TooLarge { max: 16_384 },
        Fault::UnsupportedMediaType,
        Fault::Unauthenticated { given: false },
        Fault::Forbidden { why: "the key is outside of the token's namespaces" },
        Fault::ForbiddenHost { host: "locks.example.com".to_owned() },
        Fault::CrossSite,
        Fault::RateLimited { after: second },
        Fault::TooManyStreams,
        Fault::WaiterQuota,
        Fault::StreamQuota,
        Fault::Starting { after: second },
        Fault::UnknownSession,
        Fault::NotLocked,
        Fault::Internal { why: "the server has no lock manager; this is for its operator to mend" },
    ];
    let busy = [LockError::Held, LockError::Timeout { waited: second }].map(|why| Problem::busy(why, None));
    errors.map(Problem::from).into_iter().chain(faults.map(Problem::from)).chain(busy).collect()
}

/// Adds what the macros do not know: the errors, the way to prove who asks, the name of the request.
struct Errors;

impl Modify for Errors {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Only where the server has tokens."))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let examples: BTreeMap<_, _> = samples()
            .into_iter()
            .map(Problem::into_example)
            .map(|(status, code, text)| (code, (status, text)))
            .collect();
        for item in api.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
                add_errors(operation, &examples);
            }
        }
    }
}

fn add_errors(operation: &mut Operation, examples: &BTreeMap<&'static str, (u16, serde_json::Value)>) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for code in codes(&id) {
        // Those that make room are not counted.
        let (status, _) = examples.get(code).expect("every code has its sample");
        by_status.entry(*status).or_default().push(code);
    }
    for (status, codes) in by_status {
        let of = codes
            .iter()
            .map(|code| (*code, ExampleBuilder::new().value(examples.get(code).map(|(_, text)| text.clone())).build()));
        let content = ContentBuilder::new()
            .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
            .examples_from_iter(of)
            .build();
        let mut response = ResponseBuilder::new()
            .description(codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "))
            .content("application/problem+json", content);
        if [423, 429].contains(&status) || codes.contains(&"starting") {
            let after =
                HeaderBuilder::new().description(Some("Seconds after which to try again, where that is known."));
            response = response.header("retry-after", after.build());
        }
        operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
    }
}

/// What a host may serve beside the routes that are always there.
#[cfg(feature = "prometheus")]
#[derive(OpenApi)]
#[openapi(paths(crate::http::routes::metrics::scrape), modifiers(&Errors))]
struct Metrics;

/// Stands in a description for where the routes are mounted.
const MOUNT: &str = "\u{1}mount\u{1}";
/// What no key and no name has: control characters.
const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// Adds what depends on the server, and what is so of every key and name.
fn complete(api: &mut Value, has_tokens: bool) {
    api["servers"] = json!([{ "url": MOUNT, "description": "This server." }]);
    if !has_tokens {
        if let Some(api) = api.as_object_mut() {
            api.remove("security");
        }
        if let Some(components) = api["components"].as_object_mut() {
            components.remove("securitySchemes");
        }
    }
    bound_texts(api);
}

/// Gives every `key`, `owner` and `name` that a request may bring its pattern.
fn bound_texts(part: &mut Value) {
    match part {
        Value::Object(members) => {
            let is_named = |of: &Value| ["key", "owner", "name"].iter().any(|name| of == name);
            if members.get("in").is_some()
                && members.get("name").is_some_and(is_named)
                && let Some(schema) = members.get_mut("schema")
            {
                bound(schema);
            }
            if let Some(Value::Object(fields)) = members.get_mut("properties") {
                fields.iter_mut().filter(|(name, _)| is_named(&json!(name))).for_each(|(_, field)| bound(field));
            }
            members.values_mut().for_each(bound_texts);
        }
        Value::Array(parts) => parts.iter_mut().for_each(bound_texts),
        _ => {}
    }
}

fn bound(schema: &mut Value) {
    if schema["maxLength"].is_number() {
        schema["pattern"] = NO_CONTROLS.into();
    }
}

/// The description of some routes, in all its forms.
pub(in crate::http) struct Description {
    text: String,
    /// For people.
    pub(in crate::http) page: String,
}

impl Description {
    fn new(api: &utoipa::openapi::OpenApi, has_tokens: bool) -> Self {
        let mut value = serde_json::to_value(api).expect("the description is JSON");
        complete(&mut value, has_tokens);
        Self { text: value.to_string(), page: docs::draw(&value) }
    }

    /// That of the routes which this request could have asked for.
    pub(in crate::http) fn of(req: &HttpRequest) -> &'static Self {
        static ALWAYS: [LazyLock<Description>; 2] = [
            LazyLock::new(|| Description::new(&Api::openapi(), false)),
            LazyLock::new(|| Description::new(&Api::openapi(), true)),
        ];
        let has_tokens = current_access(req).has_tokens();
        #[cfg(feature = "prometheus")]
        if req.app_data::<crate::http::routes::metrics::Scraped>().is_some() {
            static WITH_METRICS: [LazyLock<Description>; 2] = [
                LazyLock::new(|| Description::new(&Api::openapi().merge_from(Metrics::openapi()), false)),
                LazyLock::new(|| Description::new(&Api::openapi().merge_from(Metrics::openapi()), true)),
            ];
            return &WITH_METRICS[usize::from(has_tokens)];
        }
        &ALWAYS[usize::from(has_tokens)]
    }
}

/// `GET /openapi.json`
pub(in crate::http) fn document(req: &HttpRequest) -> HandlerResult {
    // From the root on, whatever the server is called: a client knows whom it has asked.
    let mount = req.path().strip_suffix("/openapi.json").filter(|mount| !mount.is_empty()).unwrap_or("/");
    let (mark, mount) = (json!(MOUNT).to_string(), json!(mount).to_string());
    let text = Description::of(req).text.replacen(&mark, &mount, 1);
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(text))
}
