//! What every answer of the routes is, whatever was asked.

use serde_json::Value;

/// An answer, its body read as JSON if it is.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) request_id: String,
    pub(super) body: Value,
}

impl Answer {
    /// Not the server's fault, and if it is a refusal, one in the shape of all refusals, which repeats no secret.
    ///
    /// `named`: it may say what the request calls by name: a field or a parameter that is not known.
    pub(super) fn hold(&self, named: &[&str]) {
        assert!(self.status < 500, "{self:?}");
        assert!(!self.request_id.is_empty() && self.request_id.len() <= 64, "{self:?}");
        if self.status < 400 {
            return;
        }
        assert_eq!(self.kind, "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        let code = self.code();
        let known = STATUSES.iter().find(|(known, _)| *known == code);
        assert_eq!(known.map(|(_, status)| *status), Some(self.status), "{self:?}");
        let detail = self.body["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty(), "{self:?}");
        if !named.iter().any(|name| name.contains(super::SECRET)) {
            assert!(!self.body.to_string().contains(super::SECRET), "{self:?}");
        }
    }

    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// The refusals of a server in good order.
const STATUSES: [(&str, u16); 19] = [
    ("invalid_body", 400),
    ("invalid_query", 400),
    ("unauthenticated", 401),
    ("forbidden", 403),
    ("not_found", 404),
    ("not_locked", 404),
    ("unknown_session", 404),
    ("method_not_allowed", 405),
    ("not_held", 409),
    ("lost", 409),
    ("token_reused", 409),
    ("wrong_mode", 409),
    ("session_ended", 410),
    ("too_large", 413),
    ("unsupported_media_type", 415),
    ("invalid_key", 422),
    ("invalid_ttl", 422),
    ("invalid_option", 422),
    ("too_many_streams", 429),
];
