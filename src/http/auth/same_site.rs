//! Whether a request can be the doing of a web page of somebody else's, where there are no tokens to tell.
//!
//! Any page may have its visitor's browser send requests to `127.0.0.1`, and one whose name is made to resolve there
//! (DNS rebinding) even reads the answers. What such a page cannot do is to leave its own name out: it stands in `Host`,
//! in `Origin`, or behind `Sec-Fetch-Site`. So without tokens `Host` must be an address, `localhost` or a name that the
//! operator has given, and the other two must be absent or of this host. A bearer token is sent by no browser of itself,
//! so with tokens nothing of this is asked. Called by `access`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};

use crate::http::problem::Fault;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// No more of a name than this is quoted to whoever sent it.
const LONGEST_QUOTED: usize = 80;

/// The names that the server is known by, besides addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct AllowedHosts {
    names: Arc<[Box<str>]>,
    any: bool,
}

impl AllowedHosts {
    /// Reads names, with commas between them; `*` is any name. The entry that is no name if there is one.
    pub(in crate::http) fn read(list: &str) -> Result<Self, &str> {
        let mut allowed = Vec::new();
        let mut any = false;
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry {
                "*" => any = true,
                name if is_name(name) => allowed.push(without_dot(name).to_ascii_lowercase().into_boxed_str()),
                other => return Err(other),
            }
        }
        Ok(Self { names: allowed.into(), any })
    }

    /// Refuses what may come from a page of another site.
    pub(in crate::http) fn check(&self, head: &RequestHead) -> Result<(), Fault> {
        let mut host = None;
        // A request may name its host in its first line as well, and may repeat the header: each must be right.
        let target = head.uri.authority().map(|authority| authority.as_str());
        for given in target.map(Ok).into_iter().chain(head.headers.get_all(HOST).map(HeaderValue::to_str)) {
            let authority = given.unwrap_or_default();
            if !hostname(authority).is_some_and(|name| self.knows(name)) {
                return Err(Fault::ForbiddenHost { host: authority.chars().take(LONGEST_QUOTED).collect() });
            }
            host = Some(authority);
        }
        if is_foreign(head, &SEC_FETCH_SITE, |site| site == "same-origin" || site == "none") && !is_followed_link(head)
        {
            return Err(Fault::CrossSite);
        }
        // Without any host it came from no browser, which always names one.
        match is_foreign(head, &ORIGIN, |origin| host.is_none_or(|host| self.is_own(origin, host))) {
            true => Err(Fault::CrossSite),
            false => Ok(()),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.any || name.eq_ignore_ascii_case("localhost") || is_address(name) || self.names(name)
    }

    fn names(&self, name: &str) -> bool {
        self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    /// Whether an origin is of the host that was asked, or of a name that was allowed: a proxy may ask by another.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let bare =
            |authority: &'_ str| without_dot(authority.strip_suffix(default_port).unwrap_or(authority)).to_owned();
        bare(authority).eq_ignore_ascii_case(&bare(host)) || hostname(authority).is_some_and(|name| self.names(name))
    }
}

/// Whether a header is there and is not as it should be, all of its lines.
fn is_foreign(head: &RequestHead, header: &HeaderName, is_right: impl Fn(&str) -> bool) -> bool {
    head.headers.get_all(header).any(|value| !value.to_str().is_ok_and(&is_right))
}

/// Whether the browser goes to a page of ours, out of a link on another: it shows the answer to its user, and to no page.
fn is_followed_link(head: &RequestHead) -> bool {
    let says = |header: &HeaderName, what: &str| head.headers.get(header).is_some_and(|value| value == what);
    let reads = [Method::GET, Method::HEAD].contains(&head.method);
    reads && says(&SEC_FETCH_MODE, "navigate") && says(&SEC_FETCH_DEST, "document")
}

/// The host of `host`, `host:port` or `[address]:port`; an IPv6 address stays in its brackets.
fn hostname(authority: &str) -> Option<&str> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(end);
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let name = without_dot(name);
    (is_port && !name.is_empty()).then_some(name)
}

