//! The headers that the routes read: `authorization`, `x-request-id`, `content-type`. One in each line.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;

use super::routes::{BEARER, guarded};

const BODY: &str = r#"{"key":"k","wait_ms":0,"ttl_ms":10}"#;

pub(super) fn hold(data: &[u8]) {
    let mut asking = TestRequest::get().uri("/whoami");
    let mut acquiring = TestRequest::post().uri("/acquire").set_payload(BODY);
    let mut given = [const { None }; 3];
    for line in data.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[at + 1..].trim_ascii())) else { continue };
        // Others are the business of actix-web.
        let Some(known) = ["authorization", "x-request-id", "content-type"].iter().position(|known| name == *known)
        else {
            continue;
        };
        if given[known].is_none() {
            given[known] = Some(value.as_bytes().to_vec());
            asking = asking.insert_header((name.clone(), value.clone()));
            acquiring = acquiring.insert_header((name, value));
        }
    }
    let [authorization, id, kind] = given;
    guarded(|site| {
        let (asked, acquired) = (site.ask(asking), site.ask(acquiring));
        for answer in [&asked, &acquired] {
            answer.hold(&[]);
            let kept = id.as_deref().is_some_and(|id| id == answer.request_id.as_bytes());
            assert_eq!(kept, id.as_deref().is_some_and(is_harmless), "{answer:?}");
        }
        let status = match &authorization {
            Some(given) if is_bearer(given) => 200,
            // Whoever brings no token may ask who he is, a token of another scheme being none.
            Some(given) if has_bearer(given) => 401,
            _ => 200,
        };
        assert_eq!(asked.status, status, "{authorization:?}: {asked:?}");
        assert_eq!(asked.body["name"] == "n", authorization.as_deref().is_some_and(is_bearer), "{asked:?}");
        let lets_in = authorization.as_deref().is_some_and(is_bearer);
        match acquired.status {
            200 => {
                assert!(lets_in && kind.is_some_and(|kind| says_json(&kind)));
                let released = site.run(site.locks.release("k", token(&acquired.body["token"])));
                assert!(released.is_ok(), "{released:?}");
            }
            401 => assert!(!lets_in, "{acquired:?}"),
            415 => assert!(lets_in && kind.is_none_or(|kind| kind != b"application/json"), "{acquired:?}"),
            _ => panic!("{acquired:?}"),
        }
    });
}

fn token(value: &serde_json::Value) -> leasehold::Token {
    value.as_str().and_then(|text| text.parse().ok()).expect("the token of a grant")
}

fn is_harmless(id: &[u8]) -> bool {
    (1..=64).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

/// The scheme and what follows, whatever bytes a header may carry there.
fn scheme(given: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = given.iter().position(|byte| *byte == b' ')?;
    Some((&given[..at], &given[at + 1..]))
}

fn has_bearer(given: &[u8]) -> bool {
    scheme(given).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer"))
}

fn is_bearer(given: &[u8]) -> bool {
    has_bearer(given) && scheme(given).is_some_and(|(_, secret)| secret.trim_ascii() == BEARER.as_bytes())
}

fn says_json(kind: &[u8]) -> bool {
    String::from_utf8_lossy(kind).to_ascii_lowercase().contains("json")
}
