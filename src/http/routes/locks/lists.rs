//! Lists of the held locks, for all who ask for them over HTTP.
//!
//! A list looks at the whole table. Whoever asks while others do shares one such walk with them, walks come one at a
//! time, and after each there is a rest of many times its length: however many ask however often, lists take a small
//! part of one processor. Where a walk is short, everybody waits for one that began after he had asked; where it is long,
//! an answer may be up to a second old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::task::spawn_blocking;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{ListPage, ListQuery, LockManager};

/// How old an answer may be.
const OLDEST: Duration = Duration::from_secs(1);
/// Whoever would wait longer than this for the next walk gets an answer that is there already.
const WORTH_WAITING: Duration = Duration::from_millis(50);
/// How many times its own length a walk is followed by a rest.
const RESTS: u32 = 15;
/// Where walks take longer than this, each waits so long for others who ask at the same time, as a page does.
const GATHER: Duration = Duration::from_millis(2);
/// How many different lists one walk makes, since each costs; and how many are kept.
const AT_ONCE: usize = 32;

/// The lists of one manager.
#[derive(Default)]
pub(in crate::http) struct Lists(Arc<Mutex<ListsState>>);

#[derive(Default)]
struct ListsState {
    wanted: Vec<(ListQuery, oneshot::Sender<Arc<ListPage>>)>,
    known: HashMap<ListQuery, Known>,
    /// Whether a `Walker` exists. Whoever sets it starts one, and the walker takes it back when it ends, however it ends:
    /// left `true`, no list would ever be made again.
    is_walking: bool,
    /// When the next walk may begin. While one is under way it is an estimate, by the length of the one before. `None`:
    /// there was no walk yet.
    next_at: Option<Instant>,
    /// How long the last walk took.
    took: Duration,
    #[cfg(test)]
    walks: u32,
    #[cfg(test)]
    walked: Duration,
}

/// A list that was made.
struct Known {
    page: Arc<ListPage>,
    /// When its walk began.
    as_of: Instant,
}

impl Lists {
    /// A list; it is perhaps shared with others. `None` if it could not be made.
    pub(in crate::http) async fn page(&self, locks: &LockManager, query: ListQuery) -> Option<Arc<ListPage>> {
        // A walk that broke off takes its answers along: the next one is ours to begin.
        for _ in 0..3 {
            let answer = {
                let mut state = self.0.lock();
                if let Some(page) = state.good_enough(&query) {
                    return Some(page);
                }
                let (answer, receiver) = oneshot::channel();
                state.wanted.push((query.clone(), answer));
                if !std::mem::replace(&mut state.is_walking, true) {
                    let walker = Walker { state: Arc::clone(&self.0), locks: locks.clone(), is_done: false };
                    spawn_blocking(move || walker.run());
                }
                receiver
            };
            if let Ok(page) = answer.await {
                return Some(page);
            }
        }
        None
    }
}

impl ListsState {
    fn good_enough(&self, query: &ListQuery) -> Option<Arc<ListPage>> {
        let now = Instant::now();
        let wait = self.next_at?.saturating_duration_since(now);
        let known = self.known.get(query).filter(|known| now.duration_since(known.as_of) <= OLDEST)?;
        (wait > WORTH_WAITING).then(|| Arc::clone(&known.page))
    }

    /// The lists that the next walk makes, and who asked for each.
    fn take_wanted(&mut self) -> Vec<(ListQuery, Vec<oneshot::Sender<Arc<ListPage>>>)> {
        let mut lists: Vec<(ListQuery, Vec<_>)> = Vec::new();
        let mut later = Vec::new();
        for (query, answer) in self.wanted.drain(..).filter(|(_, answer)| !answer.is_closed()) {
            if let Some((_, answers)) = lists.iter_mut().find(|(other, _)| *other == query) {
                answers.push(answer);
            } else if lists.len() < AT_ONCE {
                lists.push((query, vec![answer]));
            } else {
                later.push((query, answer));
            }
        }
        self.wanted = later;
        lists
    }
}

/// Walks until nobody wants a list any more. It runs to its end, whoever goes away meanwhile.
struct Walker {
    state: Arc<Mutex<ListsState>>,
    locks: LockManager,
    /// It has said itself that it has gone.
    is_done: bool,
}

impl Walker {
    fn run(mut self) {
        if self.state.lock().took > GATHER {
            std::thread::sleep(GATHER);
        }
        loop {
            let lists = {
                let mut state = self.state.lock();
                let now = Instant::now();
                let rest = state.next_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
                if state.wanted.iter().all(|(_, answer)| answer.is_closed()) {
                    (state.is_walking, self.is_done) = (false, true);
                    return;
                }
                if rest.is_zero() {
                    state.next_at = Some(now + state.took * (RESTS + 1));
                    Ok(state.take_wanted())
                } else {
                    Err(rest)
                }
            };
            match lists {
                Ok(lists) => self.walk(lists),
                Err(rest) => std::thread::sleep(rest.min(OLDEST)),
            }
        }
    }

