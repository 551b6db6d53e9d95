//! The task that finds deadlocks through several processes: it puts up what this one has to tell, reads what the others
//! do, and has those waits refused that give way. What is told and believed is `deadlock::across`'s.
//!
//! It sleeps until an owner that holds something waits. Then it looks once a tick whether somebody waits for what another
//! process may hold; only then does it ask the store. It ends with the manager.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::deadlock::across::ledger::{Ledger, Written};
use crate::deadlock::across::picture::Picture;
use crate::deadlock::across::{Told, post};
use crate::deadlock::signal::Signal;
use crate::deadlock::told::Telling;
use crate::shard::client::StoreClient;
use crate::store::Post;
use crate::supervise::supervise;
use crate::telemetry::trace;

/// How long a wait lasts before it is told, and between two posts while nothing happens.
const TICK: Duration = Duration::from_millis(150);
/// The same for each post on the board, where that is longer: what all of them cost the store does not grow with their
/// square.
const TICK_BY_POST: Duration = Duration::from_millis(10);
/// Between two posts while a cycle is to be believed or broken.
const SOON: Duration = Duration::from_millis(25);
/// So often in a row. Then a process of the cycle says nothing new.
const MOST_IN_A_HURRY: u32 = 8;
/// The life of a post, in ticks: a process that is slow for a moment does not vanish.
const LIFE: u32 = 10;
/// How often it is logged that posts are too long.
const LOG_AGAIN: Duration = Duration::from_mins(1);

/// Runs the task until the engine has gone.
pub(super) async fn run(engine: Weak<Engine>, client: Arc<StoreClient>, signal: Arc<Signal>) {
    supervise("deadlocks through several processes", || {
        let (engine, client, signal) = (Weak::clone(&engine), Arc::clone(&client), Arc::clone(&signal));
        Talk::new(engine, client, signal).run()
    })
    .await;
}

struct Talk {
    engine: Weak<Engine>,
    client: Arc<StoreClient>,
    signal: Arc<Signal>,
    process: u64,
    ledger: Ledger,
    /// Whether the last post may be up.
    is_up: bool,
    tick: Duration,
    hurried: u32,
    logged: Option<Instant>,
}

/// What comes after a round.
enum Next {
    /// The manager has gone.
    End,
    /// Nothing, before an owner that holds something waits.
    Rest,
    Tick,
    Soon,
}

impl Talk {
    fn new(engine: Weak<Engine>, client: Arc<StoreClient>, signal: Arc<Signal>) -> Self {
        Self {
            engine,
            client,
            signal,
            process: fastrand::u64(..),
            ledger: Ledger::default(),
            is_up: false,
            tick: TICK,
            hurried: 0,
            logged: None,
        }
    }

    async fn run(mut self) {
        let mut next = Next::Rest;
        loop {
            match next {
                Next::End => return,
                Next::Rest => {
                    self.signal.until_one_begins().await;
                    tokio::time::sleep(TICK).await;
                }
                Next::Tick => {
                    // Not all processes at the same moment.
                    let tick = self.tick.mul_f64(0.9 + fastrand::f64() / 5.0);
                    if tokio::time::timeout(tick, self.signal.until_a_suspect_ends()).await.is_ok() {
                        tokio::time::sleep(SOON / 5).await;
                    }
                }
                Next::Soon => tokio::time::sleep(SOON).await,
            }
            next = self.round().await;
        }
    }

    /// One post, and what comes of it.
    async fn round(&mut self) -> Next {
        let owners = match self.telling() {
            Some(Telling::Something(owners)) => owners,
            None => return Next::End,
            Some(Telling::Idle) => return self.take_down(Next::Rest).await,
            Some(Telling::Nothing) => return self.take_down(Next::Tick).await,
        };
        let Written { text, left_out, .. } = self.ledger.write(owners);
        let (begun, life) = (Instant::now(), self.tick * LIFE);
        self.is_up = true;
        let answered = self.client.store.put_up(Post { process: self.process, text: &text, life }).await;
        let Ok(board) = answered else {
            self.ledger.forget();
            return Next::Tick;
        };
        self.tick = TICK.max(TICK_BY_POST * u32::try_from(board.posts.len()).unwrap_or(u32::MAX));
        self.log(left_out, board.left_out);
        let posts = self.ledger.read(self.process, &board);
        match self.telling() {
            None => Next::End,
            // What others have told may be long past.
            Some(_) if begun.elapsed() > life => Next::Soon,
            Some(Telling::Something(owners)) => self.judge(posts, &owners),
            Some(Telling::Idle | Telling::Nothing) => Next::Soon,
        }
    }

    /// Has those of this process's waits refused that give way. `owners`: what there is of them by now.
    fn judge(&mut self, mut posts: Vec<(u64, post::Post)>, owners: &[Told]) -> Next {
        let own = posts.iter_mut().filter(|(process, _)| *process == self.process);
        own.for_each(|(_, post)| post.keep(owners));
        let judged = Picture::of(&posts).judge(self.process);
        let Some(engine) = self.engine.upgrade() else { return Next::End };
        let detector = &engine.detector;
        detector.suspect(&judged.suspects);
        let breaks = !judged.victims.is_empty();
        for victim in judged.victims {
            detector.refuse(&engine.shards, victim.wait, victim.cycle);
        }
        self.hurried = if judged.suspects.is_empty() { 0 } else { self.hurried.saturating_add(1) };
        let is_hurried = (1..=MOST_IN_A_HURRY).contains(&self.hurried);
        if breaks || is_hurried || self.ledger.has_news(owners) { Next::Soon } else { Next::Tick }
    }

    fn telling(&self) -> Option<Telling> {
        let engine = self.engine.upgrade()?;
        let place = |key: &_| engine.router.of(key);
        Some(engine.detector.telling(&engine.shards, self.ledger.wanted(), place))
    }

    async fn take_down(&mut self, next: Next) -> Next {
        if std::mem::take(&mut self.is_up) {
            // If it fails, the post comes to its end.
            let _ = self.client.store.put_up(Post { process: self.process, text: "", life: Duration::ZERO }).await;
        }
        self.ledger.forget();
        (self.tick, self.hurried) = (TICK, 0);
        next
    }

    fn log(&mut self, owners: usize, posts: usize) {
        let is_due = self.logged.is_none_or(|at| at.elapsed() >= LOG_AGAIN);
        if owners + posts > 0 && is_due {
            self.logged = Some(Instant::now());
            crate::supervise::hook(|| trace::waits_left_out(owners, posts));
        }
    }
}