/// A name may say by a dot at its end that it is whole.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn is_address(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Underscores are in no domain, but in the names that containers have.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !without_dot(name).is_empty() && name.len() <= 253 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    /// `ok`, or what refuses it.
    fn judged(allowed: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut request = TestRequest::post().uri("/acquire");
        for header in headers {
            request = request.append_header(*header);
        }
        of(allowed, request)
    }

    fn of(allowed: &str, request: TestRequest) -> &'static str {
        match AllowedHosts::read(allowed).unwrap().check(request.to_http_request().head()) {
            Ok(()) => "ok",
            Err(Fault::ForbiddenHost { .. }) => "host",
            Err(_) => "cross",
        }
    }

    #[test]
    fn the_host_is_an_address_or_localhost_or_a_name_that_was_given() {
        let allowed = "locks.example.com, lock_server.";
        let rows = [
            ("127.0.0.1:7420", "ok"),
            ("127.0.0.1", "ok"),
            ("192.168.1.7.:80", "ok"),
            ("[::1]:7420", "ok"),
            ("[fe80::1%25eth0]", "ok"),
            ("localhost:7420", "ok"),
            ("LOCALHOST.", "ok"),
            ("locks.example.com", "ok"),
            ("Locks.Example.Com.:443", "ok"),
            ("lock_server:7420", "ok"),
            ("evil.example:7420", "host"),
            ("locks.example.com.evil.example", "host"),
            ("127.0.0.1.evil.example:7420", "host"),
            ("evil.localhost", "host"),
            ("2130706433", "host"),
            ("0x7f.1", "host"),
            ("localhost:7420@evil.example", "host"),
            ("user@127.0.0.1", "host"),
            ("localhost:", "host"),
            ("localhost:port", "host"),
            ("localhost:7420:1", "host"),
            ("::1", "host"),
            ("[::1", "host"),
            ("[evil.example]", "host"),
            (".", "host"),
            ("", "host"),
        ];
        for (host, expected) in rows {
            assert_eq!(judged(allowed, &[("host", host)]), expected, "{host}");
        }
        assert_eq!(judged("*", &[("host", "anything.example")]), "ok");
        assert_eq!(judged("*", &[("host", "a.example"), ("origin", "http://b.example")]), "cross");
        assert_eq!(judged("", &[]), "ok", "no browser leaves it out");
    }

    #[test]
    fn every_host_that_a_request_names_must_be_right() {
        assert_eq!(judged("", &[("host", "127.0.0.1"), ("host", "evil.example")]), "host");
        assert_eq!(judged("", &[("host", "evil.example"), ("host", "127.0.0.1")]), "host");
        let absolute = |uri: &str| of("", TestRequest::with_uri(uri).insert_header(("host", "127.0.0.1")));
        assert_eq!(absolute("http://evil.example/locks"), "host");
        assert_eq!(absolute("http://127.0.0.1:7420/locks"), "ok");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let rows: [(&[(&str, &str)], &str); 15] = [
            (&[("origin", "http://127.0.0.1:7420")], "ok"),
            (&[("origin", "https://127.0.0.1:7420")], "ok"),
            (&[("origin", "https://locks.example.com")], "ok"),
            (&[("origin", "http://127.0.0.1:3000")], "cross"),
            (&[("origin", "http://127.0.0.1")], "cross"),
            (&[("origin", "http://evil.example")], "cross"),
            (&[("origin", "null")], "cross"),
            (&[("origin", "file://127.0.0.1:7420")], "cross"),
            (&[("origin", "http://127.0.0.1:7420"), ("origin", "http://evil.example")], "cross"),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], "ok"),
            (&[("sec-fetch-site", "none")], "ok"),
            (&[("sec-fetch-site", "same-site")], "cross"),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], "cross"),
            (&[("sec-fetch-site", "")], "cross"),
            // A form that another page sends is a navigation, but no reading.
            (
                &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
                "cross",
            ),
        ];
        for (headers, expected) in rows {
            let all = [&[("host", "127.0.0.1:7420")], headers].concat();
            assert_eq!(judged("locks.example.com", &all), expected, "{headers:?}");
        }
        for (origin, host) in [("http://localhost", "localhost:80"), ("https://[::1]:443", "[::1]")] {
            assert_eq!(judged("", &[("host", host), ("origin", origin)]), "ok", "{origin}");
        }
    }

    #[test]
    fn a_link_on_another_page_may_be_followed_and_not_framed() {
        let from = |dest: &str| {
            let request = TestRequest::with_uri("/").insert_header(("host", "localhost"));
            let request = request.insert_header(("sec-fetch-site", "cross-site"));
            of("", request.insert_header(("sec-fetch-mode", "navigate")).insert_header(("sec-fetch-dest", dest)))
        };
        assert_eq!((from("document"), from("iframe"), from("image")), ("ok", "cross", "cross"));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for wrong in ["http://locks.example.com", "locks.example.com:80", "a b", "*.example.com", "."] {
            assert_eq!(AllowedHosts::read(&format!("ok.example,{wrong}")).unwrap_err(), wrong);
        }
    }
}
