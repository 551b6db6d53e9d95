//! One wait for a lock of a server, made of several requests.
//!
//! Proxies cut requests that take long, and servers restart. So a wait goes on in rounds, each a request with the same
//! client-chosen token, and the failure of one does not end it:
//!
//! ```text
//!   round 1   |-------------------------|
//!   round 2                         |-------------------------|      sent a little before the end of the one before:
//!   round 3                                               |---       it joins the same waiter, which keeps its place
//! ```
//!
//! The first answer that grants the lock ends the wait, and a request that is still open is dropped. Where the requests
//! reach different servers, or a server has restarted, the place in the queue is lost, and the wait goes on. A token
//! under which a lock has ended is replaced by a fresh one.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::select_all;
use leasehold::{Clock, Moment, Token};
use serde_json::json;

use super::progress::Progress;
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::Failure;
use crate::lease::LeaseTerms;

/// The longest round: shorter than the time-outs of proxies, most of which are 30 to 60 s.
pub(crate) const LONGEST_ROUND: Duration = Duration::from_secs(20);
/// A round that a proxy has cut is followed by shorter ones, down to the first of these; one that a server refuses as
/// too long, down to the second.
const SHORTEST_CUT_ROUND: Duration = Duration::from_secs(1);
const SHORTEST_ROUND: Duration = Duration::from_millis(100);
/// How long before the end of a round the next begins: this long, or a quarter of the round if that is shorter.
const OVERLAP: Duration = Duration::from_secs(3);
const OVERLAP_SHARE: u32 = 4;
/// A round that is answered sooner than this, and before its end, that the wait is over did not wait: the next follows
/// a pause.
const TOO_EARLY: Duration = Duration::from_millis(50);
/// The pauses after failures double from the first to the longest; each is cut by up to a half at random.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a release may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// A lock was granted: the text of the answer, and when its request was sent. Its times count from then.
pub(crate) struct AcquireReply {
    pub(crate) text: String,
    pub(crate) sent: Moment,
}

/// Whether the token of a wait may be replaced by another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenFrom {
    /// It was made up here.
    Us,
    /// It is what the caller will look for.
    Caller,
}

/// A wait that goes on until an end of its own.
pub(crate) struct Rounds<'a> {
    client: &'a Client,
    clock: &'a Clock,
    progress: &'a Progress,
    end: Moment,
    token: TokenFrom,
    /// How long a round may be.
    longest: Duration,
    pauses: Pauses,
}

/// One request of a wait.
struct Round {
    sent: Moment,
    wait: Duration,
    answer: Pin<Box<dyn Future<Output = Result<String, CallError>>>>,
}

/// What follows an answer that is no grant.
enum Next {
    /// Another round at once.
    Round,
    /// This round waited to its end.
    Waited(Failure),
    /// Another round after a pause.
    Pause(Failure),
    /// The same, with a fresh token.
    FreshToken(Failure),
    End(Failure),
}

impl<'a> Rounds<'a> {
    pub(crate) fn until(
        end: Moment,
        token: TokenFrom,
        client: &'a Client,
        clock: &'a Clock,
        progress: &'a Progress,
    ) -> Self {
        Self { client, clock, progress, end, token, longest: LONGEST_ROUND, pauses: Pauses::default() }
    }

    fn left(&self) -> Duration {
        self.end.saturating_since(self.clock.now())
    }

    /// Waits for a lock on these terms, whose token may be another afterwards. At least one request is made.
    ///
    /// # Errors
    /// The lock was not granted, or whether it was is not known.
    pub(crate) async fn ask(&mut self, terms: &mut LeaseTerms) -> Result<AcquireReply, Failure> {
        let mut open = vec![self.round(terms)];
        // When one of two open rounds was refused: the time before which no other is sent.
        let mut not_before = self.clock.now();
        loop {
            let pause = not_before.saturating_since(self.clock.now());
            let relief = self.until_relief(open.last()).max(pause);
            let answers = select_all(open.iter_mut().map(|round| &mut round.answer));
            let (answer, index) = tokio::select! {
                // After a long sleep of the process both may be ready: the answer counts.
                biased;
                (answer, index, _) = answers => (answer, index),
                () = tokio::time::sleep(relief) => {
                    if open.last().is_some_and(|newest| newest.sent.saturating_add(newest.wait) < self.end) {
                        open.drain(..open.len() - 1);
                        open.push(self.round(terms));
                    }
                    continue;
                }
            };
            let over = open.remove(index);
            let next = match answer {
                Ok(text) => return Ok(AcquireReply { text, sent: over.sent }),
                Err(why) => self.after(why, &over),
            };
            if open.is_empty() {
                self.prepare(next, terms).await?;
                open.push(self.round(terms));
                continue;
            }
            match next {
                Next::Round => {}
                Next::Waited(_) => self.pauses = Pauses::default(),
                // The other open round keeps the place in the queue.
                Next::Pause(_) | Next::FreshToken(_) | Next::End(_) => {
                    not_before = self.clock.now().saturating_add(self.pauses.next());
                }
            }
        }
    }

