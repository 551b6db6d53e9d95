//! Two clocks: what time a server has ([`ServerClock`]), and when a call has waited enough ([`Ticks`]).
//!
//! A not-after (R5) is a moment of the server's clock. The offset is learned from every reply: the server read its
//! clock between our send and our receipt. Timeouts come from one ticking task for all calls: a caller polls from any
//! executor, and a timer of its own would need a runtime.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Moment};
use crate::store::StoreError;

/// A server's clock as seen from here, in microseconds.
#[derive(Debug)]
pub(in crate::store) struct ServerClock {
    offset: AtomicI64,
    /// A bound that the offset does not exceed, less the [`lead`] at the moment that it is known from.
    bound: AtomicI64,
}

impl ServerClock {
    /// A clock that showed `server_us` at some time after `sent`.
    pub(in crate::store) fn new(sent: Moment, server_us: i64) -> Self {
        let offset = server_us - micros(sent);
        Self { offset: AtomicI64::new(offset), bound: AtomicI64::new(offset - lead(sent)) }
    }

    /// Learns from a reply. The offset moves only as far as the reply proves it wrong.
    pub(in crate::store) fn learn(&self, sent: Moment, received: Moment, server_us: i64) {
        let (least, most) = (server_us - micros(received), server_us - micros(sent));
        let offset = self.offset.load(Ordering::Relaxed);
        let better = offset.clamp(least.min(most), most);
        if better != offset {
            self.offset.store(better, Ordering::Relaxed);
        }
        let (bound, closer) = (self.bound.load(Ordering::Relaxed), most - lead(sent));
        // The clock was set on since, if the bound is below what it must be.
        if closer < bound || bound + lead(received) < least {
            self.bound.store(closer, Ordering::Relaxed);
        }
    }

    /// What the server shows `span` after `moment`.
    pub(in crate::store) fn at(&self, moment: Moment, span: Duration) -> i64 {
        micros(moment.saturating_add(span)).saturating_add(self.offset.load(Ordering::Relaxed))
    }

    /// What the server showed at `moment`, at most: by that reply whose time on the way counts least, as long as the
    /// server's clock runs no more than 1% faster than ours.
    pub(in crate::store) fn latest_at(&self, moment: Moment) -> i64 {
        micros(moment).saturating_add(self.bound.load(Ordering::Relaxed)).saturating_add(lead(moment))
    }
}

/// How far the server's clock may run ahead of ours from the beginning of time until then.
fn lead(moment: Moment) -> i64 {
    micros(moment) / 100
}

fn micros(moment: Moment) -> i64 {
    // Nanoseconds since boot, divided by a thousand, fit for 292,000 years.
    i64::try_from(moment.as_nanos() / 1000).unwrap_or(i64::MAX)
}

/// So many ticks make one operation timeout.
const TICKS: u32 = 8;

/// The pulse by which calls notice that they waited enough. It rests when no call is under way.
#[derive(Debug)]
pub(in crate::store) struct Ticks {
    clock: Clock,
    period: Duration,
    pulse: watch::Receiver<()>,
    /// Taken by the task that ticks: when its runtime ends, the pulse ends for every call.
    beat: Mutex<Option<watch::Sender<()>>>,
    calls: AtomicUsize,
    resting: AtomicBool,
    wake: Notify,
}

/// The ticking end, while somebody ticks.
struct Beat<'a> {
    ticks: &'a Ticks,
    beat: Option<watch::Sender<()>>,
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.ticks.beat.lock() = self.beat.take();
        }
    }
}

