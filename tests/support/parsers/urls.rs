//! Paths and queries: `GET /locks?key=order%3A42`, and what else stands in a request's first line.

use actix_web::http::{Method, Uri};
use actix_web::test::TestRequest;

use super::routes::open;

pub(super) fn hold(data: &[u8]) {
    let Some((method, uri)) = std::str::from_utf8(data).ok().and_then(|line| line.split_once(' ')) else { return };
    // POST has bodies, and a target of its own.
    let method = match method {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "DELETE" => Method::DELETE,
        "PUT" => Method::PUT,
        _ => return,
    };
    let Ok(uri) = uri.parse::<Uri>() else { return };
    // As the parser of HTTP has it: an origin form.
    if !uri.path().starts_with('/') || uri.authority().is_some() {
        return;
    }
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    open(|site| {
        let key = named_key(&path, &query);
        let good = key.as_deref().filter(|key| (1..=256).contains(&key.len()) && !key.chars().any(char::is_control));
        let held = good.map(|key| {
            let lock = site.run(async { site.locks.try_lock(key).await }).expect("nobody has it");
            lock.detach()
        });
        let answer = site.ask(TestRequest::default().method(method.clone()).uri(&uri.to_string()));
        let parameters: Vec<String> =
            query.split('&').map(|pair| decoded(pair, Plus::Space).unwrap_or_default()).collect();
        let names: Vec<&str> =
            parameters.iter().map(|pair| pair.split_once('=').map_or(&**pair, |(name, _)| name)).collect();
        answer.hold(&names);
        if let (Some(held), Some(key)) = (held, good) {
            let forced = method == Method::DELETE && answer.status == 200;
            if method == Method::GET && answer.status == 200 && answer.body["key"].is_string() {
                assert_eq!(answer.body["key"], *key, "{answer:?}");
            }
            let gone = site.run(site.locks.release(key, held.token()));
            let expected = if forced { leasehold::Release::AlreadyGone } else { leasehold::Release::Released };
            assert_eq!(gone, Ok(expected), "{method} {uri}: {answer:?}");
        } else if key.is_some() && answer.status < 400 {
            panic!("{key:?} is no key: {method} {uri}: {answer:?}");
        }
        assert_eq!(site.locks.stats().active, 0, "nothing is left behind");
    });
}

/// The key that a request is about, if it names one in a way that is understood.
fn named_key(path: &str, query: &str) -> Option<String> {
    if let Some(segment) = path.strip_prefix("/locks/").filter(|segment| !segment.is_empty() && !segment.contains('/'))
    {
        return query.split('&').all(str::is_empty).then(|| decoded(segment, Plus::Plus)).flatten();
    }
    if path != "/locks" {
        return None;
    }
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let (name, value) = pairs.next()?.split_once('=')?;
    let only = pairs.next().is_none() && decoded(name, Plus::Space)? == "key";
    only.then(|| decoded(value, Plus::Space)).flatten()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Plus,
    Space,
}

/// Percent-decoded a byte at a time; `None` if it is no UTF-8 then.
fn decoded(text: &str, plus: Plus) -> Option<String> {
    let hex = |at: usize| (*text.as_bytes().get(at)? as char).to_digit(16);
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.as_bytes().get(at) {
        let (byte, width) = match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            (b'+', ..) if plus == Plus::Space => (b' ', 1),
            (byte, ..) => (*byte, 1),
        };
        bytes.push(byte);
        at += width;
    }
    String::from_utf8(bytes).ok()
}
