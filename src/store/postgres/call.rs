//! One statement, within the operation timeout: [`call`] for the functions of the table, [`rows`] for what only reads.
//!
//! Nothing is prepared on a connection, and nothing set: the next statement may go to another server process (a proxy that
//! pools transactions). Nothing is sent twice that may have run.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::fault::{Connection, Fault, Ran};
use super::inner::Inner;
use super::wires::{Route, Wire};
use crate::clock::Moment;
use crate::store::StoreError;

/// What a function answers that came after its not-after.
const TOO_LATE: i64 = 3;

/// The parameters of a statement, and their types: so the server need not be asked for them.
pub(super) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// What a function of the table answers: a code, the server's clock in microseconds, and what belongs to the code.
#[derive(Debug)]
pub(super) struct Reply {
    numbers: Vec<i64>,
    /// Over which connection it came.
    pub(super) wire: u64,
}

impl Reply {
    pub(super) fn code(&self) -> i64 {
        self.numbers[0]
    }

    pub(super) fn server_us(&self) -> i64 {
        self.numbers[1]
    }

    /// The numbers behind code and clock.
    pub(super) fn rest(&self) -> &[i64] {
        &self.numbers[2..]
    }
}

/// Why there is none, and whether the statement may have run.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) ran: Ran,
}

/// What is called before a statement goes out: with the connection, and the moment after which it has no effect.
pub(super) trait Sending: Send {
    fn sending(&mut self, wire: u64, not_after_us: i64);
}

/// For what may run late without harm.
impl Sending for () {
    fn sending(&mut self, _: u64, _: i64) {}
}

/// Calls a function. Its first parameter is the not-after, the others are given.
pub(super) async fn call(
    inner: &Inner,
    (begun, route): (Moment, Route),
    function: &str,
    params: Params<'_>,
    sending: &mut impl Sending,
) -> Result<Reply, Failure> {
    if !inner.is_running() {
        return Err(Failure { error: StoreError::NotRunning, ran: Ran::No });
    }
    let mut progress = Progress::default();
    let work = send(inner, (begun, route), function, params, sending, &mut progress);
    match within(inner, begun, work).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(fault)) => Err(Failure { error: fault.error, ran: fault.ran }),
        Err(error) => Err(Failure { error: progress.timed_out(inner, error), ran: progress.ran() }),
    }
}

/// Asks for rows.
pub(super) async fn rows(inner: &Inner, statement: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    if !inner.is_running() {
        return Err(StoreError::NotRunning);
    }
    let (begun, mut progress) = (inner.now(), Progress::default());
    let work = async {
        let wire = inner.wires.get(Route::Any).await;
        progress.wire = Some(Arc::clone(&wire));
        ask(&wire, statement, params).await
    };
    match within(inner, begun, work).await {
        Ok(answer) => answer.map_err(|fault| fault.error),
        Err(error) => Err(progress.timed_out(inner, error)),
    }
}

async fn within<T>(inner: &Inner, begun: Moment, work: impl Future<Output = T>) -> Result<T, StoreError> {
    let work = pin!(work);
    inner.ticks.within(begun, inner.settings.operation_timeout, work).await
}

/// How far a call came, should it be stopped on its way.
#[derive(Default)]
struct Progress {
    /// Set before anything is sent over it.
    wire: Option<Arc<Wire>>,
}

impl Progress {
    fn ran(&self) -> Ran {
        if self.wire.is_some() { Ran::Maybe } else { Ran::No }
    }

    fn timed_out(&self, inner: &Inner, error: StoreError) -> StoreError {
        match &self.wire {
            Some(wire) => {
                wire.doubt();
                error
            }
            None => inner.wires.why_none().unwrap_or(error),
        }
    }
}

async fn send(
    inner: &Inner,
    (begun, route): (Moment, Route),
    function: &str,
    params: Params<'_>,
    sending: &mut impl Sending,
    progress: &mut Progress,
) -> Result<Reply, Fault> {
    let mut clock_mended = false;
    loop {
        let wire = inner.wires.get(route).await;
        progress.wire = Some(Arc::clone(&wire));
        let (sent, not_after) = (inner.now(), wire.clock.at(begun, inner.settings.operation_timeout));
        sending.sending(wire.id, not_after);
        let mut all: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(params.len() + 1);
        all.push((&not_after, Type::INT8));
        all.extend(params.iter().map(|(value, of)| (*value, of.clone())));
        let answer = ask(&wire, function, &all).await?;
        let numbers = answer.first().and_then(|row| row.try_get::<_, Vec<i64>>(0).ok());
        let Some(numbers) = numbers.filter(|numbers| numbers.len() >= 2) else { return Err(Fault::nonsense()) };
        let reply = Reply { numbers, wire: wire.id };
        wire.clock.learn(sent, inner.now(), reply.server_us());
        if reply.code() != TOO_LATE || clock_mended {
            return Ok(reply);
        }
        // In time here, too late there: the server's clock was set, and the reply says by how much.
        clock_mended = true;
    }
}

/// Sends one statement, and waits for its answer.
async fn ask(wire: &Wire, statement: &str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
    let _one = UnderWay::begin(&wire.under_way);
    let answered = wire.client.query_typed(statement, params).await;
    answered.map_err(|error| {
        let fault = Fault::of(&error);
        if fault.connection == Connection::Useless {
            wire.close();
        }
        fault
    })
}

/// Counts a statement for as long as somebody waits for it.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
