//! One script, sent to whoever has the lock, within the operation timeout: [`call`].
//!
//! A refusal that says "not here" is followed at once: the command was not carried out. Everything else is passed up;
//! nothing is sent twice that may have run (R5).

use std::sync::Arc;

use super::Inner;
use super::cleanup::{Guard, Order, PendingCleanup};
use super::conn::batch::Dispatch;
use super::conn::link::{Link, Phase};
use super::conn::wire::{Asking, Wire};
use super::fault::{Fault, Ran, Then};
use super::keys::KeyNames;
use super::replicas::{self, Confirmed};
use super::script::{Reply, Script, ScriptArgs};
use crate::clock::Moment;
use crate::store::StoreError;

/// So many times a command is passed on within a cluster.
const REDIRECTIONS: usize = 4;
/// What a script answers that came after its not-after.
pub(super) const TOO_LATE: i64 = 3;

/// Who is told before a command goes out (R5).
pub(in crate::store) trait SendObserver: Send {
    /// A command goes out, and has no effect after `not_after_us`.
    fn sending(&mut self, order: Order, not_after_us: i64);

    /// Whether replicas have to confirm it.
    fn confirm(&self) -> Confirm {
        Confirm::No
    }
}

/// Of an extend, whose outcome is undone by nothing but time.
pub(super) struct Confirmable;

impl SendObserver for Confirmable {
    fn sending(&mut self, _: Order, _: i64) {}

    fn confirm(&self) -> Confirm {
        Confirm::Yes
    }
}

impl SendObserver for Guard {
    fn sending(&mut self, order: Order, not_after_us: i64) {
        Guard::sending(self, order, not_after_us);
    }

    fn confirm(&self) -> Confirm {
        self.confirm
    }
}

impl SendObserver for PendingCleanup {
    fn sending(&mut self, order: Order, not_after_us: i64) {
        self.add(order, not_after_us);
    }
}

impl<T: SendObserver> SendObserver for &mut T {
    fn sending(&mut self, order: Order, not_after_us: i64) {
        T::sending(self, order, not_after_us);
    }

    fn confirm(&self) -> Confirm {
        T::confirm(self)
    }
}

/// Of a command that may run late without harm.
impl SendObserver for () {
    fn sending(&mut self, _: Order, _: i64) {}
}

/// An answer and where it came from.
pub(in crate::store) struct Answer {
    pub(in crate::store) reply: Reply,
    pub(in crate::store) wire: Arc<Wire>,
    pub(super) confirmed: Confirmed,
}

/// Whether replicas have to confirm what a script writes, where the store is set to ask them (R24).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Confirm {
    Yes,
    No,
}

/// Why there is none, and whether the command may have run.
#[derive(Clone, Debug)]
pub(in crate::store) struct Failure {
    pub(in crate::store) error: StoreError,
    pub(in crate::store) ran: Ran,
}

/// Runs `script` for a lock. `parts` are what it is told, given the not-after; they may be asked for again.
pub(in crate::store) async fn call(
    inner: &Inner,
    names: &KeyNames,
    script: &'static Script,
    begun: Moment,
    mut outbox: impl SendObserver,
    parts: impl Fn(i64) -> ScriptArgs + Send + Sync,
) -> Result<Answer, Failure> {
    if inner.runtime().is_none() {
        return Err(Failure { error: StoreError::NotRunning, ran: Ran::No });
    }
    let mut course = Progress { ran: Ran::No, link: None };
    let limit = inner.config.operation_timeout;
    let sending = send(inner, names, script, begun, &mut outbox, &parts, &mut course);
    match inner.ticks.within(begun, limit, sending).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure { error, ran: course.ran }),
        Err(error) => {
            // Perhaps another node has the slot by now.
            inner.servers.rediscover();
            Err(Failure { error: course.timed_out(error), ran: course.ran })
        }
    }
}

/// How far a call came, for one that was stopped on its way.
struct Progress {
    ran: Ran,
    link: Option<(Arc<Link>, Option<Arc<Wire>>)>,
}

impl Progress {
    /// A wire that does not answer is in doubt; without one, nothing was sent.
    fn timed_out(&self, error: StoreError) -> StoreError {
        match &self.link {
            Some((_, Some(wire))) => {
                wire.mark_broken();
                error
            }
            Some((link, None)) => match link.phase() {
                Phase::Down(why) => why,
                _ => error,
            },
            None => StoreError::Unreachable("nobody has said yet which node has the key".into()),
        }
    }
}