impl Ticks {
    pub(in crate::store) fn new(operation_timeout: Duration) -> Arc<Self> {
        let (beat, pulse) = watch::channel(());
        Arc::new(Self {
            clock: Clock::system(),
            period: operation_timeout / TICKS,
            pulse,
            beat: Mutex::new(Some(beat)),
            calls: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    pub(in crate::store) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Ticks until it is dropped; calls are refused from then on.
    pub(in crate::store) async fn run(&self) {
        let Some(beat) = self.beat.lock().take() else { return };
        // After a panic it ticks on.
        let beat = Beat { ticks: self, beat: Some(beat) };
        let mut idle = 0;
        loop {
            if self.calls.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else if idle < TICKS {
                idle += 1;
            } else {
                // A call that begins now either sees the flag, or is seen here.
                self.resting.store(true, Ordering::SeqCst);
                if self.calls.load(Ordering::SeqCst) == 0 {
                    self.wake.notified().await;
                }
                self.resting.store(false, Ordering::SeqCst);
                idle = 0;
            }
            tokio::time::sleep(self.period).await;
            if let Some(beat) = &beat.beat {
                beat.send_replace(());
            }
        }
    }

    /// Waits for `work` until `limit` after `begun`, or up to a tick less.
    pub(in crate::store) async fn within<T>(
        &self,
        begun: Moment,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        let _call = Call::begin(self);
        let mut pulse = self.pulse.clone();
        let late = async {
            while self.now().saturating_since(begun).saturating_add(self.period) < limit {
                if pulse.changed().await.is_err() {
                    return StoreError::NotRunning;
                }
            }
            StoreError::Timeout
        };
        match select(pin!(work), pin!(late)).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((error, _)) => Err(error),
        }
    }
}

struct Call<'a>(&'a Ticks);

impl<'a> Call<'a> {
    fn begin(ticks: &'a Ticks) -> Self {
        ticks.calls.fetch_add(1, Ordering::SeqCst);
        if ticks.resting.load(Ordering::SeqCst) {
            ticks.wake.notify_one();
        }
        Self(ticks)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Moment {
        Moment::from_nanos(us * 1000)
    }

    #[test]
    fn the_offset_moves_only_as_far_as_a_reply_proves_it_wrong() {
        let clock = ServerClock::new(at(100), 1_150);
        assert_eq!(clock.at(at(200), Duration::ZERO), 1_250);
        // It was read somewhere in these 100 us: the offset lies in 950 to 1050, and 1050 is kept.
        clock.learn(at(200), at(300), 1_250);
        assert_eq!(clock.at(at(0), Duration::ZERO), 1_050);
        clock.learn(at(200), at(210), 1_220);
        assert_eq!(clock.at(at(0), Duration::ZERO), 1_020);
        // The server's clock was set on by a second.
        clock.learn(at(400), at(410), 1_001_410);
        assert_eq!(clock.at(at(0), Duration::from_micros(5)), 1_001_005);
    }

    #[test]
    fn a_bound_of_the_servers_clock_is_as_close_as_the_best_reply_and_grows_with_the_time_since() {
        let clock = ServerClock::new(at(10_000), 1_010_400);
        assert_eq!(clock.latest_at(at(10_000)), 1_010_400);
        // It was 1,000,000 ahead, and a reply that took 50 us says so better than one that took 400.
        clock.learn(at(11_000), at(11_050), 1_011_020);
        assert_eq!(clock.latest_at(at(11_000)), 1_011_020);
        clock.learn(at(12_000), at(20_000), 1_019_000);
        assert_eq!(clock.latest_at(at(12_000)), 1_012_030, "1% of a millisecond more");
        // It was set on, and then back.
        clock.learn(at(20_000), at(20_010), 3_020_005);
        assert_eq!(clock.latest_at(at(20_000)), 3_020_005);
        clock.learn(at(30_000), at(30_010), 1_030_005);
        assert_eq!(clock.latest_at(at(30_000)), 1_030_005);
    }

    #[actix_rt::test]
    async fn a_call_gives_up_within_its_limit_from_any_executor() {
        let ticks = Ticks::new(Duration::from_millis(40));
        let ticking = tokio::spawn({
            let ticks = Arc::clone(&ticks);
            async move { ticks.run().await }
        });
        let other = Arc::clone(&ticks);
        let elsewhere = std::thread::spawn(move || {
            let begun = other.now();
            futures::executor::block_on(other.within(begun, Duration::from_millis(40), std::future::pending::<()>()))
        });
        while !elsewhere.is_finished() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(elsewhere.join().unwrap(), Err(StoreError::Timeout));
        ticking.abort();
    }
}
