//! The bodies of requests. The first byte chooses the route: `a`cquire, `r`elease, `h`eartbeat, `s`essions. `$TOKEN` and
//! `$SESSION` stand for those of a lock that is held and of a session that is open.

use std::fmt;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::test::TestRequest;
use leasehold::{LockManager, Token};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::answers::Answer;
use super::routes::{Site, open};

const DAY_MS: u64 = 86_400_000;

pub(super) fn hold(data: &[u8]) {
    let Some((route, body)) = data.split_first() else { return };
    open(|site| match route {
        b'a' => acquire(site, body),
        b'r' => by_token(site, "/release", body),
        b'h' => by_token(site, "/heartbeat", body),
        b's' => session(site, body),
        _ => {}
    });
}

fn ask(site: &Site, path: &str, body: &[u8]) -> Answer {
    let answer = site.ask(
        TestRequest::post().uri(path).insert_header((CONTENT_TYPE, "application/json")).set_payload(body.to_vec()),
    );
    // A refusal may name a field that is not known; what is no JSON may have one before the place where it goes wrong.
    let fields = Fields::of(body);
    let whole = String::from_utf8_lossy(body);
    let names: Vec<&str> = match &fields {
        Some(fields) => fields.0.iter().map(|(name, _)| name.as_str()).collect(),
        None => vec![&whole],
    };
    answer.hold(&names);
    if body.len() > 16 * 1024 {
        assert_eq!(answer.code(), "too_large", "{answer:?}");
    }
    answer
}

fn acquire(site: &Site, body: &[u8]) {
    let session = site.locks.session("somebody").ttl(Duration::from_secs(60));
    let kept = replace(body, "$SESSION", || {
        session.register().expect("a session");
        session.id().to_string()
    });
    let answer = ask(site, "/acquire", &kept);
    let meant = Fields::of(&kept).filter(|_| kept.len() <= 16 * 1024).and_then(|fields| Acquire::of(&fields));
    match (&meant, answer.status) {
        (Some(meant), 200) => {
            assert_eq!(answer.body["key"], *meant.key, "{answer:?}");
            // The locks of a session live as long as it does.
            let ttl_ms = if meant.session { 60_000 } else { meant.ttl_ms };
            assert_eq!(answer.body["ttl_ms"], ttl_ms, "{answer:?}");
            assert_eq!(answer.body["mode"], meant.mode, "{answer:?}");
            assert_eq!(answer.body["permits"], meant.permits.map_or(Value::Null, |(_, permits)| permits.into()));
            assert_eq!(answer.body["limit"], meant.permits.map_or(Value::Null, |(limit, _)| limit.into()));
            let owner = if meant.session { Some("somebody") } else { meant.owner.as_deref() };
            assert_eq!(answer.body["owner"].as_str(), owner, "{answer:?}");
            let token: Token = answer.body["token"].as_str().and_then(|token| token.parse().ok()).expect("a token");
            assert!(meant.token.is_none_or(|chosen| chosen == token), "another than the chosen token: {answer:?}");
            assert!(answer.body["remaining_ms"].as_u64() <= answer.body["ttl_ms"].as_u64(), "{answer:?}");
            release(site, &meant.key, token);
        }
        // A token may have been used before, and a session be none.
        (Some(meant), 404 | 409 | 422) if meant.session || meant.token.is_some() => {}
        (Some(_), _) => panic!("refused: {answer:?}"),
        (None, 200) => panic!("half understood: {answer:?}"),
        (None, _) => {}
    }
    site.run(session.end());
    assert_eq!(site.locks.stats().active, 0, "nothing is left behind");
}

/// A release or a heartbeat of a lock that is held.
fn by_token(site: &Site, path: &str, body: &[u8]) {
    let held = site.run(async { site.locks.try_lock("held").await.map(|lock| lock.detach()) }).expect("nobody has it");
    let token = held.token();
    let body = replace(body, "$TOKEN", || token.to_string());
    let answer = ask(site, path, &body);
    let fields = Fields::of(&body).filter(|_| body.len() <= 16 * 1024);
    let ours = fields.as_ref().is_some_and(|fields| {
        let known: &[&str] = if path == "/release" { &["key", "token"] } else { &["key", "token", "ttl_ms"] };
        let given = fields.get("token").and_then(Value::as_str).and_then(|token| token.parse().ok());
        let ttl = fields.get("ttl_ms").is_none_or(|ttl| ttl.is_null() || millis(ttl, 10..=DAY_MS).is_some());
        let key = fields.get("key").and_then(Value::as_str);
        fields.only(known) && key == Some("held") && given == Some(token) && ttl
    });
    match path {
        "/release" if ours => assert_eq!(answer.body["outcome"], "released", "{answer:?}"),
        "/release" if answer.status == 200 => assert_eq!(answer.body["outcome"], "already_gone", "{answer:?}"),
        "/heartbeat" if ours => assert_eq!(answer.body["refresh_count"], 1, "{answer:?}"),
        _ => assert!(answer.status >= 400, "{answer:?}"),
    }
    release(site, "held", token);
}

