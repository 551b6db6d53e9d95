//! One command for some locks, to all nodes at once, and what each of them says: [`Request`], [`broadcast`].
//!
//! The nodes are told the same but for the last argument, the not-after by each one's clock (R5). Whoever is asked for a
//! lock is decided as soon as the answers allow; the flight goes on until every node has answered, or the time for it
//! is over, and hears what the slower ones have done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use parking_lot::Mutex;
use redis::Value;

use super::fanout::Enough;
use super::in_flight::Shared;
use super::node::Node;
use super::{Inner, Lock};
use crate::clock::Moment;
use crate::store::StoreError;
use crate::store::batching::{BatchSender, Slot};
use crate::store::redis::call::Failure;
use crate::store::redis::cleanup::take_back;
use crate::store::redis::conn::link::Phase;
use crate::store::redis::fault::{Fault, Ran, Then, protocol_error};
use crate::store::redis::pending::{PendingCleanup, SendOrder};
use crate::store::redis::script::{Form, Script, ScriptArgs};

/// A round that is not decided for so long holds nobody up any more: the nodes are far away, or do not answer.
const HOLD: Duration = Duration::from_millis(5);

/// What all nodes are asked.
pub(super) struct Request {
    pub(super) script: &'static Script,
    /// All that the script is told but the not-after.
    pub(super) parts: ScriptArgs,
    /// From here the not-after counts.
    pub(super) begun: Moment,
    pub(super) kind: Kind,
    /// Those who have their answers by now, where nodes had not answered.
    decided: Mutex<Vec<Arc<Shared>>>,
    sent: Mutex<Vec<Option<Sent>>>,
}

/// What there is to heed before it is sent.
pub(super) enum Kind {
    /// Nodes are asked that may vote. Once anybody does not want what he asked for any more, nothing goes out: his
    /// release would be overtaken.
    Acquire {
        /// An earlier try of the only lock, which must be out of the way first (S5).
        after: Option<(Arc<Lock>, Option<Arc<Shared>>)>,
    },
    /// What is still under way for the tokens hears of it.
    Release(Vec<Arc<Shared>>),
}

/// What went out to a node.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) wire: u64,
    not_after_us: i64,
    pub(super) when: When,
}

/// Whether somebody had his answer when it went out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Undecided,
    Decided,
}

impl Request {
    pub(super) fn new(inner: &Inner, script: &'static Script, parts: ScriptArgs, begun: Moment, kind: Kind) -> Self {
        let sent = Mutex::new(vec![None; inner.nodes.len()]);
        Self { script, parts, begun, kind, decided: Mutex::default(), sent }
    }

    /// What went out to the node so far.
    pub(super) fn sent_to(&self, node: usize) -> Option<Sent> {
        self.sent.lock()[node]
    }

    /// Somebody hears his answer now, and some nodes have not answered.
    pub(super) fn decide(&self, in_flight: &Arc<Shared>) {
        self.decided.lock().push(Arc::clone(in_flight));
    }

    /// Takes back at a node what the request may have left there, or may leave there yet, until `over` at most.
    pub(super) fn take_back(&self, node: &Node, lock: &Lock, over: Moment) {
        let mut debt = PendingCleanup::new(over);
        if let Some(sent) = self.sent_to(node.index) {
            debt.add(SendOrder::Kept(sent.wire), sent.not_after_us);
        }
        take_back(&node.redis, lock.names.clone(), lock.token, debt);
    }

    /// Heeds what there is to heed, and remembers what is sent.
    fn sending(&self, node: usize, wire: u64, not_after_us: i64) -> Result<(), Failure> {
        let decided = self.decided.lock();
        match &self.kind {
            Kind::Acquire { .. } if !decided.iter().all(|in_flight| in_flight.is_wanted()) => {
                return Err(Failure { error: StoreError::Timeout, ran: Ran::No });
            }
            Kind::Acquire { .. } => {}
            Kind::Release(in_flight) => in_flight.iter().for_each(|shared| shared.releasing(node, wire)),
        }
        let when = if decided.is_empty() { When::Undecided } else { When::Decided };
        self.sent.lock()[node] = Some(Sent { wire, not_after_us, when });
        Ok(())
    }
}

/// What a node said.
pub(super) struct Text {
    body: Vec<u8>,
    from: usize,
    failed: Option<StoreError>,
}

/// What it said of one lock: a code, and what the code brings along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    numbers: [i64; 4],
    len: usize,
}

impl Word {
    fn read(text: &[u8]) -> Option<Self> {
        let mut word = Self { numbers: [0; 4], len: 0 };
        for number in text.split(|byte| *byte == b':') {
            *word.numbers.get_mut(word.len)? = std::str::from_utf8(number).ok()?.parse().ok()?;
            word.len += 1;
        }
        Some(word)
    }

