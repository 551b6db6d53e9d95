//! A subscriber that keeps every span it is told of, and every event that has a name of ours.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Subscriber, set_default, set_global_default};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Span {
    id: u64,
    pub(crate) name: &'static str,
    pub(crate) parent: Option<String>,
    fields: HashMap<&'static str, String>,
    pub(crate) is_closed: bool,
}

impl Span {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Visit for Span {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps spans, in the order in which they began.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Span>>>);

impl Recorder {
    /// Listens in this thread, until the answer is dropped.
    pub(crate) fn listen(&self) -> DefaultGuard {
        set_default(Registry::default().with(self.clone()))
    }

    /// Listens in all threads from now on. Once in a process.
    pub(crate) fn everywhere<T>(&self, work: impl FnOnce() -> T) -> (T, Told) {
        set_global_default(Registry::default().with(self.clone())).unwrap();
        let answer = work();
        (answer, self.told())
    }

    pub(crate) fn told(&self) -> Told {
        Told(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn with(&self, id: &Id, change: impl FnOnce(&mut Span)) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids are used again: the last is meant.
        if let Some(span) = spans.iter_mut().rev().find(|span| span.id == id.into_u64()) {
            change(span);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent()).map(|parent| parent.name().to_owned());
        let name = attributes.metadata().name();
        let mut span = Span { id: id.into_u64(), name, parent, fields: HashMap::new(), is_closed: false };
        attributes.record(&mut span);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id, |span| values.record(span));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let name = event.metadata().name();
        if name.starts_with("leasehold.") {
            let parent = context.event_span(event).map(|parent| parent.name().to_owned());
            // No span has this id.
            let mut span = Span { id: 0, name, parent, fields: HashMap::new(), is_closed: true };
            event.record(&mut span);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.with(&id, |span| span.is_closed = true);
    }
}

/// What was told.
pub(crate) struct Told(Vec<Span>);

impl Told {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|span| span.name).collect()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }

    pub(crate) fn with(&self, name: &str, (field, value): (&str, &str)) -> Vec<&Span> {
        self.all(name).into_iter().filter(|span| span.field(field) == Some(value)).collect()
    }

    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> &Span {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all[0]
    }

    /// All of it, as it would be written somewhere.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}
