//! The events of one manager, for all who listen over HTTP: each is written once for all who may see the same of it.
//!
//! One thread takes them from the manager, writes them down for each set of keys that somebody may and wants to hear of,
//! and hands the text out in pieces, a few milliseconds' worth at a time. All listeners together are sent a bounded
//! number of bytes a second, and each keeps a bounded number of pieces: whatever is too much for them, or comes too
//! fast for one who does not read, is left out and counted. So a listener never slows a lock down.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::written::EventText;
use crate::http::auth::Caller;
use crate::{CountedListener, Event, Events, Heard, LockManager};

/// How long what happens is gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(5);
/// The shortest time between two pieces for a listener that is alone: each piece costs a call of the system.
const SEND_EVERY: Duration = Duration::from_millis(20);
/// That time grows by this much with each other listener, up to so many of them.
const SEND_LATER: Duration = Duration::from_micros(500);
const MOST_LATER: u32 = 100;
/// Of all listeners together, per second.
const BYTES_PER_SECOND: usize = 32 << 20;
/// How many bytes a new listener may be sent at once.
const FIRST_BYTES: usize = BYTES_PER_SECOND / 64;
/// How many bytes a listener may be sent at a time, however many listeners there are.
const LEAST_BYTES: usize = 4 << 10;
/// How many pieces are kept for a listener that does not read.
const PIECES: usize = 16;

/// The feed of one manager.
#[derive(Default)]
pub(in crate::http) struct Feed(Arc<Mutex<FeedState>>);

#[derive(Default)]
struct FeedState {
    groups: Vec<Group>,
    /// Ends the thread. It is `Some` as long as there is a listener: `listen` sets it, and the drop of the last listener
    /// takes it, as the thread does when nothing more can happen. Left `None` with a listener, a second thread would begin.
    running: Option<CancellationToken>,
    next_id: u64,
}

/// The listeners that get the same events.
struct Group {
    filter: Filter,
    /// The number of the last event. It is the manager's own for listeners that may see every key. Others get numbers of
    /// their group: gaps in the manager's would show how much happens to keys that are not theirs.
    sequence: u64,
    /// What the next piece will be.
    text: String,
    /// How many events are in `text`.
    written: u64,
    /// How many events since the last piece are not in `text`: they were too many.
    left_out: u64,
    /// How many bytes may be sent now. `earn` raises it after each piece; an event that comes when `text` is longer is
    /// left out.
    allowance: usize,
    /// How many events may be sent now, by the listener's `max_rate`.
    events_left: f64,
    sent_at: Instant,
    listeners: Vec<Listener>,
}

/// Which events a listener gets.
#[derive(PartialEq, Eq, Clone)]
pub(in crate::http) struct Filter {
    /// Of keys that begin with one of these.
    prefixes: Vec<String>,
    /// The prefixes of what the listener may see of other keys that an event names.
    visible: Vec<String>,
    /// How many a second are enough.
    max_rate: Option<NonZeroU32>,
}

struct Listener {
    id: u64,
    pieces: mpsc::Sender<Bytes>,
    missed: u64,
}

/// The receiving end of a listener.
pub(in crate::http) struct Listening {
    state: Arc<Mutex<FeedState>>,
    id: u64,
    pieces: mpsc::Receiver<Bytes>,
    _counted: CountedListener,
}

impl Filter {
    pub(in crate::http) fn new(
        caller: &Caller,
        locks: &LockManager,
        prefix: &str,
        max_rate: Option<NonZeroU32>,
    ) -> Self {
        Self { prefixes: caller.prefixes(locks, prefix), visible: caller.prefixes(locks, ""), max_rate }
    }

    fn rate(&self) -> f64 {
        self.max_rate.map_or(f64::INFINITY, |rate| f64::from(rate.get()))
    }

