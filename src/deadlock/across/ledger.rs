//! What a process remembers from post to post: since when it is known what it tells, and what others wait for.

use std::collections::{HashMap, HashSet};

use super::post::{self, Post};
use super::{Hold, Lacks, Reach, Since, Told, Wait};
use crate::key::Key;
use crate::store::Board;

/// So many keys that others wait for are looked up at most.
const MOST_WANTED: usize = 4096;

/// One process's side of the board.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The highest number received.
    seen: u64,
    since: HashMap<Thing, Since>,
    /// What the last post tells.
    told: HashSet<Thing>,
    /// The holds that there were to be told, whether or not they fitted.
    offered: HashSet<u64>,
    /// The keys that other processes wait for.
    wanted: HashSet<Key>,
}

/// What a post tells the existence of; unique in its process over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Thing {
    /// A wait, and for which grant it is if it is for one.
    Wait(u64, Option<u64>),
    Hold(u64),
}

impl Thing {
    const fn of_wait(wait: &Wait) -> Self {
        Self::Wait(wait.id, if let Lacks::Grant { grant, .. } = wait.lacks { Some(grant) } else { None })
    }

    const fn of_hold(hold: &Hold) -> Self {
        Self::Hold(hold.grant)
    }
}

/// A post to be put up.
#[derive(Debug)]
pub(crate) struct Written {
    /// Empty: there is nothing to be told.
    pub(crate) text: String,
    /// How many owners did not fit.
    pub(crate) left_out: usize,
}

impl Ledger {
    /// What is known of these, as a post. To be put up soon: what it says is of now.
    pub(crate) fn write(&mut self, mut owners: Vec<Told>) -> Written {
        let since = |thing| self.since.get(&thing).copied().unwrap_or(Since::UNKNOWN);
        for owner in &mut owners {
            owner.waits.iter_mut().for_each(|wait| wait.since = since(Thing::of_wait(wait)));
            owner.holds.iter_mut().for_each(|hold| hold.since = since(Thing::of_hold(hold)));
        }
        self.offered = owners.iter().flat_map(|owner| &owner.holds).map(|hold| hold.grant).collect();
        let (text, told) = post::write(self.seen, &owners);
        let waits = told.iter().flat_map(|owner| &owner.waits).map(Thing::of_wait);
        let holds = told.iter().flat_map(|owner| &owner.holds).map(Thing::of_hold);
        self.told = waits.chain(holds).collect();
        Written { text, left_out: owners.len() - told.len() }
    }

    /// The last post is up, and this is the answer. Answers the posts on it.
    pub(crate) fn read(&mut self, process: u64, board: &Board) -> Vec<(u64, Post)> {
        if board.number <= self.seen {
            // The board was lost, and its numbers begin anew.
            self.forget();
        }
        self.seen = board.number;
        let since = |thing: &Thing| (*thing, self.since.get(thing).copied().unwrap_or(Since(board.number)));
        self.since = self.told.iter().map(since).collect();
        // What has seen a number that was not given yet is of another board.
        let is_of_this = |post: &Post| post.seen <= board.number;
        let read = |(of, text): &(u64, String)| Some((*of, post::read(text).filter(is_of_this)?));
        let posts: Vec<_> = board.posts.iter().filter_map(read).collect();
        let others = posts.iter().filter(|(of, _)| *of != process).flat_map(|(_, post)| &post.owners);
        let foreign = others.flat_map(|owner| &owner.waits);
        let keys = foreign.filter(|wait| matches!(wait.lacks, Lacks::Key(Reach::Everywhere, _))).map(|wait| &wait.key);
        self.wanted = keys.take(MOST_WANTED).cloned().collect();
        posts
    }

    /// Nothing is known of the last post, or of the board.
    pub(crate) fn forget(&mut self) {
        let (told, offered) = (std::mem::take(&mut self.told), std::mem::take(&mut self.offered));
        *self = Self { told, offered, ..Self::default() };
    }