fn session(site: &Site, body: &[u8]) {
    let answer = ask(site, "/sessions", body);
    let fields = Fields::of(body).filter(|fields| body.len() <= 16 * 1024 && fields.only(&["name", "ttl_ms"]));
    let meant = fields.and_then(|fields| {
        let name = fields.get("name")?.as_str().filter(|name| is_owner(name))?.to_owned();
        let ttl_ms = maybe(fields.get("ttl_ms"), |ttl| millis(ttl, 10..=DAY_MS))?;
        Some((name, ttl_ms.unwrap_or(30_000)))
    });
    let opened = (answer.status == 200).then(|| {
        (answer.body["name"].as_str().unwrap_or_default().to_owned(), answer.body["ttl_ms"].as_u64().unwrap_or(0))
    });
    assert_eq!(opened, meant, "{answer:?}");
    if let Some(id) = answer.body["id"].as_str().filter(|_| answer.status == 200) {
        let ended = ask(site, "/sessions/end", serde_json::json!({ "session": id }).to_string().as_bytes());
        assert_eq!(ended.body["outcome"], "released", "{ended:?}");
    }
}

fn release(site: &Site, key: &str, token: Token) {
    let locks: &LockManager = &site.locks;
    let released = site.run(locks.release(key, token));
    assert!(released.is_ok(), "{released:?}");
}

fn replace(body: &[u8], what: &str, with: impl FnOnce() -> String) -> Vec<u8> {
    match std::str::from_utf8(body) {
        Ok(text) if text.contains(what) => text.replace(what, &with()).into_bytes(),
        _ => body.to_vec(),
    }
}

/// What an acquire asks for, read a second time by other means.
struct Acquire {
    key: String,
    ttl_ms: u64,
    owner: Option<String>,
    mode: &'static str,
    permits: Option<(u64, u64)>,
    token: Option<Token>,
    session: bool,
}

impl Acquire {
    /// `None` if it is to be refused.
    fn of(fields: &Fields) -> Option<Self> {
        let known = ["key", "ttl_ms", "wait_ms", "owner", "session", "mode", "limit", "permits", "token"];
        if !fields.only(&known) {
            return None;
        }
        let key = fields.get("key")?.as_str().filter(|key| is_key(key))?.to_owned();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let count = |value: &Value| millis(value, 1..=u64::from(u32::MAX));
        let ttl_ms = maybe(fields.get("ttl_ms"), |ttl| millis(ttl, 10..=DAY_MS))?.unwrap_or(30_000);
        maybe(fields.get("wait_ms"), |wait| millis(wait, 0..=60_000))?;
        let owner = maybe(fields.get("owner"), |owner| text(owner).filter(|owner| is_owner(owner)))?;
        let session = maybe(fields.get("session"), |id| id.as_str()?.parse::<uuid::Uuid>().ok())?.is_some();
        let token = maybe(fields.get("token"), |token| token.as_str()?.parse().ok())?;
        let (limit, permits) = (maybe(fields.get("limit"), count)?, maybe(fields.get("permits"), count)?);
        let mode = maybe(fields.get("mode"), |mode| {
            ["exclusive", "shared", "permit"].into_iter().find(|known| *known == mode)
        })?;
        let mode = mode.unwrap_or("exclusive");
        let permits = match (mode, limit, permits) {
            ("permit", Some(limit), permits) => {
                Some((limit, permits.unwrap_or(1))).filter(|(limit, permits)| permits <= limit)?
            }
            (_, None, None) if mode != "permit" => {
                return Some(Self { key, ttl_ms, owner, mode, permits: None, token, session });
            }
            _ => return None,
        };
        Some(Self { key, ttl_ms, owner, mode, permits: Some(permits), token, session })
    }
}

/// `None` if it is there and not what it should be; `null` is as if it were not.
fn maybe<T>(value: Option<&Value>, read: impl FnOnce(&Value) -> Option<T>) -> Option<Option<T>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => read(value).map(Some),
    }
}

fn millis(value: &Value, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
    let whole = value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
        Some(number as u64)
    });
    whole.filter(|whole| bounds.contains(whole))
}

fn is_key(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_owner(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The fields of an object in their order, with those that are there twice.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn of(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Whether all are known, and none is there twice.
    fn only(&self, known: &[&str]) -> bool {
        let twice = |at: usize, name: &String| self.0[..at].iter().any(|(other, _)| other == name);
        self.0.iter().enumerate().all(|(at, (name, _))| known.contains(&name.as_str()) && !twice(at, name))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