    fn send_every(&self, listeners: usize) -> Duration {
        let others = u32::try_from(listeners).unwrap_or(MOST_LATER).min(MOST_LATER);
        (SEND_EVERY + SEND_LATER * others).max(Duration::from_secs_f64(1.0 / self.rate()))
    }

    fn is_for(&self, event: &Event) -> bool {
        begins_with_any(event.key.as_str(), &self.prefixes)
    }

    fn may_see(&self, key: &str) -> bool {
        begins_with_any(key, &self.visible)
    }

    fn sees_everything(&self) -> bool {
        self.visible.iter().any(String::is_empty)
    }
}

fn begins_with_any(key: &str, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
}

impl Feed {
    /// Listens from now on, or a few milliseconds ago. `counted` is the listener's place among those that are bounded.
    ///
    /// # Errors
    /// Those of the system, which has no thread to give.
    pub(in crate::http) fn listen(
        &self,
        locks: &LockManager,
        filter: Filter,
        counted: CountedListener,
    ) -> Result<Listening, std::io::Error> {
        let mut state = self.0.lock();
        if state.running.is_none() {
            let stop = CancellationToken::new();
            let thread =
                FeedThread { state: Arc::clone(&self.0), events: locks.events_to_pass_on(), stop: stop.clone() };
            std::thread::Builder::new().name("leasehold-events".into()).spawn(move || thread.run())?;
            state.running = Some(stop);
        }
        let (sender, pieces) = mpsc::channel(PIECES);
        let id = state.next_id;
        state.next_id += 1;
        let listener = Listener { id, pieces: sender, missed: 0 };
        match state.groups.iter_mut().find(|group| group.filter == filter) {
            Some(group) => group.listeners.push(listener),
            None => state.groups.push(Group::new(filter, listener)),
        }
        Ok(Listening { state: Arc::clone(&self.0), id, pieces, _counted: counted })
    }
}

impl Listening {
    /// The next piece; `None` when nothing more will happen.
    pub(in crate::http) async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        for group in &mut state.groups {
            group.listeners.retain(|listener| listener.id != self.id);
        }
        state.groups.retain(|group| !group.listeners.is_empty());
        if state.groups.is_empty()
            && let Some(stop) = state.running.take()
        {
            stop.cancel();
        }
    }
}

/// Writes down what happens, on a thread of its own, until nobody listens or nothing more can happen.
struct FeedThread {
    state: Arc<Mutex<FeedState>>,
    events: Events,
    stop: CancellationToken,
}

impl FeedThread {
    fn run(mut self) {
        // It only waits, for what needs no driver.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        while let Some(first) = self.wait(&runtime) {
            let mut next = Some(first);
            loop {
                std::thread::sleep(GATHER);
                let mut state = self.state.lock();
                while let Some(next_event) = next.take().or_else(|| self.events.try_next()) {
                    state.write(&next_event);
                }
                if state.send(Instant::now()) == Left::Nothing {
                    break;
                }
            }
        }
    }

    /// The next event.
    fn wait(&mut self, runtime: &tokio::runtime::Runtime) -> Option<Heard> {
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                next_event = self.events.next() => next_event,
            }
        })
    }
}

impl Drop for FeedThread {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            // Nothing more happens: every stream ends.
            let mut state = self.state.lock();
            state.groups.clear();
            state.running = None;
        }
    }
}

impl FeedState {
    fn write(&mut self, next_event: &Heard) {
        match next_event {
            Heard::Event(event) => {
                let mut text_of_event = None;
                for group in self.groups.iter_mut().filter(|group| group.filter.is_for(event)) {
                    group.write(event, &mut text_of_event);
                }
            }
            Heard::Lagged(missed) => {
                // How many of them were of others is not for everybody to know: to those it is one at least.
                let of = |group: &Group| if group.filter.sees_everything() { *missed } else { 1 };
                self.groups.iter_mut().for_each(|group| group.left_out += of(group));
            }
        }
    }

