//! The description of the routes for people: a page drawn from `openapi.json`, without scripts and without a request to
//! anywhere else.

use std::fmt::Write;

use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use super::call::Answer;
use super::openapi::Description;

/// Nothing but its own style sheet, and no framing.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const METHODS: [&str; 3] = ["post", "get", "delete"];

/// `GET /docs`
pub(super) fn page(req: &HttpRequest) -> Answer {
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(Description::of(req).page.as_str()))
}

/// `GET /docs/style.css`
pub(super) fn style(_: &HttpRequest) -> Answer {
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/css; charset=utf-8"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(include_str!("docs.css")))
}

/// The page of a description.
pub(super) fn draw(api: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>leasehold: the routes</title><link rel=stylesheet href=docs/style.css>",
    );
    let info = &api["info"];
    let _ = write!(page, "<header><h1>{} <small>{}</small></h1>", text(&info["title"]), text(&info["version"]));
    for paragraph in info["description"].as_str().unwrap_or_default().split("\n\n") {
        let _ = write!(page, "<p>{}</p>", prose(paragraph));
    }
    page.push_str("<p><a href=openapi.json>openapi.json</a> says the same to machines.</p></header><main>");
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
    if operation["parameters"].is_array() {
        page.push_str("<table><tr><th>parameter<th>in<th>type<th>");
        for parameter in list(&operation["parameters"]) {
            let _ = write!(
                page,
                "<tr><td><code>{}</code><td>{}<td>{}<td>{}",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(&parameter["schema"]),
                prose(parameter["description"].as_str().unwrap_or_default()),
            );
        }
        page.push_str("</table>");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        draw_body(page, resolve(api, body));
    }
    for (status, response) in members(&operation["responses"]) {
        draw_response(page, api, status, response);
    }
    page.push_str("</section>");
}

fn draw_body(page: &mut String, schema: &Value) {
    page.push_str("<table><tr><th>field<th>type<th>");
    let required: Vec<&Value> = list(&schema["required"]).collect();
    for (name, field) in members(&schema["properties"]) {
        let needed = if required.iter().any(|required| *required == name) { ", required" } else { "" };
        let about = prose(field["description"].as_str().unwrap_or_default());
        let _ = write!(page, "<tr><td><code>{}</code><td>{}{needed}<td>{about}", escape(name), kind(field));
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

fn kind(schema: &Value) -> String {
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
