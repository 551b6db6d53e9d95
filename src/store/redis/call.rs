//! One script, sent to the server that has the lock, within the operation timeout: [`call`].
//!
//! A refusal that says "not here" is followed at once: the command was not carried out. Everything else is passed up;
//! nothing is sent twice that may have run (R5).

use std::pin::pin;
use std::sync::Arc;

use super::conn::dispatch::Dispatch;
use super::conn::link::{Link, Phase};
use super::conn::wire::{Asking, Wire};
use super::fault::{Fault, Ran, Then};
use super::inner::Inner;
use super::keys::KeyNames;
use super::replicas::{self, Confirmed};
use super::script::{Reply, Script, ScriptArgs};
use crate::clock::Moment;
use crate::store::StoreError;
use crate::store::pending::{PendingCleanup, SendOrder};

/// So many times a command is passed on within a cluster.
const REDIRECTIONS: usize = 4;
/// What a script answers that came after its not-after.
pub(super) const TOO_LATE: i64 = 3;

/// What a call notifies before a command goes out (R5).
pub(in crate::store) trait SendObserver: Send {
    /// A command goes out, and has no effect after `not_after_us`.
    fn sending(&mut self, order: SendOrder, not_after_us: i64);

    /// Whether replicas have to confirm it.
    fn confirm(&self) -> Confirm {
        Confirm::No
    }
}

/// Observes an extend: replicas confirm it, and nothing but time undoes it.
pub(super) struct Confirmable;

impl SendObserver for Confirmable {
    fn sending(&mut self, _: SendOrder, _: i64) {}

    fn confirm(&self) -> Confirm {
        Confirm::Yes
    }
}

impl SendObserver for PendingCleanup {
    fn sending(&mut self, order: SendOrder, not_after_us: i64) {
        self.add(order, not_after_us);
    }
}

impl<T: SendObserver> SendObserver for &mut T {
    fn sending(&mut self, order: SendOrder, not_after_us: i64) {
        T::sending(self, order, not_after_us);
    }

    fn confirm(&self) -> Confirm {
        T::confirm(self)
    }
}

/// Observes a command that may run late without harm.
impl SendObserver for () {
    fn sending(&mut self, _: SendOrder, _: i64) {}
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

/// Runs `script` for a lock. `args` makes its keys and arguments from the not-after, and may be called again.
pub(in crate::store) async fn call(
    inner: &Inner,
    names: &KeyNames,
    script: &'static Script,
    begun: Moment,
    mut observer: impl SendObserver,
    args: impl Fn(i64) -> ScriptArgs + Send + Sync,
) -> Result<Answer, Failure> {
    if !inner.is_running() {
        return Err(Failure { error: StoreError::NotRunning, ran: Ran::No });
    }
    let mut progress = Progress { ran: Ran::No, link: None };
    let limit = inner.config.operation_timeout;
    let answered = {
        let sending = pin!(send(inner, names, script, begun, &mut observer, &args, &mut progress));
        inner.ticks.within(begun, limit, sending).await
    };
    match answered {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure { error, ran: progress.ran }),
        Err(error) => {
            // Perhaps another node has the slot by now.
            inner.servers.rediscover();
            Err(Failure { error: progress.timed_out(error), ran: progress.ran })
        }
    }
}

/// How far a call came, should it be stopped on its way. Set before each step: if it were set after, a command that was
/// sent would count as not sent.
struct Progress {
    ran: Ran,
    link: Option<(Arc<Link>, Option<Arc<Wire>>)>,
}