    fn send(&mut self, now: Instant) -> Left {
        let listeners: usize = self.groups.iter().map(|group| group.listeners.len()).sum();
        let each = BYTES_PER_SECOND / listeners.max(1);
        let mut left = Left::Nothing;
        for group in &mut self.groups {
            if group.is_done() {
                continue;
            }
            if now.duration_since(group.sent_at) >= group.filter.send_every(listeners) {
                group.send();
                group.earn(now, each);
            } else {
                left = Left::ForLater;
            }
        }
        left
    }
}

/// Whether something is still to be sent.
#[derive(PartialEq, Eq)]
enum Left {
    Nothing,
    ForLater,
}

impl Group {
    fn new(filter: Filter, first: Listener) -> Self {
        let now = Instant::now();
        Self {
            sequence: 0,
            text: String::new(),
            written: 0,
            left_out: 0,
            // As if it had been silent for long.
            allowance: FIRST_BYTES,
            events_left: filter.rate(),
            sent_at: now.checked_sub(filter.send_every(usize::MAX)).unwrap_or(now),
            filter,
            listeners: vec![first],
        }
    }

    fn is_done(&self) -> bool {
        self.text.is_empty() && self.left_out == 0
    }

    /// What may be sent grows with time, up to what a second allows.
    fn earn(&mut self, now: Instant, each: usize) {
        let since = now.duration_since(self.sent_at).as_secs_f64().min(1.0);
        let (earned, most) = ((each as f64 * since) as usize, each.max(LEAST_BYTES));
        self.allowance = self.allowance.saturating_add(earned.max(LEAST_BYTES)).min(most);
        self.events_left = (self.events_left + self.filter.rate() * since).min(self.filter.rate());
        self.sent_at = now;
    }

    /// Adds an event to the text. `text_of_event` is the event as JSON, but for its sequence, as the first group had it written.
    fn write(&mut self, event: &Event, text_of_event: &mut Option<EventText>) {
        self.sequence = if self.filter.sees_everything() { event.sequence } else { self.sequence + 1 };
        if self.text.len() > self.allowance || self.events_left < 1.0 {
            self.left_out += 1;
            return;
        }
        self.events_left -= 1.0;
        let may_see = |key: &str| self.filter.may_see(key);
        let own;
        let text_of_event = if EventText::differs_by_listener(event) {
            own = EventText::of(event, may_see);
            &own
        } else {
            text_of_event.get_or_insert_with(|| EventText::of(event, may_see))
        };
        let EventText { kind, rest } = text_of_event;
        let number = self.sequence;
        let _ = write!(self.text, "event: {kind}\nid: {number}\ndata: {{\"sequence\":{number},{rest}\n\n");
        self.written += 1;
    }

    fn send(&mut self) {
        let left_out = std::mem::take(&mut self.left_out);
        self.allowance = self.allowance.saturating_sub(self.text.len());
        let written = std::mem::take(&mut self.written);
        if left_out > 0 {
            write_missed(&mut self.text, left_out);
        }
        let piece = Bytes::from(std::mem::take(&mut self.text));
        for listener in &mut self.listeners {
            listener.send(&piece, written + left_out);
        }
    }
}

impl Listener {
    fn send(&mut self, piece: &Bytes, events: u64) {
        let missed = std::mem::take(&mut self.missed);
        // Room for two: the number of missed events goes before what comes after them.
        if self.pieces.capacity() < 2 {
            self.missed = missed + events;
            return;
        }
        if missed > 0 {
            let mut text = String::new();
            write_missed(&mut text, missed);
            let _ = self.pieces.try_send(text.into());
        }
        let _ = self.pieces.try_send(piece.clone());
    }
}