    /// Sends the next request.
    fn round(&self, terms: &LeaseTerms) -> Round {
        let (sent, wait) = (self.clock.now(), self.left().min(self.longest));
        let (client, body) = (self.client.clone(), terms.body(wait));
        let answer = async move { client.post("/acquire", &body, wait.saturating_add(ANSWER_TIMEOUT)).await };
        Round { sent, wait, answer: Box::pin(answer) }
    }

    /// How long from now the next request is sent beside the newest one.
    fn until_relief(&self, newest: Option<&Round>) -> Duration {
        let Some(Round { sent, wait, .. }) = newest else { return LONGEST_ROUND };
        let overlap = OVERLAP.min(*wait / OVERLAP_SHARE);
        sent.saturating_add(wait.saturating_sub(overlap)).saturating_since(self.clock.now()).max(SHORTEST_ROUND / 2)
    }

    /// What follows the answer to a round.
    fn after(&mut self, why: CallError, over: &Round) -> Next {
        let lasted = self.clock.now().saturating_since(over.sent);
        let problem = match why {
            CallError::Refused(problem) => problem,
            CallError::Distrusted(why) => return Next::End(Failure::Unavailable(why)),
            CallError::Unknown(why) => {
                if lasted >= SHORTEST_CUT_ROUND && lasted < over.wait {
                    // Perhaps a proxy cut it: shorter ones may pass.
                    self.longest = (lasted / 4 * 3).max(SHORTEST_CUT_ROUND);
                }
                return Next::Pause(Failure::Unavailable(why));
            }
        };
        if problem.is_about("wait_ms") && over.wait > SHORTEST_ROUND {
            // No route tells what the bound is: it is found by halving.
            self.longest = (over.wait / 2).max(SHORTEST_ROUND);
            return Next::Round;
        }
        let code = problem.code.clone();
        match (code.as_str(), Failure::from(problem), self.token) {
            ("timeout" | "held", why, _) if lasted < over.wait && lasted < TOO_EARLY => Next::Pause(why),
            ("timeout" | "held", why, _) => Next::Waited(why),
            ("queue_full", why, _) => Next::Pause(why),
            ("token_reused", why, TokenFrom::Us) => Next::FreshToken(why),
            (_, Failure::Lost(why), TokenFrom::Us) => {
                Next::FreshToken(Failure::NotAcquired(format!("it was granted, and ended unseen: {why}")))
            }
            (_, why @ Failure::Unavailable(_), _) => Next::Pause(why),
            (_, why, _) => Next::End(why),
        }
    }

    /// Does what comes before the next round, or ends the wait.
    async fn prepare(&mut self, next: Next, terms: &mut LeaseTerms) -> Result<(), Failure> {
        match next {
            Next::End(why) => Err(why),
            Next::Round => Ok(()),
            Next::Waited(_) if !self.left().is_zero() => {
                self.pauses = Pauses::default();
                Ok(())
            }
            Next::Waited(why) => Err(why),
            Next::Pause(why) => self.pause(why, terms).await,
            Next::FreshToken(why) => {
                self.replace_token(terms).await;
                self.pause(why, terms).await
            }
        }
    }

    async fn pause(&mut self, why: Failure, terms: &LeaseTerms) -> Result<(), Failure> {
        let left = self.left();
        if left.is_zero() {
            return Err(why);
        }
        self.progress.failing(&terms.key, &why);
        tokio::time::sleep(self.pauses.next().min(left)).await;
        if self.left().is_zero() { Err(why) } else { Ok(()) }
    }

    /// Gives back what may have been granted under the token, and takes another.
    ///
    /// # Errors
    /// The wait is over, or the token is the caller's.
    pub(crate) async fn give_back(&mut self, terms: &mut LeaseTerms) -> Result<(), Failure> {
        let why = || Failure::NotAcquired("its turn came and went while this process did not run".to_owned());
        if self.token == TokenFrom::Caller {
            give_back(self.client, terms).await;
            return Err(why());
        }
        self.replace_token(terms).await;
        if self.left().is_zero() { Err(why()) } else { Ok(()) }
    }

    async fn replace_token(&self, terms: &mut LeaseTerms) {
        give_back(self.client, terms).await;
        terms.token = Token::random();
    }
}

/// Gives back what may have been granted under a token. Whoever does not answer keeps the lock for its TTL at most.
pub(crate) async fn give_back(client: &Client, terms: &LeaseTerms) {
    let body = json!({ "key": terms.key, "token": terms.token.to_string() });
    let _ = client.post("/release", &body, RELEASE_TIMEOUT).await;
}

/// The pauses after failures in a row: each is longer than the one before, and random in part, so that clients do not
/// come back together.
#[derive(Default)]
pub(crate) struct Pauses {
    failures: u32,
}

impl Pauses {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut pauses = Pauses::default();
        let seen: Vec<Duration> = std::iter::repeat_with(|| pauses.next()).take(100).collect();
        assert!(seen[0] <= FIRST_PAUSE && seen[0] >= FIRST_PAUSE / 2);
        assert!(seen[6..].iter().all(|pause| (LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(pause)), "{seen:?}");
        assert!(seen[6..].iter().any(|pause| *pause != seen[99]), "clients do not come back together");
    }
}
