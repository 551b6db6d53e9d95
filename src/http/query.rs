//! Keys and options that stand in a URL: decoded strictly, so that no two keys fall together in a replacement
//! character, and a misspelt parameter is refused like a misspelt field.

use std::borrow::Cow;

use actix_web::HttpRequest;
use percent_encoding::percent_decode_str;

use super::problem::{Fault, Problem};

/// The parameters that a route knows, as far as they were given.
pub(super) fn parameters<const N: usize>(req: &HttpRequest, known: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut given = [const { None }; N];
    for pair in req.query_string().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode_form(name)?, decode_form(value)?);
        let Some(at) = known.iter().position(|known| *known == name) else {
            let known = if N == 0 { "none is known".to_owned() } else { format!("known are: {}", known.join(", ")) };
            return Err(invalid(format!("there is no parameter {name:?} here; {known}")));
        };
        if given[at].replace(value).is_some() {
            return Err(invalid(format!("the parameter `{}` is given twice", known[at])));
        }
    }
    Ok(given)
}

/// The first parameter of this name, of whatever others there are.
pub(super) fn first(req: &HttpRequest, name: &str) -> Result<Option<String>, Problem> {
    for pair in req.query_string().split('&') {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode_form(found)? == name {
            return decode_form(value).map(Some);
        }
    }
    Ok(None)
}

/// The last segment of the path, decoded. A `/` within the key may be written as `%2F`.
///
/// actix-web's own `Path` decodes invalid UTF-8 into replacement characters.
pub(super) fn key_in_path(req: &HttpRequest) -> Result<String, Problem> {
    let segment = req.uri().path().rsplit('/').next().unwrap_or_default();
    decode(segment)
}

pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Fault::InvalidQuery(detail.into()).into()
}

/// As HTML forms encode: a `+` is a space.
fn decode_form(text: &str) -> Result<String, Problem> {
    decode(&text.replace('+', " "))
}

/// Percent-decoded, strictly.
pub(super) fn decode(text: &str) -> Result<String, Problem> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(invalid("the URL is not UTF-8 after decoding")),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn read(uri: &str) -> Result<[Option<String>; 2], Problem> {
        parameters(&TestRequest::with_uri(uri).to_http_request(), ["key", "limit"])
    }

    #[test]
    fn parameters_are_decoded_and_unknown_or_repeated_ones_refused() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("/x").unwrap(), [None, None]);
        assert_eq!(read("/x?key=a%2Fb+c%2B").unwrap(), [some("a/b c+"), None]);
        assert_eq!(read("/x?limit=3&&key=").unwrap(), [some(""), some("3")]);
        for bad in ["/x?ky=a", "/x?key=a&key=b", "/x?key=%FF", "/x?%FF=a"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_in_the_path_is_decoded_strictly() {
        let key = |path: &str| key_in_path(&TestRequest::with_uri(path).to_http_request());
        assert_eq!(key("/locks/order:42").unwrap(), "order:42");
        assert_eq!(key("/locks/a%2Fb%25+%E2%82%AC").unwrap(), "a/b%+€");
        assert!(key("/locks/%FF").is_err());
    }
}
