//! What the users of a process do: they ask for keys, hold them for a while, and let go, or do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use uuid::Uuid;

use super::world::{Event, World, hash, number_of};
use super::{MS, key_at};
use crate::clock::Moment;
use crate::key::{Token, Ttl};
use crate::table::{
    AcquireOutcome, AcquireRequest, End, ExtraTerms, Grant, GrantState, RefreshRequest, Release, Terms, TokenOrigin,
    WaitPolicy, WaiterId, WaiterPoll,
};

/// A request, until its user has gone.
pub(super) struct Request {
    state: GrantState,
    bell: Arc<Bell>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Waiting(WaiterId),
    Holding(Grant),
}

/// Whether a request's waker was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    /// A user of this process does something, and another one later.
    pub(super) fn use_it(&mut self, of: usize) {
        if self.is_fair || self.processes[of].is_closed {
            return;
        }
        let open = self.processes[of].requests.len();
        if open < self.plan.requests && self.random.u32(0..3) == 0 || open == 0 {
            self.ask(of);
        } else {
            let at = self.random.usize(0..open);
            let number = *self.processes[of].requests.keys().nth(at).expect("there are as many");
            match self.processes[of].requests[&number].stage {
                Stage::Waiting(id) if self.random.u32(0..12) == 0 => self.stop_waiting(of, number, id),
                Stage::Waiting(_) => {}
                Stage::Holding(grant) => self.hold(of, number, grant),
            }
        }
        let pause = match self.random.u32(0..100) {
            0..75 => self.random.u64(0..MS / 3),
            75..95 => self.random.u64(0..10 * MS),
            _ => self.random.u64(0..self.plan.idle_ms * MS),
        };
        self.after(of, pause, Event::User);
    }

    fn ask(&mut self, of: usize) {
        let key = key_at(self.random.usize(0..self.plan.keys));
        let number = self.number();
        let origin = if self.random.u32(0..10) == 0 { TokenOrigin::ByClient } else { TokenOrigin::Minted };
        // Some are clients, who are told a token.
        let is_ticket = self.random.u32(0..6) == 0;
        let state = if is_ticket { GrantState::Ticket } else { GrantState::Guard(origin) };
        let max_hold = (self.random.u32(0..12) == 0).then(|| Duration::from_millis(self.random.u64(1..500)));
        let extra = max_hold.map(|_| Arc::new(ExtraTerms { max_hold, ..ExtraTerms::default() }));
        let terms = Terms { ttl: self.ttl(), extra };
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(bell.clone());
        let wait = match self.random.u32(0..10) {
            0..2 => None,
            2..6 => Some(Moment::FAR),
            _ => Some(
                self.processes[of].clock(self.now).saturating_add(Duration::from_millis(self.random.u64(0..2_000))),
            ),
        };
        let policy = wait.map_or(WaitPolicy::Now, |until| WaitPolicy::Until(until, Some(&waker)));
        let request = AcquireRequest {
            key: &key,
            hash: hash(),
            terms: &terms,
            token: Some(Token::from(Uuid::from_u128(u128::from(number)))),
            origin,
            grant_state: state,
        };
        self.log(|_| format!("{of}  asks as {number} for {} ({origin:?}, {:?}, {wait:?})", number_of(&key), terms.ttl));
        let stage = match self.act(of, |table, now, fx| table.acquire(&request, policy, now, fx)) {
            AcquireOutcome::Granted(grant) => Stage::Holding(grant),
            AcquireOutcome::Queued(id) => Stage::Waiting(id),
            AcquireOutcome::Refused(_) => return,
        };
        self.processes[of].requests.insert(number, Request { state, bell, stage });
        if let Stage::Waiting(_) = stage {
            // One that does not wait for others gave no waker yet.
            self.poll(of, number);
        }
    }

    fn ttl(&mut self) -> Ttl {
        let ms = match self.random.u32(0..20) {
            // Stores take none below 10 ms.
            0..2 => self.random.u64(10..=25),
            2..8 => self.random.u64(25..300),
            8..19 => self.random.u64(300..4_000),
            _ => self.random.u64(4_000..90_000),
        };
        Ttl::new(Duration::from_millis(ms)).unwrap()
    }

    /// Has those look whose wakers were woken.
    pub(super) fn poll_the_woken(&mut self, of: usize) {
        let requests = self.processes[of].requests.iter();
        let woken = requests.filter(|(_, request)| request.bell.0.swap(false, Ordering::Relaxed));
        for request in woken.map(|(number, _)| *number).collect::<Vec<_>>() {
            let delay = self.delay();
            self.after(of, delay, Event::Poll { request });
        }
    }

    pub(super) fn poll(&mut self, of: usize, number: u64) {
        let Some(request) = self.processes[of].requests.get(&number) else { return };
        let Stage::Waiting(id) = request.stage else { return };
        let (waker, state) = (Waker::from(request.bell.clone()), request.state);
        match self.act(of, |table, now, fx| table.poll_waiter(id, state, &waker, now, fx)) {
            WaiterPoll::Pending => {}
            WaiterPoll::Granted(grant) => {
                self.log(|_| format!("{of}  {number} has {grant:?}"));
                self.processes[of].requests.get_mut(&number).expect("it is there").stage = Stage::Holding(grant);
                if self.is_fair {
                    self.after(of, MS, Event::LetGo { request: number });
                }
            }
            WaiterPoll::Refused(why) => {
                self.log(|_| format!("{of}  {number} is refused: {why:?}"));
                self.processes[of].requests.remove(&number);
            }
            WaiterPoll::Taken => unreachable!("nobody shares a waiter"),
        }
    }

    fn stop_waiting(&mut self, of: usize, number: u64, id: WaiterId) {
        self.log(|_| format!("{of}  {number} stops waiting"));
        self.processes[of].requests.remove(&number);
        // It may have been granted, and not have seen it.
        self.checks.is_letting_go = true;
        self.act(of, |table, now, fx| table.cancel(id, now, fx));
        self.checks.is_letting_go = false;
    }

    /// What a holder does.
    fn hold(&mut self, of: usize, number: u64, grant: Grant) {
        match self.random.u32(0..40) {
            0..26 => self.end(of, number, &grant, End::Released),
            26..30 => self.end(of, number, &grant, End::Dropped),
            30..32 => self.end(of, number, &grant, End::ByToken),
            32..36 => self.refresh(of, &grant),
            36 => drop(self.act(of, |table, now, fx| table.keep_refreshed(&grant, now, fx))),
            37 => {
                self.log(|_| format!("{of}  {number} is forced"));
                self.processes[of].requests.remove(&number);
                self.act(of, |table, now, fx| table.end_grant(&grant, End::Forced, now, fx));
            }
            38 => {
                // Its lock runs out, unless it is kept.
                self.log(|_| format!("{of}  {number} is forgotten"));
                self.act(of, |table, _, fx| table.stop_auto_refresh(&grant, fx));
                self.processes[of].requests.remove(&number);
            }
            _ => {}
        }
    }

    fn end(&mut self, of: usize, number: u64, grant: &Grant, end: End) {
        self.log(|_| format!("{of}  {number} lets go"));
        self.processes[of].requests.remove(&number);
        let before = self.checks.reached.grants;
        self.checks.is_letting_go = true;
        let released = self.act(of, |table, now, fx| table.release(grant, end, now, fx));
        self.checks.is_letting_go = false;
        let granted = self.checks.reached.grants - before;
        assert!(released == Release::Released || granted == 0, "K3: a lock that ended otherwise hands nothing on");
    }

    fn refresh(&mut self, of: usize, grant: &Grant) {
        let request = if self.random.bool() { RefreshRequest::IfDue } else { RefreshRequest::To(self.ttl()) };
        if let Ok((key, token, ttl)) = self.act(of, |table, now, fx| table.start_extension(grant, request, now, fx)) {
            self.extend(of, number_of(&key), token, (*grant, ttl, false));
        }
    }

    /// Faults have ended: whoever holds a key lets go of it soon.
    pub(super) fn finish_up(&mut self, of: usize) {
        for request in self.processes[of].requests.keys().copied().collect::<Vec<_>>() {
            let delay = self.delay();
            self.after(of, delay, Event::LetGo { request });
            self.after(of, delay, Event::Poll { request });
        }
    }

    pub(super) fn let_go(&mut self, of: usize, number: u64) {
        let Some(request) = self.processes[of].requests.get(&number) else { return };
        if let Stage::Holding(grant) = request.stage {
            self.end(of, number, &grant, End::Released);
        }
    }
}
