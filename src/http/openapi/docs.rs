//! The description of the routes for people: a page drawn from `openapi.json`, without scripts and without a request to
//! anywhere else.

use std::fmt::Write;

use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use super::Description;
use crate::http::context::HandlerResult;

/// Nothing but its own style sheet, and no framing.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Stands in a page for where its server is.
const ADDRESS: &str = "\u{1}address\u{1}";
const METHODS: [&str; 3] = ["post", "get", "delete"];

/// `GET /docs`
pub(in crate::http) fn page(req: &HttpRequest) -> HandlerResult {
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(Description::of(req).page.replacen(ADDRESS, &escape(&address(req)), 1)))
}

/// `GET /docs/style.css`
pub(in crate::http) fn style(_: &HttpRequest) -> HandlerResult {
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/css; charset=utf-8"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(include_str!("docs.css")))
}

/// Where the routes are, as far as the request tells: for lines to copy.
fn address(req: &HttpRequest) -> String {
    let connection = req.connection_info();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let host = Some(connection.host()).filter(|host| !host.is_empty() && host.chars().all(plain));
    let scheme = if connection.scheme() == "https" { "https" } else { "http" };
    let mount = req.path().strip_suffix("/docs").unwrap_or_default();
    format!("{scheme}://{}{mount}", host.unwrap_or("localhost:7420"))
}

/// The page of a description.
pub(in crate::http) fn draw(api: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>leasehold: the routes</title><link rel=stylesheet href=docs/style.css>",
    );
    let info = &api["info"];
    let _ = write!(page, "<header><h1>{} <small>{}</small></h1>", text(&info["title"]), text(&info["version"]));
    for paragraph in info["description"].as_str().unwrap_or_default().split("\n\n") {
        let _ = write!(page, "<p>{}</p>", prose(paragraph));
    }
    page.push_str("<p><a href=openapi.json>openapi.json</a> says the same to machines.</p></header>");
    draw_contents(&mut page, api);
    page.push_str("<main>");
    let _ = write!(page, "<p>In the lines to copy:</p><pre>URL={ADDRESS}</pre>");
    for tag in list(&api["tags"]) {
        let _ = write!(page, "<h2>{}</h2><p>{}</p>", text(&tag["name"]), text(&tag["description"]));
        for (path, item) in members(&api["paths"]) {
            for method in METHODS {
                let operation = &item[method];
                if operation["tags"][0] == tag["name"] {
                    draw_operation(&mut page, api, method, path, operation);
                }
            }
        }
    }
    page.push_str("</main></html>");
    page
}

fn draw_contents(page: &mut String, api: &Value) {
    page.push_str("<nav aria-label=Routes><ul>");
    for tag in list(&api["tags"]) {
        let _ = write!(page, "<li>{}<ul>", text(&tag["name"]));
        for (path, item) in members(&api["paths"]) {
            for method in METHODS.iter().filter(|method| item[**method]["tags"][0] == tag["name"]) {
                let (id, name) = (text(&item[*method]["operationId"]), method.to_uppercase());
                let _ = write!(page, "<li><a href=#{id}><code>{name} {}</code></a>", escape(path));
            }
        }
        page.push_str("</ul>");
    }
    page.push_str("</ul></nav>");
}

/// A line that asks for it.
fn draw_curl(page: &mut String, api: &Value, method: &str, path: &str, operation: &Value) {
    let mut line = String::from("curl");
    match method {
        "get" if operation["operationId"] == "events" => line.push_str(" -N"),
        "get" => {}
        other => line = format!("{line} -X {}", other.to_uppercase()),
    }
    let named =
        list(&operation["parameters"]).any(|parameter| parameter["in"] == "query" && parameter["required"] == true);
    let query = if named { "?key=order:42" } else { "" };
    let _ = write!(line, " \"$URL{}{query}\"", path.replace("{key}", "order:42"));
    let needs_token = if operation["security"].is_array() { &operation["security"] } else { &api["security"] };
    if list(needs_token).any(|way| way["bearer"].is_array()) {
        line.push_str(" \\\n  -H \"authorization: Bearer $TOKEN\"");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let example = example_of(api, body, 0);
        let _ = write!(line, " \\\n  -H 'content-type: application/json' \\\n  -d '{example}'");
    }
    let _ = write!(page, "<pre>{}</pre>", escape(&line));
}

