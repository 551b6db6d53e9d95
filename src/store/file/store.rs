//! The contract, kept: each call is a step under the mutex, and a wait for the commit that it needs.

use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::FileStore;
use super::ledger::Hold;
use super::shared::{Asked, Ended, Left};
use super::state::{Phase, Wait};
use super::take_back::Unheard;
use crate::key::{Key, Token, Ttl};
use crate::mode::{Mode, Modes};
use crate::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Denial, Event, Events, Exchange, Extended, Fairness, Forced,
    Health, Hint, HoldInfo, Holder, KeptHold, KeyState, NodeHealth, Noticed, Released, ScanPage, Scanned, Store,
    StoreError, Votes, Watch,
};

/// A page of a scan at most, and all that [`Store::holders`] lists.
const MOST: usize = 1_000;

async fn settled(wait: Wait) -> Result<(), StoreError> {
    match wait {
        Some(wait) => wait.await.unwrap_or(Err(StoreError::NotRunning)),
        None => Ok(()),
    }
}

/// What is known of a try.
enum Trying {
    Over(Acquired),
    /// Granted, as soon as that is on the disk.
    Waits {
        began: Instant,
        granted: Acquired,
        valid_for: Duration,
        wait: Wait,
        unheard: Unheard,
    },
}

impl Trying {
    async fn answer(self) -> Acquired {
        let (began, granted, valid_for, wait, unheard) = match self {
            Self::Over(answer) => return answer,
            Self::Waits { began, granted, valid_for, wait, unheard } => (began, granted, valid_for, wait, unheard),
        };
        if let Err(why) = settled(wait).await {
            return Acquired::Unknown(why);
        }
        if began.elapsed() >= valid_for {
            return Acquired::Denied { retry_in: None, why: Denial::TooLate };
        }
        match unheard.hear() {
            Some(()) => granted,
            // It was forced, or has been released by somebody who knows the token.
            None => Acquired::Denied { retry_in: None, why: Denial::Held },
        }
    }
}

fn granted(fence: u64, valid_for: Duration) -> Acquired {
    Acquired::Granted { fence: Some(fence), valid_for, clock: None }
}

impl FileStore {
    /// A try that was made at `began`. Dropped, it is taken back.
    fn trying(&self, began: Instant, ask: &AcquireRequest<'_>, asked: Result<Asked, StoreError>) -> Trying {
        match asked {
            Ok(Asked::Granted { fence, valid_for, wait: Some(wait) }) => {
                let generation = self.generation.load(Ordering::Acquire);
                let unheard = Unheard::new(&self.shared, generation, ask.key, ask.token, fence);
                Trying::Waits { began, granted: granted(fence, valid_for), valid_for, wait: Some(wait), unheard }
            }
            Ok(Asked::Granted { fence, valid_for, wait: None }) => Trying::Over(granted(fence, valid_for)),
            Ok(Asked::Denied { why, retry_in }) => Trying::Over(Acquired::Denied { retry_in, why }),
            Err(why) => Trying::Over(Acquired::Unknown(why)),
        }
    }

    /// Ends what the token holds, and tells who watches. The work is done when this returns.
    fn end(&self, key: &Key, token: Token) -> Result<(Ended, Wait), StoreError> {
        let (ended, wait) = self.step()?.release(key, token);
        if ended == Ended::Some {
            self.shared.hint(key, Hint::Released);
        }
        Ok((ended, wait))
    }

    async fn force(&self, key: &Key, fence: Option<u64>) -> Forced {
        let forcing = self.step().map(|mut step| step.force(key, fence));
        let (ended, wait) = match forcing {
            Ok(forced) => forced,
            Err(why) => return Forced::Unknown(why),
        };
        if ended == Ended::Some {
            self.shared.hint(key, Hint::Forced);
            if fence.is_none() {
                self.shared.listeners.tell(&Event::Forced(key.clone()));
            }
        }
        match (settled(wait).await, ended) {
            (Err(why), _) => Forced::Unknown(why),
            (Ok(()), Ended::Some) => Forced::Released,
            (Ok(()), Ended::None) => Forced::WasFree,
        }
    }

    /// Everybody who holds the key, once that is on the disk.
    async fn who<T>(&self, key: &Key, see: impl FnOnce(&[Hold], u64) -> T) -> Result<T, StoreError> {
        let (seen, wait) = {
            let mut step = self.step()?;
            let holds: Vec<Hold> = step.ledger().holds(key, step.now_ms).cloned().collect();
            (see(&holds, step.now_ms), step.key_wait(key))
        };
        settled(wait).await.map(|()| seen)
    }