async fn send(
    inner: &Inner,
    names: &KeyNames,
    script: &'static Script,
    begun: Moment,
    outbox: &mut impl SendObserver,
    parts: &(impl Fn(i64) -> ScriptArgs + Send + Sync),
    course: &mut Progress,
) -> Result<Answer, StoreError> {
    let mut asking = Asking::No;
    let mut named: Option<Arc<Link>> = None;
    let mut clock_mended = false;
    let mut last = StoreError::Cluster("it passes the command round in circles".into());
    for _ in 0..REDIRECTIONS {
        let link = match named.take() {
            Some(link) => link,
            None => inner.servers.of(|| names.slot()).await?,
        };
        course.link = Some((Arc::clone(&link), None));
        let wire = link.wire().await?;
        course.link = Some((link, Some(Arc::clone(&wire))));
        let sent = inner.now();
        let not_after = wire.clock.at(begun, inner.config.operation_timeout);
        let confirmed_by = match outbox.confirm() {
            Confirm::Yes => inner.config.replicas,
            Confirm::No => 0,
        };
        let going = if confirmed_by > 0 { Dispatch::Alone } else { Dispatch::of(&wire, script, asking) };
        outbox.sending(order(confirmed_by, &going, wire.id), not_after);
        course.ran = Ran::Maybe;
        let parts = parts(not_after);
        let enough = |reply| (reply, Confirmed::Enough);
        let answered = match (going, confirmed_by) {
            (Dispatch::Alone, 1..) => replicas::run(inner, &wire, script, asking, parts).await,
            (Dispatch::Alone, 0) => wire.run_one(script, asking, parts).await.map(enough),
            (Dispatch::InSlot(slot), _) => slot.during(wire.run_one(script, asking, parts)).await.map(enough),
            (Dispatch::Queued(sender), _) => sender.join(parts).await.map(enough),
        };
        match answered {
            Ok((reply, confirmed)) => {
                wire.clock.learn(sent, inner.now(), reply.server_us());
                if reply.code() != TOO_LATE || clock_mended {
                    return Ok(Answer { reply, wire, confirmed });
                }
                // In time here, too late there: the server's clock was set. The reply has told us by how much.
                clock_mended = true;
                course.ran = Ran::No;
            }
            Err(fault) => {
                course.ran = fault.ran;
                (asking, named) = follow(inner, &wire, &fault)?;
                last = fault.error;
            }
        }
    }
    Err(last)
}

/// Whether what is sent over the wire later may overtake it. What replicas have to confirm goes by a connection of its
/// own, and is paid by time alone (R5, R24).
fn order(confirmed_by: u32, going: &Dispatch, wire: u64) -> Order {
    if confirmed_by > 0 { Order::Open } else { going.order(wire) }
}

/// Where to go next after a refusal, or the error that it means.
fn follow(inner: &Inner, wire: &Wire, fault: &Fault) -> Result<(Asking, Option<Arc<Link>>), StoreError> {
    match &fault.then {
        Then::Moved(address) => {
            inner.servers.rediscover();
            inner.servers.named(address).map(|link| (Asking::No, Some(link))).ok_or_else(|| fault.error.clone())
        }
        Then::Ask(address) => {
            inner.servers.named(address).map(|link| (Asking::Yes, Some(link))).ok_or_else(|| fault.error.clone())
        }
        Then::Reconnect => {
            wire.mark_broken();
            inner.servers.rediscover();
            Err(fault.error.clone())
        }
        Then::Rediscover => {
            if inner.servers.are_behind_sentinels() {
                // Sentinels are asked again before the next connection.
                wire.mark_broken();
            }
            inner.servers.rediscover();
            Err(fault.error.clone())
        }
        Then::Nothing | Then::SendBody => Err(fault.error.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_by_a_connection_of_its_own_is_paid_by_time_alone() {
        assert_eq!(order(0, &Dispatch::Alone, 7), Order::Kept(7));
        let mut debt = PendingCleanup::new(Moment::FAR);
        debt.add(order(1, &Dispatch::Alone, 7), 100);
        assert!(!debt.is_paid(7, 100), "it may run after a release over the wire");
        assert!(debt.is_paid(7, 101));
    }
}