impl Progress {
    /// A wire that does not answer may be broken; without a wire, nothing was sent.
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

/// Sends the script to the server that has the lock, and follows redirections.
async fn send(
    inner: &Inner,
    names: &KeyNames,
    script: &'static Script,
    begun: Moment,
    observer: &mut impl SendObserver,
    make_args: &(impl Fn(i64) -> ScriptArgs + Send + Sync),
    progress: &mut Progress,
) -> Result<Answer, StoreError> {
    let mut asking = Asking::No;
    let mut named: Option<Arc<Link>> = None;
    let mut clock_mended = false;
    let mut last = StoreError::Cluster("it passes the command round in circles".into());
    for _ in 0..REDIRECTIONS {
        let link = match named.take().or_else(|| inner.servers.only()) {
            Some(link) => link,
            None => Box::pin(inner.servers.of(|| names.slot())).await?,
        };
        let wire = match link.wire_now() {
            Some(wire) => wire,
            None => {
                progress.link = Some((Arc::clone(&link), None));
                Box::pin(link.wire()).await?
            }
        };
        progress.link = Some((link, Some(Arc::clone(&wire))));
        let sent = inner.now();
        let not_after = wire.clock.at(begun, inner.config.operation_timeout);
        let confirmed_by = match observer.confirm() {
            Confirm::Yes => inner.config.replicas,
            Confirm::No => 0,
        };
        let dispatch = if confirmed_by > 0 { Dispatch::Alone } else { Dispatch::of(&wire, script, asking) };
        observer.sending(order(confirmed_by, &dispatch, wire.id), not_after);
        progress.ran = Ran::Maybe;
        let args = make_args(not_after);
        let answered = run(inner, &wire, script, asking, (dispatch, confirmed_by), args).await;
        match answered {
            Ok((reply, confirmed)) => {
                wire.clock.learn(sent, inner.now(), reply.server_us());
                if reply.code() != TOO_LATE || clock_mended {
                    return Ok(Answer { reply, wire, confirmed });
                }
                // In time here, too late there: the server's clock was set, and the reply says by how much.
                clock_mended = true;
                progress.ran = Ran::No;
            }
            Err(fault) => {
                progress.ran = fault.ran;
                (asking, named) = follow(inner, &wire, &fault)?;
                last = fault.error;
            }
        }
    }
    Err(last)
}

/// Runs the script once over a wire. `confirmed_by` replicas have to confirm it.
async fn run(
    inner: &Inner,
    wire: &Arc<Wire>,
    script: &'static Script,
    asking: Asking,
    (dispatch, confirmed_by): (Dispatch, u32),
    args: ScriptArgs,
) -> Result<(Reply, Confirmed), Fault> {
    // In boxes: the future of a call is moved several times before it is polled.
    let reply = match (dispatch, confirmed_by) {
        (Dispatch::Alone, 1..) => return Box::pin(replicas::run(inner, wire, script, asking, args)).await,
        (Dispatch::Alone, 0) => Box::pin(wire.run_one(script, asking, args)).await,
        (Dispatch::InSlot(slot), _) => slot.during(Box::pin(wire.run_one(script, asking, args))).await,
        (Dispatch::Queued(sender), _) => sender.join(args).await,
    };
    Ok((reply?, Confirmed::Enough))
}

/// Whether what is sent over the wire later may overtake it. What replicas have to confirm goes over a connection of its
/// own, and its clean-up is settled by time alone (R5, R24).
fn order(confirmed_by: u32, dispatch: &Dispatch, wire: u64) -> SendOrder {
    if confirmed_by > 0 { SendOrder::Open } else { dispatch.order(wire) }
}

/// Where to go next after a refusal, or the error that it means.
pub(super) fn follow(inner: &Inner, wire: &Wire, fault: &Fault) -> Result<(Asking, Option<Arc<Link>>), StoreError> {
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
    fn what_goes_over_a_connection_of_its_own_is_settled_by_time_alone() {
        assert_eq!(order(0, &Dispatch::Alone, 7), SendOrder::Kept(7));
        let mut pending = PendingCleanup::new(Moment::FAR);
        pending.add(order(1, &Dispatch::Alone, 7), 100);
        assert!(!pending.is_settled(7, 100), "it may run after a release over the wire");
        assert!(pending.is_settled(7, 101));
    }
}