fn write_missed(text: &mut String, missed: u64) {
    let _ = write!(text, "event: missed\ndata: {{\"kind\":\"missed\",\"missed\":{missed}}}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(locks: &LockManager, prefix: &str, max_rate: Option<u32>) -> Listening {
        let filter = Filter::new(&Caller::anybody(), locks, prefix, max_rate.and_then(NonZeroU32::new));
        locks.attached::<Feed>().listen(locks, filter, locks.count_listener()).unwrap()
    }

    /// All that comes until `enough` says so.
    async fn hear(listening: &mut Listening, enough: impl Fn(&str) -> bool) -> (String, Vec<Bytes>) {
        let (mut text, mut pieces) = (String::new(), Vec::new());
        while !enough(&text) {
            let piece = listening.next().await.unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
            pieces.push(piece);
        }
        (text, pieces)
    }

    #[tokio::test]
    async fn an_event_is_written_once_for_all_who_hear_the_same() {
        let locks = LockManager::builder().build().unwrap();
        let mut all: Vec<Listening> = (0..64).map(|_| listen(&locks, "", None)).collect();
        let mut other = listen(&locks, "b", None);
        assert_eq!(locks.listeners(), 65);
        drop(locks.try_lock_now("a").unwrap());
        drop(locks.try_lock_now("b").unwrap());
        let (mut seen, mut places) = (Vec::new(), Vec::new());
        for listening in &mut all {
            let (text, pieces) = hear(listening, |text| text.matches("event: released").count() == 2).await;
            seen.push(text);
            places.push(pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>());
        }
        assert!(seen.iter().all(|text| *text == seen[0]) && places.iter().all(|place| *place == places[0]));
        let (text, _) = hear(&mut other, |text| text.contains("released")).await;
        assert!(!text.contains("\"a\""));
        drop((all, other));
        assert_eq!(locks.listeners(), 0);
    }

    #[tokio::test]
    async fn who_wants_few_events_gets_few_and_hears_how_many_there_were() {
        let locks = LockManager::builder().event_buffer(10_000).build().unwrap();
        let mut few = listen(&locks, "", Some(5));
        for _ in 0..500 {
            drop(locks.try_lock_now("k").unwrap());
        }
        let count = |text: &str| {
            let missed = text.split("\"missed\":").skip(1).map(|rest| rest.split('}').next().unwrap());
            (text.matches("event: ").count(), missed.map(|n| n.parse::<usize>().unwrap()).sum::<usize>())
        };
        let all = |text: &str| {
            let (frames, missed) = count(text);
            missed + frames - text.matches("event: missed").count() >= 1000
        };
        let (text, _) = hear(&mut few, all).await;
        assert!(count(&text).0 < 100, "{}", count(&text).0);
    }

    #[test]
    fn all_listeners_together_are_sent_a_bounded_number_of_bytes() {
        let locks = LockManager::builder().build().unwrap();
        let mut state = FeedState::default();
        let filter = Filter::new(&Caller::anybody(), &locks, "", None);
        let mut receivers = Vec::new();
        for id in 0..64 {
            let (pieces, receiver) = mpsc::channel(PIECES);
            receivers.push(receiver);
            let listener = Listener { id, pieces, missed: 0 };
            match state.groups.first_mut() {
                Some(group) => group.listeners.push(listener),
                None => state.groups.push(Group::new(filter.clone(), listener)),
            }
        }
        let event = {
            let mut events = locks.events();
            drop(locks.try_lock_now("k".repeat(200)).unwrap());
            let Some(Heard::Event(event)) = events.try_next() else { panic!("nothing happened") };
            event
        };
        // Two seconds of it.
        let (began, mut sent) = (Instant::now(), 0);
        for step in 0..100 {
            (0..4_000).for_each(|_| state.write(&Heard::Event(event.clone())));
            let _ = state.send(began + SEND_EVERY * step);
            for receiver in &mut receivers {
                while let Ok(piece) = receiver.try_recv() {
                    sent += piece.len();
                }
            }
        }
        assert!((BYTES_PER_SECOND..4 * BYTES_PER_SECOND).contains(&sent), "{sent}");
    }
}