fn draw_operation(page: &mut String, api: &Value, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        page,
        "<section id={0}><h3><code class={1}>{2}</code> <code>{3}</code></h3><p>{4}</p>",
        text(&operation["operationId"]),
        method,
        method.to_uppercase(),
        escape(path),
        prose(operation["summary"].as_str().unwrap_or_default()),
    );
    if let Some(more) = operation["description"].as_str() {
        let _ = write!(page, "<p>{}</p>", prose(more));
    }
    draw_curl(page, api, method, path, operation);
    if operation["parameters"].is_array() {
        page.push_str("<table><tr><th>parameter<th>in<th>type<th>");
        for parameter in list(&operation["parameters"]) {
            let _ = write!(
                page,
                "<tr><td><code>{}</code><td>{}<td>{}<td>{}",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(api, &parameter["schema"]),
                prose(parameter["description"].as_str().unwrap_or_default()),
            );
        }
        page.push_str("</table>");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        draw_body(page, api, resolve(api, body));
    }
    for (status, response) in members(&operation["responses"]) {
        draw_response(page, api, status, response);
    }
    page.push_str("</section>");
}

fn draw_body(page: &mut String, api: &Value, schema: &Value) {
    page.push_str("<table><tr><th>field<th>type<th>");
    let required: Vec<&Value> = list(&schema["required"]).collect();
    for (name, field) in members(&schema["properties"]) {
        let needed = if required.iter().any(|required| *required == name) { ", required" } else { "" };
        let about = prose(field["description"].as_str().unwrap_or_default());
        let _ = write!(page, "<tr><td><code>{}</code><td>{}{needed}<td>{about}", escape(name), kind(api, field));
    }
    page.push_str("</table>");
    draw_example(page, &schema["example"]);
}

fn draw_response(page: &mut String, api: &Value, status: &str, response: &Value) {
    let about = prose(response["description"].as_str().unwrap_or_default());
    let _ = write!(page, "<details><summary><b>{}</b> {about}</summary>", escape(status));
    for (_, content) in members(&response["content"]) {
        match members(&content["examples"]).next() {
            Some(_) => members(&content["examples"]).for_each(|(_, example)| draw_example(page, &example["value"])),
            None if !content["example"].is_null() => draw_example(page, &content["example"]),
            None => draw_example(page, &example_of(api, &content["schema"], 0)),
        }
    }
    page.push_str("</details>");
}

fn draw_example(page: &mut String, example: &Value) {
    let shown = match example {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let _ = write!(page, "<pre>{}</pre>", escape(&shown));
}

/// The schema's example, or one put together from those of its parts.
fn example_of(api: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolve(api, schema);
    if !schema["example"].is_null() || depth > 6 {
        return schema["example"].clone();
    }
    let part = |schema: &Value| example_of(api, schema, depth + 1);
    if let Some(first) = list(&schema["oneOf"]).find(|choice| choice["type"] != "null") {
        return part(first);
    }
    let mut object = serde_json::Map::new();
    for merged in list(&schema["allOf"]).map(part) {
        object.extend(merged.as_object().cloned().unwrap_or_default());
    }
    object.extend(members(&schema["properties"]).map(|(name, field)| (name.to_owned(), part(field))));
    if !object.is_empty() {
        return object.into();
    }
    match first_type(schema) {
        "array" => vec![part(&schema["items"])].into(),
        "integer" | "number" => 1.into(),
        "boolean" => false.into(),
        "string" => list(&schema["enum"]).next().cloned().unwrap_or_else(|| "text".into()),
        _ => Value::Null,
    }
}

fn resolve<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|path| api.pointer(path.trim_start_matches('#'))) {
        Some(found) => found,
        None => schema,
    }
}

fn first_type(schema: &Value) -> &str {
    schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default()
}

/// All values that there are, where they can be listed.
fn values(api: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(api, schema);
    let own = list(&schema["enum"]).filter_map(Value::as_str).map(str::to_owned);
    let parts = ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|of| list(&schema[of]));
    own.chain(parts.flat_map(|part| values(api, part))).collect()
}

fn kind(api: &Value, schema: &Value) -> String {
    let values = values(api, schema);
    if !values.is_empty() {
        let values: Vec<_> = values.iter().map(|value| format!("<code>{}</code>", escape(value))).collect();
        return values.join(", ");
    }
    let name = first_type(schema);
    let name = if name.is_empty() { "one of the kinds" } else { schema["format"].as_str().unwrap_or(name) };
    let bounds = [("minimum", "from"), ("maximum", "to"), ("minLength", "at least"), ("maxLength", "at most")];
    let said = bounds.iter().filter(|(bound, _)| schema[*bound].is_number());
    let said: String = said.map(|(bound, word)| format!(" {word} {}", schema[*bound])).collect();
    format!("{}{said}", escape(name))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, member)| (name.as_str(), member))
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

/// Text with `code` in it.
fn prose(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    pieces
        .map(|(at, piece)| if at % 2 == 1 { format!("<code>{}</code>", escape(piece)) } else { escape(piece) })
        .collect()
}

pub(in crate::http) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
