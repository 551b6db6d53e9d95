//! A TCP proxy in front of a server that delays, holds, swallows and resets on order.
//!
//! It knows where RESP frames end, so it can lose exactly the reply of one command: the command reaches the server.
//! What was swallowed is gone, so a connection that lost bytes is reset when the proxy heals. Bytes that a client sent
//! before it hung up still reach the server when their delay is over, as they do in a real network.
//! If the server cannot be reached, a new connection is accepted and reset at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::port::Port;
use super::resp::{self, Front};
use super::until;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// What becomes of a connection after one of its replies was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is reset.
    Reset,
    /// It stays open, and no later reply comes through either; commands still reach the server.
    Silence,
    /// It goes on as if nothing had been. No TCP does this: for clients that have one command in flight.
    GoOn,
    /// Its client is hung up on at once; the command itself reaches the server so much later.
    HangUp(Duration),
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Pass,
    Delay(Duration),
    Hold,
    Swallow,
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    to_server: Flow,
    to_client: Flow,
    accepts: bool,
    /// Connections made before this many resets are to be reset.
    resets: u64,
    heals: u64,
}

impl Orders {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

#[derive(Debug)]
struct Trap {
    words: String,
    left: u64,
    then: Then,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    open: AtomicU64,
    listening: AtomicU64,
    commands: AtomicU64,
    lost_replies: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    orders: watch::Sender<Orders>,
    traps: Mutex<Vec<Trap>>,
    counters: Counters,
}

/// A running proxy; ends with this value, and its connections with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: Port,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Starts a proxy on a free port that forwards to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let orders = Orders { to_server: Flow::Pass, to_client: Flow::Pass, accepts: true, resets: 0, heals: 0 };
        let shared = Arc::new(Shared {
            orders: watch::Sender::new(orders),
            traps: Mutex::default(),
            counters: Counters::default(),
        });
        let port = Port::choose();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(listen(Arc::clone(&shared), port.number, target));
        let proxy = Self { shared, port, runtime: Some(runtime) };
        proxy.until_listening(1);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Each byte that comes from now on arrives so much later.
    pub(crate) fn delay(&self, direction: Direction, by: Duration) {
        self.flow(direction, Flow::Delay(by));
    }

    /// Keeps what comes, and delivers it at the next order for this direction or when healed.
    pub(crate) fn hold(&self, direction: Direction) {
        self.flow(direction, Flow::Hold);
    }

    /// Swallows what comes.
    pub(crate) fn black_hole(&self, direction: Direction) {
        self.flow(direction, Flow::Swallow);
    }

    fn flow(&self, direction: Direction, flow: Flow) {
        self.shared.orders.send_modify(|orders| match direction {
            Direction::ToServer => orders.to_server = flow,
            Direction::ToClient => orders.to_client = flow,
        });
    }

    /// Lets the next command that holds `words` reach the server, and loses its reply.
    pub(crate) fn lose_reply_of(&self, words: &str, then: Then) {
        self.trap(words, 1, then);
    }

    /// Lets the next `n` commands reach the server, and loses their replies.
    pub(crate) fn lose_replies(&self, n: u64, then: Then) {
        self.trap("", n, then);
    }

    fn trap(&self, words: &str, left: u64, then: Then) {
        self.shared.traps.lock().unwrap().push(Trap { words: words.to_owned(), left, then });
    }

    /// Resets all connections and lets new ones in.
    pub(crate) fn reset(&self) {
        let before = self.connections();
        self.shared.orders.send_modify(|orders| orders.resets += 1);
        let counters = &self.shared.counters;
        // Those that were there are gone when no more are open than have come since.
        until("the end of the connections", || {
            counters.open.load(Ordering::SeqCst) <= counters.connections.load(Ordering::SeqCst) - before
        });
    }

    /// Resets all connections and refuses new ones until healed.
    pub(crate) fn cut(&self) {
        self.shared.orders.send_modify(|orders| orders.accepts = false);
        self.until_listening(0);
        self.shared.orders.send_modify(|orders| orders.resets += 1);
        until("the end of the connections", || self.open() == 0);
    }

    /// Forwards again. Connections that lost bytes are reset; what was held is delivered.
    pub(crate) fn heal(&self) {
        self.shared.traps.lock().unwrap().clear();
        self.shared.orders.send_modify(|orders| {
            *orders = Orders {
                to_server: Flow::Pass,
                to_client: Flow::Pass,
                accepts: true,
                heals: orders.heals + 1,
                ..*orders
            };
        });
        self.until_listening(1);
    }

