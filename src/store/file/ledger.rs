//! Who holds what (D1): [`Ledger`]. It decides, keeps what has changed for the next commit, and knows no clock, no file
//! and nobody who waits.
//!
//! | a row | is | becomes |
//! |---|---|---|
//! | gathered | changed since the last batch was taken | committing, when the writer takes the batch |
//! | committing | in the batch that is being written | as in the file; or gathered again, if the commit fails |
//! | as in the file | in neither | gathered, with its next change |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::row::{Row, RowKey, Rows};
use crate::key::{Key, Token};
use crate::mode::{Kind, Mode};
use crate::store::Denial;

/// One holder of a key.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) token: Token,
    pub(super) row: Row,
    /// The calls that wait for the commit of this grant, to answer it.
    calls: u32,
    hearing: Hearing,
    /// The batch that it was granted in; 0 if the file may know a row of this name from before.
    batch: u64,
}

/// Whether somebody knows of a grant (D4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hearing {
    /// It was answered.
    Heard,
    /// When the last call that waits is given up, it is taken back.
    Unheard,
}

/// What keeps a try from being granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) why: Denial,
    /// When the key comes free, or room on it, unless that is moved.
    pub(super) until_ms: u64,
}

/// Where a row, or all that there is of a key, stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Saved {
    InFile,
    Committing,
    Gathered,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<Key, Vec<Hold>>,
    ends: BTreeSet<(u64, RowKey)>,
    gathered: Rows,
    committing: Option<Arc<Rows>>,
    /// The number of the batch that is gathered.
    batch: u64,
    last_fence: u64,
}

impl Ledger {
    /// What the file says. Rows that ended before `now_ms` are dropped by the first commit.
    pub(super) fn load(rows: impl IntoIterator<Item = (RowKey, Row)>, last_fence: u64, now_ms: u64) -> Self {
        let mut this = Self { batch: 1, last_fence, ..Self::default() };
        for (name, row) in rows {
            this.last_fence = this.last_fence.max(row.fence);
            if row.end_ms <= now_ms {
                this.gathered.insert(name, None);
                continue;
            }
            let end_ms = row.end_ms;
            let hold = Hold { token: name.token(), row, calls: 0, hearing: Hearing::Heard, batch: 0 };
            this.keys.entry(name.key.clone()).or_default().push(hold);
            this.ends.insert((end_ms, name));
        }
        this
    }

