//! The name of a key in the store: [`KeyTemplate`].
//!
//! Other lock libraries use names such as `lock:order:42`; with the same template their locks and ours are the same.
//! A key that already has the template's ends is taken as complete, so both spellings are one lock. Answers and events
//! name it by the short spelling, without those ends.

#[cfg(any(feature = "redis", test))]
use crate::key::Key;
use crate::key::check_key;

/// Where the key goes in a template.
const HOLE: &str = "{key}";

/// The name of a lock in the store, with a hole for its key: `lock:{key}` unless it is set.
///
/// ```
/// use leasehold::store::KeyTemplate;
/// let template = KeyTemplate::new("mutex:{key}")?;
/// assert_eq!(template.fill("order:42"), "mutex:order:42");
/// assert_eq!(template.fill("mutex:order:42"), "mutex:order:42");
/// # Ok::<(), leasehold::store::TemplateError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyTemplate {
    before: Box<str>,
    after: Box<str>,
}

/// What is wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It has no `{key}`, or more than one.
    #[error("a key template has exactly one `{{key}}`")]
    Hole,
    /// It is too long, or holds a control character.
    #[error("a key template is at most 256 bytes without control characters")]
    Text,
}

impl KeyTemplate {
    const MAX_BYTES: usize = 256;

    /// Checks `text` and makes it a template.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        check_key(text, Self::MAX_BYTES).map_err(|_| TemplateError::Text)?;
        match text.split_once(HOLE) {
            Some((before, after)) if !after.contains(HOLE) => Ok(Self { before: before.into(), after: after.into() }),
            _ => Err(TemplateError::Hole),
        }
    }

    /// The key itself, as redis-py and bsm/redislock name their locks.
    #[must_use]
    pub fn bare() -> Self {
        Self { before: "".into(), after: "".into() }
    }

    /// `redlock:{key}`, as RedLock.net names them.
    #[must_use]
    pub fn redlock() -> Self {
        Self { before: "redlock:".into(), after: "".into() }
    }

    /// `mutex:{key}`, as several recipes name them.
    #[must_use]
    pub fn mutex() -> Self {
        Self { before: "mutex:".into(), after: "".into() }
    }

    /// The lock's full name.
    #[must_use]
    pub fn fill(&self, key: &str) -> String {
        let mut name = String::new();
        self.fill_into(key, &mut name);
        name
    }

    pub(crate) fn fill_into(&self, key: &str, name: &mut String) {
        // The key is a whole name already.
        if self.inner(key).is_some() {
            name.push_str(key);
        } else {
            name.extend([&*self.before, key, &*self.after]);
        }
    }

    /// Whether the lock's full name begins with this text.
    #[cfg(feature = "redis")]
    pub(crate) fn name_begins_with(&self, key: &str, text: &str) -> bool {
        if self.inner(key).is_some() {
            return key.starts_with(text);
        }
        // Mostly they differ before the key comes.
        let differs = text.bytes().zip(self.before.bytes()).any(|(one, other)| one != other);
        !differs && self.fill(key).starts_with(text)
    }

    /// What every name begins and ends with.
    #[cfg(feature = "redis")]
    pub(crate) fn ends(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }

    /// The part of `name` that stands in the hole; `None` if the template makes no such name.
    fn inner<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&*self.before)?.strip_suffix(&*self.after).filter(|key| !key.is_empty())
    }

    /// The key that a lock's name was made of: what [`fill`](Self::fill) makes that name of. `None` if no lock of this
    /// template is called so.
    ///
    /// ```
    /// use leasehold::store::KeyTemplate;
    /// let template = KeyTemplate::new("mutex:{key}")?;
    /// assert_eq!(template.key_of("mutex:order:42"), Some("order:42"));
    /// assert_eq!(template.key_of("order:42"), None);
    /// # Ok::<(), leasehold::store::TemplateError>(())
    /// ```
    #[must_use]
    pub fn key_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let key = self.inner(name)?;
        // A key that is a whole name itself was not filled in again.
        Some(if self.inner(key).is_some() { name } else { key })
    }

    /// The one spelling of a key: without what the template adds. `None` if the whole name is longer than any key may
    /// be.
    #[cfg(any(feature = "redis", test))]
    pub(crate) fn canonical(&self, key: &Key) -> Option<Key> {
        match self.key_of(key.as_str()) {
            Some(short) if short.len() < key.as_str().len() => Key::new(short).ok(),
            Some(_) => Some(key.clone()),
            None => {
                let bytes = self.before.len() + key.as_str().len() + self.after.len();
                (bytes <= Key::MAX_BYTES).then(|| key.clone())
            }
        }
    }
}

impl Default for KeyTemplate {
    fn default() -> Self {
        Self { before: "lock:".into(), after: "".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_complete_is_not_completed_again() {
        for (template, key, name, spelt) in [
            ("lock:{key}", "a", "lock:a", "a"),
            ("lock:{key}", "lock:a", "lock:a", "a"),
            ("lock:{key}", "lock:", "lock:lock:", "lock:"),
            ("lock:{key}", "lock:lock:a", "lock:lock:a", "lock:lock:a"),
            ("{key}", "a", "a", "a"),
            ("{key}:mutex", "a", "a:mutex", "a"),
            ("{key}:mutex", "a:mutex", "a:mutex", "a"),
            ("<{key}>", "<a", "<<a>", "<a"),
            ("<{key}>", "<<a>>", "<<a>>", "<<a>>"),
        ] {
            let template = KeyTemplate::new(template).unwrap();
            assert_eq!(template.fill(key), name);
            assert_eq!(template.fill(&template.fill(key)), name);
            let canonical = template.canonical(&Key::new(key).unwrap()).unwrap();
            assert_eq!(canonical.as_str(), spelt);
            assert_eq!(template.fill(spelt), name, "the same lock");
            assert_eq!(template.canonical(&canonical), Some(canonical));
            assert_eq!(template.key_of(name), Some(spelt));
        }
    }

    #[test]
    fn a_template_has_one_hole_and_no_control_characters() {
        assert_eq!(KeyTemplate::new("lock:"), Err(TemplateError::Hole));
        assert_eq!(KeyTemplate::new("{key}{key}"), Err(TemplateError::Hole));
        assert_eq!(KeyTemplate::new("a\n{key}"), Err(TemplateError::Text));
        assert_eq!(KeyTemplate::new(&format!("{}{{key}}", "x".repeat(300))), Err(TemplateError::Text));
    }
}