    fn until_listening(&self, listeners: u64) {
        until("the proxy's listener", || self.shared.counters.listening.load(Ordering::SeqCst) == listeners);
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.counters.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u64 {
        self.shared.counters.open.load(Ordering::SeqCst)
    }

    /// Commands sent on towards the server so far.
    pub(crate) fn commands(&self) -> u64 {
        self.shared.counters.commands.load(Ordering::SeqCst)
    }

    /// Replies lost by a trap so far.
    pub(crate) fn lost_replies(&self) -> u64 {
        self.shared.counters.lost_replies.load(Ordering::SeqCst)
    }

    /// Bytes delivered so far.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes(direction).load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // An ordinary drop would block, which a test inside a runtime may not.
        self.runtime.take().expect("dropped once").shutdown_background();
    }
}

impl Shared {
    fn bytes(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.counters.to_server,
            Direction::ToClient => &self.counters.to_client,
        }
    }

    /// Takes the first armed trap that this command springs.
    fn sprung(&self, command: &[u8]) -> Option<Then> {
        let mut traps = self.traps.lock().unwrap();
        let holds = |words: &str| words.is_empty() || command.windows(words.len()).any(|at| at == words.as_bytes());
        let trap = traps.iter_mut().find(|trap| trap.left > 0 && holds(&trap.words))?;
        trap.left -= 1;
        Some(trap.then)
    }
}

async fn listen(shared: Arc<Shared>, port: u16, target: SocketAddr) {
    let mut orders = shared.orders.subscribe();
    loop {
        if orders.wait_for(|orders| orders.accepts).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is reserved");
        shared.counters.listening.store(1, Ordering::SeqCst);
        loop {
            let closing = orders.wait_for(|orders| !orders.accepts);
            let accepted = tokio::select! { biased; _ = closing => break, accepted = listener.accept() => accepted };
            let Ok((client, _)) = accepted else { continue };
            shared.counters.connections.fetch_add(1, Ordering::SeqCst);
            shared.counters.open.fetch_add(1, Ordering::SeqCst);
            // Before the task runs: a reset from now on is meant for this connection too.
            let orders = shared.orders.subscribe();
            tokio::spawn(connect(Arc::clone(&shared), orders, client, target));
        }
        drop(listener);
        shared.counters.listening.store(0, Ordering::SeqCst);
    }
}

async fn connect(shared: Arc<Shared>, orders: watch::Receiver<Orders>, mut client: TcpStream, target: SocketAddr) {
    let mut server = TcpStream::connect(target).await;
    if let Ok(server) = &mut server
        && let End::Reset = relay(&shared, orders, &mut client, server).await
    {
        reset(server);
        reset(&client);
    } else if server.is_err() {
        reset(&client);
    }
    drop((client, server));
    shared.counters.open.fetch_sub(1, Ordering::SeqCst);
}

/// Makes the socket's close a reset.
fn reset(socket: &TcpStream) {
    // A socket that is already closed by its peer may refuse.
    socket.set_zero_linger().ok();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// What the two directions of one connection know of each other.
#[derive(Debug, Default)]
struct Link {
    asked: u64,
    answered: u64,
    /// Numbers of the replies to lose.
    to_lose: VecDeque<(u64, Then)>,
    silent: bool,
    /// Bytes were swallowed.
    torn: bool,
    resets: bool,
    hung_up: bool,
}

async fn relay(
    shared: &Shared,
    orders: watch::Receiver<Orders>,
    client: &mut TcpStream,
    server: &mut TcpStream,
) -> End {
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok();
    }
    let link = Mutex::new(Link::default());
    let (wake, mut woken) = mpsc::unbounded_channel();
    let (from_client, to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (up, down) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let hung_up = Notify::new();
    let end = |direction, sender| Way { shared, link: &link, direction, sender, wake: wake.clone(), hung_up: &hung_up };
    let pumps = async {
        tokio::join!(
            end(Direction::ToServer, up.0).read(from_client),
            end(Direction::ToClient, down.0).read(from_server),
            write(shared, Direction::ToServer, up.1, &mut to_server),
            write_until(&hung_up, shared, down.1, to_client),
        )
    };
    let mut seen = orders;
    let first = *seen.borrow();
    let ordered = async {
        loop {
            let now = *seen.borrow_and_update();
            if now.resets > first.resets || (now.heals > first.heals && link.lock().unwrap().torn) {
                return;
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                _ = woken.recv() => if link.lock().unwrap().resets { return },
            }
        }
    };
    tokio::select! { biased; () = ordered => End::Reset, _ = pumps => End::Closed }
}

/// Bytes on their way, and when they may arrive.
type Parcel = (Instant, Vec<u8>);

/// The reading end of one direction.
struct Way<'a> {
    shared: &'a Shared,
    link: &'a Mutex<Link>,
    direction: Direction,
    sender: mpsc::UnboundedSender<Parcel>,
    wake: mpsc::UnboundedSender<()>,
    hung_up: &'a Notify,
}

