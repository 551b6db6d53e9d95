//! The names that locks usually have: of a thing, and of something that is done.
//!
//! Different parts never make the same key: the first part is up to the next colon, so a colon in it is escaped, and a
//! thing of the kind `op` is told from an operation. The last part is written as it is, to the end.

use std::borrow::Cow;
use std::fmt;

/// The key of a thing: `resource_key("user", 123)` is `lock:user:123`.
///
/// In `kind`, `:` is written as `%3A` and `%` as `%25`, and the kind `op` as `%6Fp`, so that no two things, and no
/// thing and [operation](operation_key), have one key. The id stands as it is.
///
/// ```
/// use leasehold::{operation_key, resource_key};
/// assert_eq!(resource_key("user", 123), "lock:user:123");
/// assert_eq!(resource_key("user", "1:2"), "lock:user:1:2");
/// assert_eq!(resource_key("user:1", 2), "lock:user%3A1:2");
/// assert_ne!(resource_key("op:send-email", "a@b"), operation_key("send-email", "a@b"));
/// ```
#[must_use]
pub fn resource_key(kind: &str, id: impl fmt::Display) -> String {
    let kind = if kind == "op" { Cow::Borrowed("%6Fp") } else { escaped(kind) };
    format!("lock:{kind}:{id}")
}

/// The key of something that is done once at a time: `operation_key("send-email", "a@b")` is
/// `lock:op:send-email:a@b`. The name is escaped as the kind of a [`resource_key`] is.
///
/// ```
/// assert_eq!(leasehold::operation_key("send-email", "a@b"), "lock:op:send-email:a@b");
/// ```
#[must_use]
pub fn operation_key(name: &str, subject: impl fmt::Display) -> String {
    format!("lock:op:{}:{subject}", escaped(name))
}

/// Without colons, and so that no two parts are written alike.
fn escaped(part: &str) -> Cow<'_, str> {
    if part.contains([':', '%']) { part.replace('%', "%25").replace(':', "%3A").into() } else { part.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn different_parts_never_make_the_same_key() {
        let parts = ["", ":", "%", "op", "x", "op:x", "x:op", "x:", ":x", "%3A", "x%3A", "%6Fp", "op:", "op:x:"];
        let mut made = HashMap::new();
        for first in parts {
            for last in parts {
                for (sort, key) in [("resource", resource_key(first, last)), ("operation", operation_key(first, last))]
                {
                    if let Some(other) = made.insert(key.clone(), (sort, first, last)) {
                        panic!("{key} is {other:?} and {:?}", (sort, first, last));
                    }
                }
            }
        }
    }
}