    fn watch_now(&self, key: &Key) -> Result<Watch, StoreError> {
        let (_, watch) = self.shared.listeners.watch(key, self.number);
        // After the store's end nobody would end it.
        self.step().map(|_| watch)
    }
}

async fn extended((left, wait): (Left, Wait)) -> Extended {
    match (settled(wait).await, left) {
        (Err(why), _) => Extended::Unknown(why),
        (Ok(()), Some(valid_for)) => Extended::Extended { valid_for },
        (Ok(()), None) => Extended::Lost,
    }
}

async fn released(ended: Result<(Ended, Wait), StoreError>) -> Released {
    let (ended, wait) = match ended {
        Ok(ended) => ended,
        Err(why) => return Released::Unknown(why),
    };
    match (settled(wait).await, ended) {
        (Err(why), _) => Released::Unknown(why),
        (Ok(()), Ended::Some) => Released::Released,
        (Ok(()), Ended::None) => Released::AlreadyGone,
    }
}

fn left(hold: &Hold, now_ms: u64) -> Duration {
    Duration::from_millis(hold.row.end_ms.saturating_sub(now_ms))
}

/// Who holds a key, as one: the token that was asked for, or all.
fn key_state(holds: &[Hold], token: Option<Token>, now_ms: u64) -> KeyState {
    let held = |by, hold: &Hold| KeyState::Held { by, ends_in: Some(left(hold, now_ms)), fence: Some(hold.row.fence) };
    if let Some(own) = holds.iter().find(|hold| Some(hold.token) == token) {
        return held(Holder::Ours, own);
    }
    match holds.iter().max_by_key(|hold| hold.row.end_ms) {
        Some(hold) if hold.row.mode == Mode::Exclusive => held(Holder::Other, hold),
        Some(last) => {
            let fence = holds.iter().map(|hold| hold.row.fence).max();
            KeyState::Held { by: Holder::Sharing, ends_in: Some(left(last, now_ms)), fence }
        }
        None => KeyState::Free,
    }
}

fn hold_infos(holds: &[Hold], token: Option<Token>, now_ms: u64) -> Vec<HoldInfo> {
    let mut holds: Vec<&Hold> = holds.iter().collect();
    holds.sort_by_key(|hold| (hold.row.end_ms, hold.row.fence));
    let by = |hold: &Hold| if Some(hold.token) == token { Holder::Ours } else { Holder::Other };
    let info = |hold: &Hold| HoldInfo::new(by(hold), hold.row.mode, Some(left(hold, now_ms)), Some(hold.row.fence));
    holds.into_iter().take(MOST).map(info).collect()
}

fn kept_hold(key: &Key, hold: &Hold, now_ms: u64) -> KeptHold {
    let kept = KeptHold::new(key.clone(), hold.token, hold.row.mode, left(hold, now_ms), hold.row.fence);
    kept.with_note(hold.row.note())
}