impl Way<'_> {
    /// Cuts what comes into frames until the sender hangs up.
    async fn read(self, mut from: ReadHalf<'_>) {
        let mut bytes = Vec::new();
        let mut foreign = false;
        loop {
            match from.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            while !foreign {
                match self.front(&bytes) {
                    Front::Frame(length) => {
                        let rest = bytes.split_off(length);
                        self.frame(std::mem::replace(&mut bytes, rest));
                        if self.direction == Direction::ToServer && self.link.lock().unwrap().hung_up {
                            return;
                        }
                    }
                    Front::Part => break,
                    Front::Foreign => foreign = true,
                }
            }
            if foreign {
                self.pass(std::mem::take(&mut bytes));
            }
        }
        self.pass(bytes);
    }

    /// No answer of Redis begins with a letter, as those of other servers do.
    fn front(&self, bytes: &[u8]) -> Front {
        let is_answer = self.direction == Direction::ToClient;
        match bytes.first() {
            Some(first) if is_answer && first.is_ascii_alphabetic() => Front::Foreign,
            _ => resp::front(bytes),
        }
    }

    fn frame(&self, frame: Vec<u8>) {
        let swallowed = self.shared.orders.borrow().flow(self.direction) == Flow::Swallow;
        let late = match self.direction {
            Direction::ToServer if !swallowed => self.command(&frame),
            Direction::ToClient if !resp::is_push(&frame) && self.loses_reply() => return,
            Direction::ToServer | Direction::ToClient => Duration::ZERO,
        };
        self.pass_late(frame, late);
    }

    /// Counts a command, and springs a trap for its reply; answers how much later it arrives.
    fn command(&self, frame: &[u8]) -> Duration {
        let mut link = self.link.lock().unwrap();
        let mut late = Duration::ZERO;
        match self.shared.sprung(frame) {
            Some(Then::HangUp(by)) => {
                (late, link.hung_up) = (by, true);
                self.hung_up.notify_one();
            }
            Some(then) => {
                let number = link.asked;
                link.to_lose.push_back((number, then));
            }
            None => {}
        }
        link.asked += 1;
        self.shared.counters.commands.fetch_add(1, Ordering::SeqCst);
        late
    }

    fn loses_reply(&self) -> bool {
        let mut link = self.link.lock().unwrap();
        let number = link.answered;
        link.answered += 1;
        if link.to_lose.front().is_none_or(|(lost, _)| *lost != number) {
            return false;
        }
        let Some((_, then)) = link.to_lose.pop_front() else { return false };
        match then {
            Then::Reset => link.resets = true,
            Then::Silence => (link.silent, link.torn) = (true, true),
            // What is late loses no reply: nobody is there to hear it.
            Then::GoOn | Then::HangUp(_) => {}
        }
        drop(link);
        self.shared.counters.lost_replies.fetch_add(1, Ordering::SeqCst);
        self.wake.send(()).ok();
        true
    }

    fn pass(&self, bytes: Vec<u8>) {
        self.pass_late(bytes, Duration::ZERO);
    }

    fn pass_late(&self, bytes: Vec<u8>, late: Duration) {
        let mut link = self.link.lock().unwrap();
        let due = match self.shared.orders.borrow().flow(self.direction) {
            Flow::Swallow => {
                link.torn |= !bytes.is_empty();
                return;
            }
            _ if link.resets || (self.direction == Direction::ToClient && link.silent) => return,
            Flow::Pass | Flow::Hold => Instant::now() + late,
            Flow::Delay(by) => Instant::now() + by + late,
        };
        // The writing end is gone if its peer is: then nobody misses these bytes.
        self.sender.send((due, bytes)).ok();
    }
}

/// Delivers to a client until it is hung up on.
async fn write_until(
    hung_up: &Notify,
    shared: &Shared,
    parcels: mpsc::UnboundedReceiver<Parcel>,
    mut to: WriteHalf<'_>,
) {
    let writing = write(shared, Direction::ToClient, parcels, &mut to);
    tokio::select! {
        () = hung_up.notified() => {}
        () = writing => return,
    }
    to.shutdown().await.ok();
}

/// Delivers parcels in order, each when it is due and not held, then hangs up.
async fn write(
    shared: &Shared,
    direction: Direction,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    to: &mut WriteHalf<'_>,
) {
    let mut orders = shared.orders.subscribe();
    while let Some((due, bytes)) = parcels.recv().await {
        sleep_until(due).await;
        if orders.wait_for(|orders| orders.flow(direction) != Flow::Hold).await.is_err() {
            return;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        shared.bytes(direction).fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
    to.shutdown().await.ok();
}
