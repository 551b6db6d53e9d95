//! Fear: the description of the routes says one thing, and the server does another.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::test::{TestRequest, call_and_read_body, init_service};
use actix_web::{App, web};
use leasehold::LockManager;
use leasehold::http::{Access, Limits};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{self, Answer, Server, text};

const TOKEN: &str = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";
const SECRETS: [&str; 2] = ["all-of-it-0123456789", "a-part-of-it-0123456789"];

/// One of the operations that the description has.
struct Operation {
    method: Method,
    path: String,
    about: Value,
}

async fn description(server: &Server) -> Value {
    server.get("/openapi.json").await.ok()
}

fn operations(api: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, about) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            found.push(Operation { method, path: path.clone(), about: about.clone() });
        }
    }
    found
}

fn resolve<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => api.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is not there")),
        None => schema,
    }
}

/// Whether a value is what a schema says, as far as the description uses JSON schema.
fn fits(api: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(api, schema);
    for choices in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choices].as_array() {
            let fitting = choices.iter().filter(|choice| fits(api, choice, value).is_ok()).count();
            return if fitting > 0 { Ok(()) } else { Err(format!("{value} fits none of {choices:?}")) };
        }
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().try_for_each(|part| fits(api, part, value));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the test does not know the type {other}"),
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return Err(format!("{value} is no {types:?}"));
    }
    if !schema["pattern"].is_null() && value.as_str().is_some_and(|text| text.chars().any(char::is_control)) {
        return Err(format!("{value} is not as {}", schema["pattern"]));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(required).is_none() {
            return Err(format!("{value} lacks {required}"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(of) => fits(api, of, member).map_err(|why| format!("{name}: {why}"))?,
            None if schema["additionalProperties"] == false => return Err(format!("{name} is not known")),
            None => {}
        }
    }
    value.as_array().into_iter().flatten().try_for_each(|item| fits(api, &schema["items"], item))
}

/// Holds an answer to what its operation says.
fn check(api: &Value, operation: &Operation, sent: &str, answer: &Answer) {
    let what = format!("{} {} with {sent}: {answer:?}", operation.method, operation.path);
    assert!(answer.status < 500, "{what}");
    let response = &operation.about["responses"][answer.status.to_string()];
    assert!(response.is_object(), "an undocumented status: {what}");
    let kind = answer.headers["content-type"].split(';').next().unwrap();
    let content = &response["content"][kind];
    assert!(content.is_object(), "an undocumented content type: {what}");
    fits(api, &content["schema"], &answer.body).unwrap_or_else(|why| panic!("{why}: {what}"));
    if answer.status >= 400 {
        let code = text(&answer.body, "code");
        assert!(content["examples"].get(code).is_some(), "an undocumented code: {what}");
    }
    assert!(answer.headers.contains_key("x-request-id"), "{what}");
}

/// Makes up values: such as the schema asks for, and such as it does not.
struct Inventor(fastrand::Rng);

impl Inventor {
    fn text(&mut self) -> String {
        let long = "k".repeat(self.0.usize(0..300));
        let some =
            ["a", "b", "order:42", "größe 日本/x", "", "a\nb", "\u{0}", "a/b?c#d%", TOKEN, "exclusive", "x", &long];
        (*self.0.choice(some.iter()).unwrap()).to_owned()
    }

    fn anything(&mut self) -> Value {
        match self.0.u8(..10) {
            0 => Value::Null,
            1 => self.0.bool().into(),
            2 => self.0.i64(..).into(),
            3 => self.0.u64(..).into(),
            4 => self.0.f64().into(),
            5 => json!([self.text()]),
            6 => json!({ self.text(): 1 }),
            _ => self.text().into(),
        }
    }

    /// Mostly something that the schema allows.
    fn value(&mut self, api: &Value, schema: &Value, server: &Known) -> Value {
        let schema = resolve(api, schema).clone();
        if self.0.u8(..10) == 0 {
            return self.anything();
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let choice = self.0.choice(choices.iter()).unwrap().clone();
            return self.value(api, &choice, server);
        }
        if let Some(choices) = schema["enum"].as_array() {
            return self.0.choice(choices.iter()).unwrap().clone();
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default().to_owned();
        match kind.as_str() {
            "object" => {
                let required: Vec<_> = schema["required"].as_array().cloned().unwrap_or_default();
                let mut object = serde_json::Map::new();
                for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                    if self.0.u8(..4) == 0 || required.contains(&json!(name)) && self.0.u8(..20) > 0 {
                        object.insert(name.clone(), self.field(api, name, field, server));
                    }
                }
                if self.0.u8(..20) == 0 {
                    object.insert(self.text(), self.anything());
                }
                object.into()
            }
            "integer" => match self.0.u8(..8) {
                0 => 0.into(),
                1 => self.0.u64(..).into(),
                2 => schema["maximum"].clone(),
                3 => schema["minimum"].clone(),
                _ => self.0.u32(1..200).into(),
            },
            _ => self.text().into(),
        }
    }

    fn field(&mut self, api: &Value, name: &str, schema: &Value, known: &Known) -> Value {
        match name {
            "key" if self.0.bool() => self.0.choice(["a", "b", "c"]).unwrap().into(),
            "token" if self.0.bool() => self.0.choice(known.tokens.iter()).cloned().unwrap_or(json!(TOKEN)),
            "session" if self.0.bool() => self.0.choice(known.sessions.iter()).cloned().unwrap_or(json!(TOKEN)),
            // Nobody is to sit here for a minute.
            "wait_ms" => {
                self.0.choice([json!(0), json!(0), json!(1), json!(1), json!(60_001), json!(-1), json!(1e300)]).unwrap()
            }
            _ => self.value(api, schema, known),
        }
    }
}

/// What the answers so far have shown: so that some requests hit something.
#[derive(Default)]
struct Known {
    tokens: Vec<Value>,
    sessions: Vec<Value>,
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[actix_rt::test]
async fn whatever_is_sent_the_answer_is_one_that_is_described() {
    let rounds: u32 = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    let seed = fastrand::u64(..);
    let list = json!([
        { "name": "all", "token": SECRETS[0], "rights": ["acquire", "read", "force"] },
        { "name": "part", "token": SECRETS[1], "rights": ["acquire"], "namespaces": ["a:", "order:"] },
    ]);
    let access = Access::from_json(&list.to_string()).unwrap();
    let locks = LockManager::builder()
        .ttl(Duration::from_millis(100))
        .wait(Duration::from_millis(1))
        .max_keys(64)
        .max_sessions(20)
        .build()
        .unwrap();
    let server = Server::with_access(locks, Limits::new().max_streams(0), access);
    let api = description(&server).await;
    let all = operations(&api);
    let mut invent = Inventor(fastrand::Rng::with_seed(seed));
    let mut known = Known::default();
    let mut seen = BTreeSet::new();
    for _ in 0..rounds * 4 {
        // The one with the most to go wrong is asked the most.
        let operation = match invent.0.bool() {
            true => all.iter().find(|operation| operation.path == "/acquire").unwrap(),
            false => invent.0.choice(all.iter()).unwrap(),
        };
        let mut path = operation.path.clone();
        let mut query = Vec::new();
        for parameter in operation.about["parameters"].as_array().into_iter().flatten() {
            let (name, place) = (text(parameter, "name"), text(parameter, "in"));
            let value = invent.field(&api, name, &parameter["schema"], &known);
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if place == "path" {
                // An empty one is another route.
                let value = if value.is_empty() { "x" } else { &value };
                path = path.replace(&format!("{{{name}}}"), &encode(value));
            } else if invent.0.bool() {
                query.push(format!("{name}={}", encode(&value)));
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let mut request = server.request(operation.method.clone(), &path);
        if invent.0.u8(..10) > 0 {
            request = request.bearer_auth(invent.0.choice(SECRETS).unwrap());
        }
        let body = &operation.about["requestBody"]["content"]["application/json"]["schema"];
        let mut sent = format!("{path} (seed {seed})");
        if !body.is_null() {
            let mut bytes = invent.value(&api, body, &known).to_string().into_bytes();
            if invent.0.u8(..10) == 0 {
                let at = invent.0.usize(..bytes.len());
                bytes[at] = invent.0.u8(..);
            }
            sent = format!("{} (seed {seed})", String::from_utf8_lossy(&bytes));
            let kind = if invent.0.u8(..20) == 0 { "text/plain" } else { "application/json" };
            request = request.header("content-type", kind).body(bytes);
        }
        let answer = Answer::of(request).await;
        check(&api, operation, &sent, &answer);
        if answer.status == 200 {
            known.tokens.extend(answer.body.get("token").cloned());
            known.sessions.extend(answer.body.get("id").cloned());
        }
        seen.insert((text(&operation.about, "operationId").to_owned(), answer.status));
    }
    // Else it would hold of a server that refuses everything.
    if rounds >= 256 {
        for operation in ["acquire", "open_session"] {
            assert!(seen.contains(&(operation.to_owned(), 200)), "{operation} never worked (seed {seed}): {seen:?}");
        }
    }
}

/// What made-up requests come upon too seldom.
#[actix_rt::test]
async fn the_refusals_that_need_a_story_are_described() {
    let locks = LockManager::builder().shards(1).max_keys(2).max_waiters(1).max_sessions(2);
    let server = Server::over(locks.build().unwrap());
    let api = description(&server).await;
    let all = operations(&api);
    let mut sessions = Vec::new();
    for name in ["one", "two"] {
        sessions.push(server.post("/sessions", json!({ "name": name })).await.ok()["id"].clone());
    }
    server.post("/sessions/end", json!({ "session": sessions[1] })).await.ok();
    let mine = server.post("/acquire", json!({ "key": "a", "token": TOKEN })).await.ok();
    server.post("/acquire", json!({ "key": "b", "session": sessions[0] })).await.ok();
    let waits = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 60_000 }));
    http_server::until("a full queue", || server.waiting() == 1).await;
    let other = "7a1e5ad1-5f5f-4b9f-8e63-0f3c1a2f0d11";
    let stories = [
        ("/acquire", json!({ "key": "a", "wait_ms": 0 }), "held"),
        ("/acquire", json!({ "key": "a", "wait_ms": 9 }), "queue_full"),
        ("/acquire", json!({ "key": "c" }), "too_many_keys"),
        ("/acquire", json!({ "key": "a", "session": sessions[1] }), "session_ended"),
        ("/acquire", json!({ "key": "a", "session": other }), "unknown_session"),
        ("/acquire", json!({ "key": "b", "mode": "permit", "limit": 2 }), "wrong_mode"),
        ("/acquire", json!({ "key": "a", "token": TOKEN, "owner": "w" }), "token_reused"),
        ("/release", json!({ "key": "a", "token": other }), "not_held"),
        ("/heartbeat", json!({ "key": "a", "token": other }), "not_held"),
    ];
    for (path, body, code) in stories {
        let operation = all.iter().find(|operation| operation.path == path).unwrap();
        let answer = server.post(path, body.clone()).await;
        assert_eq!(text(&answer.body, "code"), code, "{body}");
        check(&api, operation, &body.to_string(), &answer);
    }
    waits.abort();
    server.post("/release", json!({ "key": "a", "token": mine["token"] })).await.ok();
    for (path, code) in [("/acquire", "lost"), ("/heartbeat", "lost")] {
        let operation = all.iter().find(|operation| operation.path == path).unwrap();
        let answer = server.post(path, json!({ "key": "a", "token": TOKEN })).await;
        assert_eq!(text(&answer.body, "code"), code);
        check(&api, operation, path, &answer);
    }
}

#[actix_rt::test]
async fn the_description_names_every_route_and_every_example_is_what_its_schema_says() {
    let server = Server::start();
    let api = description(&server).await;
    assert!(text(&api, "openapi").starts_with("3."));
    let all = operations(&api);
    let names: BTreeSet<_> = all.iter().map(|operation| text(&operation.about, "operationId")).collect();
    assert_eq!(names.len(), all.len(), "every operation has a name of its own");
    let metrics = all.iter().any(|operation| operation.path == "/metrics");
    assert_eq!((all.len(), metrics), if cfg!(feature = "metrics") { (19, true) } else { (18, false) });
    let mut examples = 0;
    for operation in &all {
        let about = &operation.about;
        let request = &about["requestBody"]["content"]["application/json"]["schema"];
        if !request.is_null() {
            let schema = resolve(&api, request);
            fits(&api, schema, &schema["example"]).unwrap();
            examples += 1;
        }
        for (status, response) in about["responses"].as_object().unwrap() {
            for (kind, content) in response["content"].as_object().unwrap() {
                for (code, example) in content["examples"].as_object().into_iter().flatten() {
                    fits(&api, &content["schema"], &example["value"]).unwrap();
                    assert_eq!((&example["value"]["code"], kind.as_str()), (&json!(code), "application/problem+json"));
                    assert_eq!(example["value"]["status"].to_string(), *status);
                    examples += 1;
                }
            }
        }
    }
    assert!(examples > 100, "{examples}");
    for (name, schema) in api["components"]["schemas"].as_object().unwrap() {
        if let Some(example) = schema.get("example") {
            fits(&api, schema, example).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
}

#[actix_rt::test]
async fn the_described_examples_work_when_they_are_sent() {
    let server = Server::start();
    let api = description(&server).await;
    for path in ["/acquire", "/sessions"] {
        let schema = &api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        server.post(path, resolve(&api, schema)["example"].clone()).await.ok();
    }
}

#[actix_rt::test]
async fn the_docs_show_every_operation_and_ask_nobody_else() {
    let server = Server::start();
    let api = description(&server).await;
    let page = server.request(Method::GET, "/docs").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    for operation in operations(&api) {
        assert!(page.contains(&format!("<section id={}>", text(&operation.about, "operationId"))));
        for response in operation.about["responses"].as_object().unwrap().values() {
            let examples = response["content"]["application/problem+json"]["examples"].as_object();
            for code in examples.into_iter().flatten().map(|(code, _)| code) {
                assert!(page.contains(&format!("<code>{code}</code>")), "{code}");
            }
        }
    }
    let elsewhere = page.replace(&format!("URL=http://{}<", server.address), "");
    assert!(page.len() > elsewhere.len() && !elsewhere.contains("://"), "the lines to copy name this server");
    assert!(!page.contains("<script") && !page.contains(" style="));
    for operation in operations(&api) {
        assert!(page.contains(&format!("<a href=#{}>", text(&operation.about, "operationId"))), "the contents");
    }
    for value in ["exclusive", "shared", "permit", "empty", "wait"] {
        assert!(page.contains(&format!("<code>{value}</code>")), "{value}");
    }
    assert!(!page.contains("one of the kinds") && page.matches("curl ").count() == operations(&api).len());
    let style = server.request(Method::GET, "/docs/style.css").send().await.unwrap();
    assert_eq!(style.headers()["content-type"], "text/css; charset=utf-8");
    assert!(!style.text().await.unwrap().contains("url("));
}

#[actix_rt::test]
async fn an_answer_has_the_name_that_its_request_brought() {
    let server = Server::start();
    let named = |path: &str| Answer::of(server.request(Method::GET, path).header("x-request-id", "mine-1"));
    for path in ["/healthz", "/locks", "/locks/free", "/nothing", "/openapi.json"] {
        assert_eq!(named(path).await.headers["x-request-id"], "mine-1", "{path}");
    }
    let [one, two] = [server.get("/healthz").await, server.get("/healthz").await];
    assert_ne!(one.headers["x-request-id"], two.headers["x-request-id"]);
}

/// A host that does not serve the metrics does not describe them either.
#[actix_rt::test]
async fn what_a_host_leaves_out_is_not_described() {
    let app = App::new().app_data(LockManager::builder().build().unwrap());
    let app = init_service(app.service(web::scope("/locks").configure(leasehold::http::configure))).await;
    let page = call_and_read_body(&app, TestRequest::get().uri("/locks/docs").to_request()).await;
    let api = call_and_read_body(&app, TestRequest::get().uri("/locks/openapi.json").to_request()).await;
    for text in [page, api] {
        let text = String::from_utf8(text.into()).unwrap();
        assert!(text.contains("/stats") && !text.contains("/metrics"));
    }
}

#[actix_rt::test]
async fn the_description_says_where_the_server_is_and_asks_for_a_token_only_if_the_server_does() {
    let open = Server::start();
    let list = json!([{ "name": "all", "token": SECRETS[0], "rights": ["read"] }]);
    let access = Access::from_json(&list.to_string()).unwrap();
    let guarded = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access);
    let (open, guarded) = (description(&open).await, description(&guarded).await);
    assert_eq!(open["servers"][0]["url"], "/");
    assert!(open["security"].is_null() && open["components"]["securitySchemes"].is_null());
    assert_eq!(guarded["security"], json!([{ "bearer": [] }]));
    assert!(guarded["components"]["securitySchemes"]["bearer"].is_object());
    let acquire = &open["components"]["schemas"]["Acquire"]["properties"];
    for text in
        [&acquire["key"], &acquire["owner"], &open["components"]["schemas"]["OpenSession"]["properties"]["name"]]
    {
        assert!(text["pattern"].is_string(), "{text}");
    }
    let app = App::new().app_data(LockManager::builder().build().unwrap());
    let app = init_service(app.service(web::scope("/locks").configure(leasehold::http::configure))).await;
    let mounted = call_and_read_body(&app, TestRequest::get().uri("/locks/openapi.json").to_request()).await;
    let mounted: Value = serde_json::from_slice(&mounted).unwrap();
    assert_eq!(mounted["servers"][0]["url"], "/locks");
}

#[actix_rt::test]
async fn events_are_as_they_are_described() {
    let server = Server::start();
    let api = description(&server).await;
    let schema = &api["components"]["schemas"]["Event"];
    let mut events = server.events("/events").await;
    let lock = server.post("/acquire", json!({ "key": "a", "mode": "permit", "limit": 2 })).await.ok();
    let mine = json!({ "key": "a", "token": lock["token"] });
    server.post("/heartbeat", mine.clone()).await.ok();
    server.post("/release", mine).await.ok();
    for kind in ["granted", "refreshed", "released"] {
        let event = events.next().await;
        assert_eq!(event["kind"], kind);
        fits(&api, schema, &event).unwrap();
        for member in event.as_object().unwrap().keys() {
            assert!(schema["properties"][member].is_object(), "{member}");
        }
    }
}
