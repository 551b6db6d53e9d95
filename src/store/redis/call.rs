//! One call of a script: sent, judged, learned from.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use redis::Cmd;

use super::Shared;
use super::fault::{Fault, Ran, Then, odd};
use super::line::{self, Link};
use super::script::{Form, Reply, Script, read};
use crate::clock::Moment;
use crate::store::StoreError;

/// What every script answers when it was run after its time (R5).
const TOO_LATE: i64 = 3;

impl Shared {
    /// Runs a script within the operation timeout from `begun`. `fill` adds keys and arguments; it is given the moment,
    /// in the server's microseconds, after which this sending is not to be carried out any more.
    pub(super) async fn call(
        &self,
        script: &Script,
        begun: Moment,
        mut fill: impl FnMut(&mut Cmd, i64),
    ) -> Result<Reply, Fault> {
        let used = Mutex::new(None);
        let answer =
            self.ticks.within(begun, self.settings.operation_timeout, self.send(script, &mut fill, &used)).await;
        let link = used.into_inner();
        let fault = match answer {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(fault)) => fault,
            Err(error) => {
                let ran = if link.is_some() { Ran::Maybe } else { Ran::No };
                Fault { error, ran, then: Then::Nothing }
            }
        };
        if let Some(link) = link {
            self.blame(&link, &fault);
        }
        Err(fault)
    }

    fn blame(&self, link: &Link, fault: &Fault) {
        if fault.then == Then::Reconnect {
            self.line.broken(link);
        } else if fault.error == StoreError::Timeout {
            self.line.suspect(link);
        }
    }

    async fn send(
        &self,
        script: &Script,
        fill: &mut impl FnMut(&mut Cmd, i64),
        used: &Mutex<Option<Arc<Link>>>,
    ) -> Result<Reply, Fault> {
        let link = self.line.link().await.map_err(Fault::unsent)?;
        *used.lock() = Some(Arc::clone(&link));
        let mut connection = link.connection.clone();
        let (mut form, mut late) = (Form::Hash, 0);
        loop {
            let sent = self.ticks.now();
            let mut command = script.command(form);
            fill(&mut command, link.clock.at(sent, self.settings.operation_timeout));
            match read(connection.send_packed_command(&command).await) {
                Ok(value) => {
                    let reply = Reply::read(&value).ok_or_else(odd)?;
                    link.clock.learn(sent, self.ticks.now(), reply.server_us());
                    if reply.code() != TOO_LATE {
                        return Ok(reply);
                    }
                    // The server's clock was set on, and is now known.
                    late += 1;
                    if late > 1 {
                        return Err(Fault { error: StoreError::Timeout, ran: Ran::No, then: Then::Nothing });
                    }
                }
                Err(error) => {
                    let fault = Fault::of(&error);
                    if fault.then != Then::SendBody || form == Form::Body {
                        return Err(fault);
                    }
                    form = Form::Body;
                }
            }
        }
    }

    /// Whether the server answers, within the operation timeout.
    pub(super) async fn ping(&self, begun: Moment) -> Result<(), StoreError> {
        let used = Mutex::new(None);
        let work = async {
            let link = self.line.link().await.map_err(Fault::unsent)?;
            *used.lock() = Some(Arc::clone(&link));
            line::ping(&link).await
        };
        let answer = self.ticks.within(begun, self.settings.operation_timeout, work).await;
        let fault = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => fault,
            Err(error) => Fault::unsent(error),
        };
        if let Some(link) = used.into_inner() {
            self.blame(&link, &fault);
        }
        Err(fault.error)
    }

    /// The highest fence that this process has seen (R12).
    pub(super) fn highest_fence(&self) -> u64 {
        self.highest_fence.load(Ordering::Relaxed)
    }

    /// A fence as a script answered it.
    pub(super) fn saw_fence(&self, fence: i64) -> Option<u64> {
        let fence = u64::try_from(fence).ok().filter(|fence| *fence > 0)?;
        self.highest_fence.fetch_max(fence, Ordering::Relaxed);
        Some(fence)
    }
}