    pub(super) fn last_fence(&self) -> u64 {
        self.last_fence
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Those who hold a key now, whoever was granted first.
    pub(super) fn holds(&self, key: &Key, now_ms: u64) -> impl Iterator<Item = &Hold> {
        let holds = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        holds.iter().filter(move |hold| hold.row.end_ms > now_ms)
    }

    pub(super) fn find(&self, key: &Key, token: Token, now_ms: u64) -> Option<&Row> {
        self.holds(key, now_ms).find(|hold| hold.token == token).map(|hold| &hold.row)
    }

    /// Why nobody with this token and mode is granted now; `None` if nothing is in the way.
    pub(super) fn obstacle(&self, key: &Key, mode: Mode, now_ms: u64) -> Option<Obstacle> {
        let (mut first_end, mut last_end, mut taken, mut kind) = (u64::MAX, 0, 0_u64, None);
        let mut is_alone = false;
        for hold in self.holds(key, now_ms) {
            let (mode, end_ms) = (hold.row.mode, hold.row.end_ms);
            (first_end, last_end) = (first_end.min(end_ms), last_end.max(end_ms));
            taken += u64::from(mode.weight());
            is_alone |= mode == Mode::Exclusive;
            kind = Some(mode.kind());
        }
        let kind: Kind = kind?;
        let denied = |why, until_ms| Some(Obstacle { why, until_ms });
        match mode {
            Mode::Exclusive => denied(Denial::Held, last_end),
            _ if is_alone => denied(Denial::Held, last_end),
            mode if kind != mode.kind() => denied(Denial::OtherMode, last_end),
            mode if kind.has_room(taken, mode) => None,
            _ => denied(Denial::Held, first_end),
        }
    }

    /// Grants what nothing is in the way of. The first to call it for a grant is counted among those who wait for it, if
    /// `calls` says so.
    pub(super) fn grant(&mut self, key: &Key, token: Token, row: Row, calls: u32) {
        let name = RowKey::new(key, token);
        let hearing = if calls == 0 { Hearing::Heard } else { Hearing::Unheard };
        let batch = if self.gathered.contains_key(&name) { 0 } else { self.batch };
        self.last_fence = self.last_fence.max(row.fence);
        let holds = self.keys.entry(key.clone()).or_default();
        holds.push(Hold { token, row: row.clone(), calls, hearing, batch });
        self.ends.insert((row.end_ms, name.clone()));
        self.gathered.insert(name, Some(row));
    }

    /// A call asks for what the token holds already. If nobody has heard of that, it waits for the same commit; answers
    /// whether it does.
    pub(super) fn join_unheard(&mut self, key: &Key, token: Token) -> bool {
        let unheard = self.hold(key, token).filter(|hold| hold.hearing == Hearing::Unheard);
        unheard.map(|hold| hold.calls += 1).is_some()
    }

    /// The grant is answered. [`None`] if it has ended meanwhile.
    pub(super) fn hear(&mut self, key: &Key, token: Token, fence: u64) -> Option<()> {
        let hold = self.hold(key, token).filter(|hold| hold.row.fence == fence)?;
        hold.calls = hold.calls.saturating_sub(1);
        hold.hearing = Hearing::Heard;
        Some(())
    }

    /// A call that waited for a grant is given up: the last one takes it back. Answers whether it did.
    pub(super) fn give_up(&mut self, key: &Key, token: Token, fence: u64) -> Option<()> {
        let hold = self.hold(key, token).filter(|hold| hold.row.fence == fence)?;
        hold.calls = hold.calls.saturating_sub(1);
        let is_over = hold.calls == 0 && hold.hearing == Hearing::Unheard;
        is_over.then(|| self.remove(key, |hold| hold.token == token)).map(drop)
    }

    /// Moves an end to a later time.
    pub(super) fn lengthen(&mut self, key: &Key, token: Token, end_ms: u64) {
        self.change(key, token, |row| row.end_ms = end_ms);
    }

    pub(super) fn share(&mut self, key: &Key, token: Token) {
        self.change(key, token, |row| row.mode = Mode::Shared);
    }

    fn change(&mut self, key: &Key, token: Token, change: impl FnOnce(&mut Row)) {
        let Some(hold) = self.hold(key, token) else { return };
        let before = hold.row.end_ms;
        change(&mut hold.row);
        let (name, row) = (RowKey::new(key, token), hold.row.clone());
        if before != row.end_ms {
            self.ends.remove(&(before, name.clone()));
            self.ends.insert((row.end_ms, name.clone()));
        }
        self.gathered.insert(name, Some(row));
    }

    fn hold(&mut self, key: &Key, token: Token) -> Option<&mut Hold> {
        self.keys.get_mut(key)?.iter_mut().find(|hold| hold.token == token)
    }

    /// Ends those holders of a key that `whom` picks; answers how many.
    pub(super) fn remove(&mut self, key: &Key, mut whom: impl FnMut(&Hold) -> bool) -> usize {
        let Self { keys, ends, gathered, batch, .. } = self;
        let Some(holds) = keys.get_mut(key) else { return 0 };
        let before = holds.len();
        holds.retain(|hold| {
            let stays = !whom(hold);
            if !stays {
                let name = RowKey::new(key, hold.token);
                ends.remove(&(hold.row.end_ms, name.clone()));
                if hold.batch == *batch {
                    // Granted and ended between two commits: the file never hears of it.
                    gathered.remove(&name);
                } else {
                    gathered.insert(name, None);
                }
            }
            stays
        });
        let ended = before - holds.len();
        if holds.is_empty() {
            keys.remove(key);
        }
        ended
    }

    /// Ends the holders of a key whose time is over.
    pub(super) fn end_late(&mut self, key: &Key, now_ms: u64) -> usize {
        self.remove(key, |hold| hold.row.end_ms <= now_ms)
    }

    /// Ends the holders, of any key, whose time is over, so many at most; answers the keys.
    pub(super) fn sweep(&mut self, now_ms: u64, at_most: usize) -> Vec<Key> {
        let over = self.ends.iter().take_while(|(end_ms, _)| *end_ms <= now_ms).take(at_most);
        let keys: Vec<Key> = over.map(|(_, name)| name.key.clone()).collect();
        keys.into_iter().filter(|key| self.end_late(key, now_ms) > 0).collect()
    }

    pub(super) fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end_ms, _)| *end_ms)
    }

    /// Keys from `after` on, or from the one that is `from` or the next, in their order.
    pub(super) fn from(&self, from: Bound<&Key>) -> impl Iterator<Item = (&Key, &[Hold])> {
        self.keys.range((from, Bound::Unbounded)).map(|(key, holds)| (key, holds.as_slice()))
    }

    /// Where the row of this holder stands.
    pub(super) fn row_saved(&self, key: &Key, token: Token) -> Saved {
        let name = RowKey::new(key, token);
        self.saved(|rows| rows.contains_key(&name))
    }

    /// Where the latest change of any holder of a key stands, those that have ended included.
    pub(super) fn key_saved(&self, key: &Key) -> Saved {
        let first = RowKey::first_of(key);
        self.saved(|rows| rows.range(&first..).next().is_some_and(|(name, _)| name.key == *key))
    }

    fn saved(&self, is_in: impl Fn(&Rows) -> bool) -> Saved {
        match &self.committing {
            _ if is_in(&self.gathered) => Saved::Gathered,
            Some(committing) if is_in(committing) => Saved::Committing,
            _ => Saved::InFile,
        }
    }

    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// The batch for the next commit.
    pub(super) fn take(&mut self) -> Arc<Rows> {
        let rows = Arc::new(std::mem::take(&mut self.gathered));
        self.committing = Some(Arc::clone(&rows));
        self.batch += 1;
        rows
    }

    /// The batch that was taken is in the file.
    pub(super) fn committed(&mut self) {
        self.committing = None;
    }

    /// The batch may be in the file, or some of it: what has not changed since is gathered again.
    pub(super) fn failed(&mut self) {
        for (name, row) in self.committing.take().iter().flat_map(|rows| rows.iter()) {
            self.gathered.entry(name.clone()).or_insert_with(|| row.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn row(mode: Mode, fence: u64, end_ms: u64) -> Row {
        Row { mode, fence, end_ms, note: None }
    }

    fn ledger() -> Ledger {
        Ledger::load([], 0, 0)
    }

    fn grant(ledger: &mut Ledger, key: &Key, mode: Mode, end_ms: u64) -> Token {
        let (token, fence) = (Token::random(), ledger.last_fence() + 1);
        assert_eq!(ledger.obstacle(key, mode, 0), None);
        ledger.grant(key, token, row(mode, fence, end_ms), 1);
        token
    }

    fn denied(ledger: &Ledger, key: &Key, mode: Mode, now_ms: u64) -> Option<(Denial, u64)> {
        ledger.obstacle(key, mode, now_ms).map(|Obstacle { why, until_ms }| (why, until_ms))
    }

    #[test]
    fn who_is_denied_is_told_when_the_key_or_room_on_it_comes_free() {
        let (mut ledger, [alone, shared, counted]) = (ledger(), ["alone", "shared", "counted"].map(key));
        let permits = |permits| Mode::Permits { limit: 3, permits };
        grant(&mut ledger, &alone, Mode::Exclusive, 50);
        for end_ms in [70, 40] {
            grant(&mut ledger, &shared, Mode::Shared, end_ms);
            grant(&mut ledger, &counted, permits(1), end_ms);
        }
        for mode in [Mode::Exclusive, Mode::Shared, permits(1)] {
            assert_eq!(denied(&ledger, &alone, mode, 0), Some((Denial::Held, 50)));
            assert_eq!(denied(&ledger, &alone, mode, 50), None, "its time is over");
        }
        assert_eq!(denied(&ledger, &shared, Mode::Exclusive, 0), Some((Denial::Held, 70)), "all have to end");
        assert_eq!(denied(&ledger, &shared, permits(1), 0), Some((Denial::OtherMode, 70)));
        assert_eq!(denied(&ledger, &counted, permits(2), 0), Some((Denial::Held, 40)), "one has to end");
        assert_eq!(denied(&ledger, &counted, permits(2), 40), None);
        assert_eq!(denied(&ledger, &counted, Mode::Shared, 0), Some((Denial::OtherMode, 70)));
        let other = Mode::Permits { limit: 4, permits: 1 };
        assert_eq!(denied(&ledger, &counted, other, 0), Some((Denial::OtherMode, 70)));
    }

    #[test]
    fn a_row_is_gathered_then_committing_then_in_the_file() {
        let (mut ledger, k) = (ledger(), key("k"));
        let token = grant(&mut ledger, &k, Mode::Exclusive, 50);
        assert_eq!((ledger.row_saved(&k, token), ledger.key_saved(&k)), (Saved::Gathered, Saved::Gathered));
        assert_eq!(ledger.key_saved(&key("j")), Saved::InFile);
        assert_eq!(ledger.take().len(), 1);
        assert_eq!(ledger.key_saved(&k), Saved::Committing);
        ledger.lengthen(&k, token, 60);
        assert_eq!(ledger.key_saved(&k), Saved::Gathered, "its last change counts");
        ledger.committed();
        assert_eq!(*ledger.take(), Rows::from([(RowKey::new(&k, token), Some(row(Mode::Exclusive, 1, 60)))]));
        ledger.committed();
        assert_eq!(ledger.key_saved(&k), Saved::InFile);
        assert_eq!(ledger.remove(&k, |_| true), 1);
        assert_eq!(ledger.key_saved(&k), Saved::Gathered, "that it has ended is a change");
    }

    /// D3: what changed while the commit failed is later than what was in it.
    #[test]
    fn what_a_failed_commit_had_is_gathered_again_and_later_changes_count() {
        let (mut ledger, [a, b, c]) = (ledger(), ["a", "b", "c"].map(key));
        let tokens = [&a, &b].map(|key| grant(&mut ledger, key, Mode::Exclusive, 50));
        let _ = ledger.take();
        ledger.remove(&a, |_| true);
        let third = grant(&mut ledger, &c, Mode::Exclusive, 50);
        ledger.failed();
        let expected = Rows::from([
            (RowKey::new(&a, tokens[0]), None),
            (RowKey::new(&b, tokens[1]), Some(row(Mode::Exclusive, 2, 50))),
            (RowKey::new(&c, third), Some(row(Mode::Exclusive, 3, 50))),
        ]);
        assert_eq!(*ledger.take(), expected);
    }

    #[test]
    fn what_begins_and_ends_between_two_commits_is_not_written() {
        let (mut ledger, k) = (ledger(), key("k"));
        let token = grant(&mut ledger, &k, Mode::Exclusive, 50);
        ledger.remove(&k, |_| true);
        assert!(!ledger.has_gathered());
        // Unless the file knows that token from before: then its row has to go.
        ledger.grant(&k, token, row(Mode::Exclusive, 2, 50), 1);
        let _ = ledger.take();
        ledger.committed();
        ledger.remove(&k, |_| true);
        ledger.grant(&k, token, row(Mode::Exclusive, 3, 50), 1);
        ledger.remove(&k, |_| true);
        assert_eq!(*ledger.take(), Rows::from([(RowKey::new(&k, token), None)]));
    }

    /// D4: it belongs to whoever still waits for it, and to whoever has heard of it.
    #[test]
    fn a_grant_is_taken_back_when_nobody_has_heard_of_it_and_the_last_who_waits_gives_up() {
        let (mut ledger, [j, k]) = (ledger(), ["j", "k"].map(key));
        let unheard = grant(&mut ledger, &j, Mode::Exclusive, 50);
        let heard = grant(&mut ledger, &k, Mode::Exclusive, 50);
        for (key, token) in [(&j, unheard), (&k, heard)] {
            assert!(ledger.join_unheard(key, token));
        }
        assert_eq!(ledger.give_up(&j, unheard, 1), None, "another call waits");
        assert_eq!(ledger.give_up(&j, unheard, 9), None, "that was another grant");
        assert_eq!(ledger.give_up(&j, unheard, 1), Some(()));
        assert_eq!(ledger.find(&j, unheard, 0), None);
        assert_eq!(ledger.hear(&k, heard, 2), Some(()));
        assert!(!ledger.join_unheard(&k, heard), "it need not wait");
        assert_eq!(ledger.give_up(&k, heard, 2), None, "one call was answered");
        assert!(ledger.find(&k, heard, 0).is_some());
        assert_eq!(ledger.hear(&j, unheard, 1), None, "it has ended");
    }

    #[test]
    fn rows_that_have_ended_are_not_loaded_and_go_with_the_first_commit() {
        let (k, [old, now]) = (key("k"), [(); 2].map(|()| Token::random()));
        let rows = [(old, row(Mode::Shared, 7, 10)), (now, row(Mode::Shared, 9, 30))];
        let mut ledger = Ledger::load(rows.clone().map(|(token, row)| (RowKey::new(&k, token), row)), 5, 10);
        assert_eq!(ledger.last_fence(), 9, "no fence of a row is above the last");
        assert_eq!((ledger.find(&k, old, 10), ledger.find(&k, now, 10)), (None, Some(&rows[1].1)));
        assert_eq!(*ledger.take(), Rows::from([(RowKey::new(&k, old), None)]));
        assert_eq!(ledger.next_end(), Some(30));
        assert_eq!(ledger.sweep(29, 10), Vec::<Key>::new());
        assert_eq!(ledger.sweep(30, 10), [k]);
        assert_eq!((ledger.len(), ledger.next_end()), (0, None));
    }

    #[test]
    fn a_sweep_is_short_however_much_has_ended() {
        let mut ledger = ledger();
        for n in 0..100 {
            grant(&mut ledger, &key(&format!("k{n}")), Mode::Exclusive, 10);
        }
        assert_eq!(ledger.sweep(10, 30).len(), 30);
        assert_eq!(ledger.len(), 70);
        let share = key("shared");
        for _ in 0..5 {
            grant(&mut ledger, &share, Mode::Shared, 5);
        }
        assert_eq!(ledger.sweep(5, 30), [share], "told once");
    }
}