    fn walk(&self, lists: Vec<(ListQuery, Vec<oneshot::Sender<Arc<ListPage>>>)>) {
        let as_of = Instant::now();
        let (queries, answers): (Vec<ListQuery>, Vec<_>) = lists.into_iter().unzip();
        let pages: Vec<Arc<ListPage>> = self.locks.list_pages(&queries).into_iter().map(Arc::new).collect();
        let ended = Instant::now();
        let mut state = self.state.lock();
        state.took = ended - as_of;
        state.next_at = Some(ended + state.took * RESTS);
        #[cfg(test)]
        {
            state.walks += 1;
            state.walked += ended - as_of;
        }
        state.known.retain(|_, known| ended.duration_since(known.as_of) <= OLDEST);
        for (query, page) in queries.into_iter().zip(&pages) {
            if state.known.len() < AT_ONCE || state.known.contains_key(&query) {
                state.known.insert(query, Known { page: Arc::clone(page), as_of });
            }
        }
        drop(state);
        for (page, answers) in pages.into_iter().zip(answers) {
            for answer in answers {
                // Whoever has gone needs none.
                let _ = answer.send(Arc::clone(&page));
            }
        }
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = self.state.lock();
            state.is_walking = false;
            // Their senders are dropped, which ends the wait of those who asked.
            state.wanted.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many_locks() -> (LockManager, Vec<crate::Lock>) {
        let locks = LockManager::builder().build().unwrap();
        let held = (0..30_000).map(|n| locks.try_lock_now(format!("k{n}")).unwrap()).collect();
        (locks, held)
    }

    /// Eight impatient clients; answers how many lists they got.
    async fn ask_in_a_loop(locks: &LockManager, lists: &Arc<Lists>, prefix: fn(u32) -> String) -> u32 {
        let until = Instant::now() + Duration::from_secs(2);
        let clients: Vec<_> = (0..8_u32)
            .map(|client| {
                let (locks, lists) = (locks.clone(), Arc::clone(lists));
                actix_web::rt::spawn(async move {
                    let mut asked = 0;
                    while Instant::now() < until {
                        let query = ListQuery::new().prefix(prefix(8 * asked + client)).limit(5);
                        assert!(lists.page(&locks, query).await.unwrap().locks.len() <= 5);
                        asked += 1;
                        actix_web::rt::task::yield_now().await;
                    }
                    asked
                })
            })
            .collect();
        let mut all = 0;
        for client in clients {
            all += client.await.unwrap();
        }
        all
    }

    #[actix_web::test]
    async fn however_many_ask_walks_take_a_small_part_of_the_time() {
        let (locks, _held) = many_locks();
        for prefix in [|_| String::new(), |n: u32| format!("k{n}")] {
            let (lists, began) = (Arc::new(Lists::default()), Instant::now());
            assert!(ask_in_a_loop(&locks, &lists, prefix).await > 8);
            let state = lists.0.lock();
            let walking = state.walked;
            assert!(walking * 8 <= began.elapsed(), "{walking:?} of {:?}, in {} walks", began.elapsed(), state.walks);
        }
    }

    #[actix_web::test]
    async fn a_list_of_a_small_table_shows_what_came_just_before() {
        let (locks, lists) = (LockManager::builder().build().unwrap(), Lists::default());
        let (mut held, mut old) = (Vec::new(), 0);
        for n in 1..=20 {
            held.push(locks.try_lock_now(format!("k{n}")).unwrap());
            while lists.page(&locks, ListQuery::new()).await.unwrap().locks.len() != n {
                // The machine has interrupted a walk, which counts as a long one.
                old += 1;
                actix_web::rt::time::sleep(WORTH_WAITING).await;
            }
        }
        assert!(old < 200, "what came just before is not shown");
    }

    #[actix_web::test]
    async fn a_walk_that_never_ran_leaves_nobody_waiting() {
        let (locks, lists) = (LockManager::builder().build().unwrap(), Lists::default());
        let (answer, lost) = oneshot::channel();
        {
            let mut state = lists.0.lock();
            state.is_walking = true;
            state.wanted.push((ListQuery::new(), answer));
        }
        drop(Walker { state: Arc::clone(&lists.0), locks: locks.clone(), is_done: false });
        assert!(lost.await.is_err());
        assert!(lists.page(&locks, ListQuery::new()).await.is_some());
    }
}
