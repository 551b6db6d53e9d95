//! For how long a store, and each of its servers, has been as it is: [`Steadiness`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::{Health, StoreError};

/// What was answered the last time, and since when it has been that.
#[derive(Debug, Default)]
pub(super) struct Steadiness {
    store: Option<(State, Instant)>,
    /// Of the servers in the last answer, and no others.
    nodes: HashMap<Arc<str>, (State, Instant)>,
}

/// What an answer says of whoever gave it. Another cause or time is no other state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answers,
    Quarantined,
    Away,
}

impl State {
    fn of(answer: &Result<Duration, StoreError>) -> Self {
        match answer {
            Ok(_) => Self::Answers,
            Err(StoreError::Quarantined { .. }) => Self::Quarantined,
            Err(_) => Self::Away,
        }
    }
}

impl Steadiness {
    /// Writes into a report for how long it has been so.
    pub(super) fn note(&mut self, health: &mut Health, now: Instant) {
        let since = |last: Option<(State, Instant)>, state| match last {
            Some((before, since)) if before == state => (state, since),
            _ => (state, now),
        };
        let store = since(self.store, State::of(&health.answer));
        self.store = Some(store);
        health.unchanged_for = Some(now.saturating_duration_since(store.1));
        let before = std::mem::take(&mut self.nodes);
        for node in &mut health.nodes {
            let state = since(before.get(&node.name).copied(), State::of(&node.answer));
            node.unchanged_for = Some(now.saturating_duration_since(state.1));
            self.nodes.insert(Arc::clone(&node.name), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NodeHealth, Votes};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_counts_from_the_first_answer_of_its_kind() {
        let begun = Instant::now();
        let mut steadiness = Steadiness::default();
        let mut seen = |second: u32,
                        answer: Result<Duration, StoreError>,
                        nodes: &[(&str, Result<Duration, StoreError>)]| {
            let nodes =
                nodes.iter().map(|(name, answer)| NodeHealth::new((*name).into(), answer.clone(), Votes::default()));
            let mut health = Health::new(answer, Vec::new()).with_nodes(nodes.collect());
            steadiness.note(&mut health, begun + SECOND * second);
            let nodes: Vec<_> = health.nodes.iter().map(|node| node.unchanged_for.unwrap().as_secs()).collect();
            (health.unchanged_for.unwrap().as_secs(), nodes)
        };
        let (fast, slow) = (Ok(SECOND / 1000), Ok(SECOND / 10));
        let quiet = |left| Err(StoreError::Quarantined { left: SECOND * left });
        assert_eq!(seen(0, fast.clone(), &[("a", fast.clone()), ("b", quiet(9))]), (0, vec![0, 0]));
        assert_eq!(seen(3, slow.clone(), &[("b", quiet(6)), ("a", Err(StoreError::Timeout))]), (3, vec![3, 0]));
        assert_eq!(seen(9, Err(StoreError::Timeout), &[("a", Err(StoreError::Loading)), ("b", fast)]), (0, vec![6, 0]));
        assert_eq!(seen(10, Err(StoreError::Loading), &[("a", slow.clone())]), (1, vec![0]));
        assert_eq!(seen(12, slow.clone(), &[("b", slow)]), (0, vec![0]), "one that was left out begins anew");
    }
}