    /// The code, and the numbers behind it.
    pub(super) fn parts(&self) -> (i64, &[i64]) {
        (self.numbers[0], &self.numbers[1..self.len])
    }
}

impl Text {
    /// What it said, and its clock in microseconds.
    fn read(value: Value) -> Result<(Self, i64), Fault> {
        let (body, failed) = match value {
            Value::BulkString(body) => (body, None),
            Value::Array(mut both) => match (both.pop(), both.pop(), both.pop()) {
                (Some(Value::ServerError(error)), Some(Value::BulkString(body)), None) => {
                    (body, Some(Fault::of(&error.into()).error))
                }
                _ => return Err(Fault::protocol_error()),
            },
            _ => return Err(Fault::protocol_error()),
        };
        let from = body.iter().position(|byte| *byte == b' ').ok_or_else(Fault::protocol_error)?;
        let now_us = std::str::from_utf8(&body[..from]).ok().and_then(|text| text.parse().ok());
        Ok((Self { from: from + 1, body, failed }, now_us.ok_or_else(Fault::protocol_error)?))
    }

    /// What it said of each lock, in the order of the request; nonsense of all further ones.
    fn words(&self) -> impl Iterator<Item = Result<Word, Failure>> {
        let words = self.body[self.from..].split(|byte| *byte == b' ').map(Word::read);
        let protocol_error = || Failure { error: protocol_error("not what the script answers"), ran: Ran::Maybe };
        words.chain(std::iter::repeat(None)).map(move |word| match (word, &self.failed) {
            (Some(Word { numbers: [9, ..], .. }), Some(error)) => Err(Failure { error: error.clone(), ran: Ran::No }),
            (Some(word), _) => Ok(word),
            (None, _) => Err(protocol_error()),
        })
    }

    /// Whether it came too late, all of it.
    fn is_too_late(&self) -> bool {
        self.body[self.from..].starts_with(b"3")
    }
}

/// What a node said, or why it did not.
pub(super) type Heard = Result<Text, Failure>;

/// What it said of each lock, in the order of the request, or of each the same: why it did not.
pub(super) fn words(heard: &Heard) -> impl Iterator<Item = Result<Word, Failure>> {
    let (mut said, failed) = (heard.as_ref().ok().map(Text::words), heard.as_ref().err());
    std::iter::from_fn(move || match &mut said {
        Some(words) => words.next(),
        None => failed.cloned().map(Err),
    })
}

async fn ask(inner: Arc<Inner>, node: Arc<Node>, request: Arc<Request>) -> Heard {
    let unsent = |error| Failure { error, ran: Ran::No };
    let wire = match &request.kind {
        Kind::Acquire { after } => {
            let wire = node.wire(&inner, request.begun).await.map_err(unsent)?;
            if let Some((lock, in_flight)) = after {
                if let Some(in_flight) = in_flight {
                    in_flight.until_answered(node.index).await;
                }
                let limit = node.redis.config.operation_timeout;
                let waiting = node.redis.cleaning.wait_for(&lock.names, lock.token);
                let waited = node.redis.ticks.within(request.begun, limit, waiting).await;
                waited.map_err(|_| unsent(StoreError::CleaningUp))?;
            }
            wire
        }
        Kind::Release(_) => match (node.failure(), node.redis.link()) {
            (Some(why), _) => return Err(unsent(why)),
            (None, Some(link)) => link.wire().await.map_err(unsent)?,
            (None, None) => return Err(unsent(StoreError::NotRunning)),
        },
    };
    let (mut form, mut clock_mended) = (Form::Hash, false);
    loop {
        let sent = inner.now();
        let not_after_us = wire.clock.at(request.begun, node.redis.config.operation_timeout);
        request.sending(node.index, wire.id, not_after_us)?;
        let last = ScriptArgs::of([]).arg(not_after_us);
        let answer = wire.send(request.script, form, [&request.parts, &last].into_iter()).await;
        match answer.and_then(Text::read) {
            Ok((text, now_us)) => {
                wire.clock.learn(sent, inner.now(), now_us);
                if !text.is_too_late() || clock_mended {
                    return Ok(text);
                }
                // In time here, too late there: the server's clock was set. The answer has told us by how much.
                clock_mended = true;
            }
            // R7: it was not carried out.
            Err(Fault { then: Then::SendBody, .. }) if form == Form::Hash => form = Form::Body,
            Err(fault) => {
                if fault.then == Then::Reconnect {
                    wire.mark_broken();
                }
                return Err(Failure { error: fault.error, ran: fault.ran });
            }
        }
    }
}