impl Store for FileStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.shared.settings.operation_timeout);
        capabilities.fairness = Fairness::None;
        capabilities.exchange = Exchange::OneCall;
        capabilities.modes = Modes::All;
        capabilities.keeps_notes = true;
        capabilities
    }

    fn name(&self) -> &'static str {
        "file"
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.open())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.detach();
            loop {
                let mut changed = pin!(self.shared.phase_changed.notified());
                changed.as_mut().enable();
                if self.shared.state.lock().phase != Phase::Closing {
                    return;
                }
                changed.await;
            }
        })
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(async move {
            let began = Instant::now();
            let asked = self.step().and_then(|mut step| step.acquire(&ask));
            self.trying(began, &ask, asked).answer().await
        })
    }

    /// There are no places.
    fn leave(&self, _: &Key) {}

    /// Every change that may help is a turn: no message can be lost within a process.
    fn turn(&self, key: &Key) -> Option<Watch> {
        let (sender, watch) = self.shared.listeners.watch(key, self.number);
        let is_alone = {
            let step = self.step().ok()?;
            step.ledger().holds(key, step.now_ms).any(|hold| hold.row.mode == Mode::Exclusive)
        };
        if !is_alone {
            let _ = sender.send(Hint::Free);
        }
        Some(watch)
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(async move {
            match self.step().and_then(|mut step| step.extend(key, token, ttl)) {
                Ok(moved) => extended(moved).await,
                Err(why) => Extended::Unknown(why),
            }
        })
    }

    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(async move {
            match self.step().map(|mut step| step.confirm(key, token)) {
                Ok(seen) => extended(seen).await,
                Err(why) => Extended::Unknown(why),
            }
        })
    }

    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(async move {
            let shared = self.step().and_then(|mut step| step.downgrade(key, token));
            match shared {
                Ok(shared) => {
                    self.shared.hint(key, Hint::Released);
                    extended(shared).await
                }
                Err(why) => Extended::Unknown(why),
            }
        })
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        Box::pin(released(self.end(key, token)))
    }

    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        let began = Instant::now();
        let (ended, asked) = match self.step() {
            Ok(mut step) => (Ok(step.release(next.key, token)), step.acquire(&next)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        if next.mode != Mode::Exclusive || !matches!(asked, Ok(Asked::Granted { .. })) {
            self.shared.hint(next.key, Hint::Released);
        }
        let trying = self.trying(began, &next, asked);
        Box::pin(async move {
            let released = released(ended).await;
            (released, trying.answer().await)
        })
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(self.force(key, None))
    }

    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        Box::pin(self.force(key, Some(fence)))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        Box::pin(async move {
            let fence = {
                let step = self.step()?;
                step.ledger().holds(key, step.now_ms).map(|hold| hold.row.fence).max()
            };
            if fence.is_none() {
                return Ok(Noticed::WasFree);
            }
            self.shared.listeners.tell(&Event::Notice { key: key.clone(), fence, within });
            Ok(Noticed::Told { fence })
        })
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(self.who(key, move |holds, now_ms| key_state(holds, token, now_ms)))
    }

    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        Box::pin(self.who(key, move |holds, now_ms| hold_infos(holds, token, now_ms)))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        Box::pin(async move {
            let step = self.step()?;
            // What is no key is the beginning of none, or of all.
            let (after, first) = (cursor.and_then(|text| Key::new(text).ok()), Key::new(prefix).ok());
            let from = match (&after, &first) {
                (Some(after), _) => Bound::Excluded(after),
                (None, Some(first)) => Bound::Included(first),
                (None, None) => Bound::Unbounded,
            };
            let (limit, mut page) = (limit.clamp(1, MOST), Vec::new());
            let (mut last, mut count) = (None, 0);
            for (key, holds) in step.ledger().from(from).take_while(|(key, _)| key.as_str().starts_with(prefix)) {
                if count == limit {
                    return Ok(Some(ScanPage::new(page, last.map(|key: &Key| key.as_str().to_owned()))));
                }
                (last, count) = (Some(key), count + 1);
                let holds: Vec<Hold> = holds.iter().filter(|hold| hold.row.end_ms > step.now_ms).cloned().collect();
                if let KeyState::Held { by, ends_in, .. } = key_state(&holds, None, step.now_ms) {
                    page.push(Scanned::new(key.clone(), ends_in).held_by(by));
                }
            }
            Ok(Some(ScanPage::new(page, None)))
        })
    }

    fn kept_holds(&self) -> BoxFuture<'_, Result<Vec<KeptHold>, StoreError>> {
        Box::pin(async {
            let (mut kept, mut after): (Vec<KeptHold>, Option<Key>) = (Vec::new(), None);
            loop {
                let step = self.step()?;
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut last = None;
                for (key, holds) in step.ledger().from(from).take(MOST) {
                    let lasting = holds.iter().filter(|hold| hold.row.end_ms > step.now_ms);
                    kept.extend(lasting.map(|hold| kept_hold(key, hold, step.now_ms)));
                    last = Some(key.clone());
                }
                drop(step);
                if last.is_none() {
                    return Ok(kept);
                }
                after = last;
            }
        })
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(std::future::ready(self.watch_now(key)))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        let events = self.shared.listeners.events(self.number);
        Box::pin(std::future::ready(self.step().map(|_| events)))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            let began = Instant::now();
            let probing = self.step().and_then(|mut step| {
                let probe = step.probe();
                probe.map(|(took, wait)| (took, wait, step.silent_for()))
            });
            let (took, wait, silent_for) = match probing {
                Ok(probing) => probing,
                Err(why) => return Health::new(Err(why), Vec::new()),
            };
            let took = if wait.is_none() { Ok(took) } else { settled(wait).await.map(|()| began.elapsed()) };
            let health = Health::new(took.clone(), Vec::new());
            let Some(left) = silent_for else { return health };
            let name = self.shared.settings.dir.display().to_string().into();
            let silent = took.and(Err(StoreError::Quarantined { left }));
            health.with_nodes(vec![NodeHealth::new(name, silent, Votes::default())])
        })
    }
}