    /// The keys that other processes wait for.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Key> {
        self.wanted.iter()
    }

    /// Whether these owners hold something that others wait for and that was not there to be told before.
    pub(crate) fn has_news(&self, owners: &[Told]) -> bool {
        owners.iter().flat_map(|owner| &owner.holds).any(|hold| !self.offered.contains(&hold.grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn owner(waits: &[u64], holds: &[u64]) -> Told {
        let (since, reach, mode) = (Since::UNKNOWN, Reach::Everywhere, Mode::Exclusive);
        let wait = |&id: &u64| Wait { id, since, lacks: Lacks::Key(reach, mode), key: key("w") };
        let hold = |&grant: &u64| Hold { grant, since, reach, mode, key: key("h") };
        let (waits, holds) = (waits.iter().map(wait).collect(), holds.iter().map(hold).collect());
        Told { owner: 1, label: "me".into(), waits, holds }
    }

    fn sinces(ledger: &mut Ledger, told: Told) -> (u64, Vec<Since>) {
        let post = post::read(&ledger.write(vec![told]).text).unwrap();
        let owner = &post.owners[0];
        let holds = owner.holds.iter().map(|hold| hold.since);
        (post.seen, owner.waits.iter().map(|wait| wait.since).chain(holds).collect())
    }

    #[test]
    fn what_is_told_is_known_since_the_first_answer_to_it() {
        let mut ledger = Ledger::default();
        assert_eq!(sinces(&mut ledger, owner(&[1], &[])), (0, vec![Since::UNKNOWN]));
        ledger.read(7, &Board::new(10, Vec::new()));
        assert_eq!(sinces(&mut ledger, owner(&[1], &[5])), (10, vec![Since(10), Since::UNKNOWN]));
        ledger.read(7, &Board::new(12, Vec::new()));
        assert_eq!(sinces(&mut ledger, owner(&[1], &[5])), (12, vec![Since(10), Since(12)]));
        // No answer: it may have been put up, or not.
        ledger.forget();
        assert_eq!(sinces(&mut ledger, owner(&[1], &[5])), (0, vec![Since::UNKNOWN; 2]));
        ledger.read(7, &Board::new(20, Vec::new()));
        assert_eq!(sinces(&mut ledger, owner(&[1], &[5])), (20, vec![Since(20); 2]));
        ledger.read(7, &Board::new(19, Vec::new()));
        assert_eq!(sinces(&mut ledger, owner(&[1], &[5])), (19, vec![Since(19); 2]), "the board was lost");
        sinces(&mut ledger, owner(&[2], &[]));
        ledger.read(7, &Board::new(21, Vec::new()));
        assert_eq!(ledger.since.len(), 1, "what is told no more is forgotten");
    }

    #[test]
    fn what_others_wait_for_is_wanted() {
        let (mut ledger, mut other) = (Ledger::default(), Ledger::default());
        let (mine, theirs) = (ledger.write(vec![owner(&[1], &[])]), other.write(vec![owner(&[2], &[])]));
        let posts = vec![(7, mine.text), (8, theirs.text), (9, "something else".to_owned())];
        assert_eq!(ledger.read(7, &Board::new(1, posts.clone())).len(), 2);
        assert_eq!(ledger.wanted().collect::<Vec<_>>(), [&key("w")]);
        assert!(ledger.has_news(&[owner(&[1], &[3])]) && !ledger.has_news(&[owner(&[1], &[])]));
        ledger.read(7, &Board::new(2, posts[..1].to_vec()));
        assert_eq!(ledger.wanted().count(), 0);
    }

    #[test]
    fn what_does_not_fit_into_a_post_is_no_news_the_next_time() {
        let mut ledger = Ledger::default();
        let many: Vec<_> = (0..2_000).collect();
        let written = ledger.write(vec![owner(&[1], &many)]);
        assert_eq!((written.text.as_str(), written.left_out), ("", 1));
        assert!(!ledger.has_news(&[owner(&[1], &many)]) && ledger.has_news(&[owner(&[1], &[9_999])]));
    }
}