/// Those who go out together.
pub(super) trait RoundHandler: Send + 'static {
    /// Hears one node; each is heard once. Whether everybody has his answer.
    fn hear(&mut self, node: usize, heard: Heard) -> Enough;

    /// Nobody else is waited for: everybody is to have his answer.
    fn settle(&mut self);
}

/// Asks all nodes, and lets the load hear what they say.
pub(super) async fn broadcast<S: BatchSender>(
    inner: Arc<Inner>,
    request: Arc<Request>,
    mut load: impl RoundHandler,
    slot: Option<Slot<S>>,
) {
    let begun = inner.now();
    let asks = inner.nodes.iter().map(|node| ask(Arc::clone(&inner), Arc::clone(node), Arc::clone(&request)));
    let mut fan = Fan::of(asks);
    let (mut slot, mut enough) = (slot, Enough::No);
    let deciding = async {
        if tokio::time::timeout(HOLD, hear(&mut fan, &mut load, &mut enough)).await.is_err() {
            slot = None;
            hear(&mut fan, &mut load, &mut enough).await;
        }
    };
    // Whoever has not answered by then counts as unknown.
    let _ = inner.ticks.within(begun, inner.config.node_timeout, deciding).await;
    if enough == Enough::No {
        load.settle();
    }
    drop(slot);
    let rest = async {
        while let Some((node, heard)) = fan.next().await {
            load.hear(node, heard);
        }
    };
    if let Err(late) = inner.ticks.within(begun, inner.config.node_timeout * 2, rest).await {
        for node in fan.running() {
            let sent = request.sent_to(node);
            mark_broken(&inner.nodes[node], sent);
            let ran = if sent.is_some() { Ran::Maybe } else { Ran::No };
            load.hear(node, Err(Failure { error: late.clone(), ran }));
        }
    }
}

/// Hears nodes until everybody has his answer, or there are no more.
async fn hear<F: Future<Output = Heard>>(fan: &mut Fan<F>, load: &mut impl RoundHandler, enough: &mut Enough) {
    while *enough == Enough::No
        && let Some((node, heard)) = fan.next().await
    {
        *enough = load.hear(node, heard);
    }
}

/// A wire that does not answer is in doubt.
fn mark_broken(node: &Node, sent: Option<Sent>) {
    if let (Some(link), Some(sent)) = (node.redis.link(), sent)
        && let Phase::Up(wire) = link.phase()
        && wire.id == sent.wire
    {
        wire.mark_broken();
    }
}

/// One future a node. All are polled before any is heard: whatever can be sent at once has been sent by then.
struct Fan<F: Future> {
    running: Vec<Option<Pin<Box<F>>>>,
    done: Vec<(usize, F::Output)>,
}

impl<F: Future> Fan<F> {
    fn of(futures: impl ExactSizeIterator<Item = F>) -> Self {
        let done = Vec::with_capacity(futures.len());
        Self { running: futures.map(|future| Some(Box::pin(future))).collect(), done }
    }

    /// The next one to answer.
    async fn next(&mut self) -> Option<(usize, F::Output)> {
        poll_fn(|context| {
            for (at, place) in self.running.iter_mut().enumerate() {
                if let Some(future) = place
                    && let Poll::Ready(output) = future.as_mut().poll(context)
                {
                    *place = None;
                    self.done.push((at, output));
                }
            }
            match self.done.pop() {
                Some(done) => Poll::Ready(Some(done)),
                None if self.running.iter().all(Option::is_none) => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Those that have not answered.
    fn running(&self) -> Vec<usize> {
        (0..self.running.len()).filter(|at| self.running[*at].is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<Result<(i64, Vec<i64>), ()>> {
        let (text, now_us) = Text::read(Value::BulkString(text.as_bytes().to_vec())).unwrap();
        assert_eq!(now_us, 17);
        let words = text.words().take(3);
        words.map(|word| word.map(|word| (word.parts().0, word.parts().1.to_vec())).map_err(drop)).collect()
    }

    #[test]
    fn a_text_says_something_of_each_lock_and_nothing_where_it_makes_no_sense() {
        assert_eq!(
            said("17 1 2:0:-1 4:9007199254740991"),
            [Ok((1, vec![])), Ok((2, vec![0, -1])), Ok((4, vec![9_007_199_254_740_991])),]
        );
        assert_eq!(said("17 1"), [Ok((1, vec![])), Err(()), Err(())], "fewer than were asked about");
        assert_eq!(said("17 1:2:3:4:5 x 1:"), [Err(()), Err(()), Err(())]);
        for protocol_error in [Value::Nil, Value::BulkString(b"17".to_vec()), Value::BulkString(b"x 1".to_vec())] {
            assert!(Text::read(protocol_error).is_err());
        }
    }
}
