//! Fear: processes that ask together call twice at a time or each for itself; or one is told a value that is older than its
//! question, of a call that lost its lock, or of another's secret; or a killed process takes the others' call along.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::{Builder, Codec, CodecError, LockError, LockManager, Release};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::kit::{Cluster, Proxy, Server, Then, until};
use crate::processes::{MARK, Process};
use crate::redis_managers::{LONG, exists, places, queue};

const VALUE: &str = "leasehold:value:{lock:k}";

/// However loaded the machine is: a question that is not answered in time is answered by a call.
const PATIENT: Duration = Duration::from_secs(20);

fn builder(url: &str) -> Builder {
    let store = RedisStore::builder(url).operation_timeout(PATIENT).build().unwrap();
    LockManager::builder().ttl(LONG).store(store)
}

async fn manager(server: &Server) -> LockManager {
    builder(&server.url()).build_and_connect().await.unwrap()
}

async fn two(server: &Server) -> (LockManager, LockManager) {
    (manager(server).await, manager(server).await)
}

/// Words as they are.
struct Words;

impl Codec<String> for Words {
    fn encode(&self, words: &String) -> Result<Vec<u8>, CodecError> {
        Ok(words.clone().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

/// What the callers of a test call, in whatever process.
struct Calls {
    begun: AtomicUsize,
    /// A call ends when it is let through.
    gate: Semaphore,
}

impl Calls {
    fn new() -> Arc<Self> {
        Arc::new(Self { begun: AtomicUsize::new(0), gate: Semaphore::new(0) })
    }

    async fn call(self: Arc<Self>) -> String {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.expect("it stays open").forget();
        format!("call {number}")
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn let_through(&self, calls: usize) {
        self.gate.add_permits(calls);
    }
}

type Answer = Result<String, LockError>;

/// Asks for the key `k`, in a task.
fn ask(locks: &LockManager, calls: &Arc<Calls>) -> JoinHandle<Answer> {
    let (locks, calls) = (locks.clone(), Arc::clone(calls));
    tokio::spawn(async move { locks.singleflight("k", || calls.call()).across_processes(Words).wait(LONG).await })
}

/// A caller that has asked, and gets on when it is awaited.
async fn asked<'a>(locks: &'a LockManager, calls: &Arc<Calls>) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
    let calls = Arc::clone(calls);
    let request = locks.singleflight("k", move || calls.call()).across_processes(Words).wait(LONG);
    let mut caller = Box::pin(request.into_future());
    assert!(futures::poll!(&mut caller).is_pending());
    caller
}

/// One manager calls, and others wait for it.
async fn calling_and_waiting<const N: usize>(
    server: &Server,
    calls: &Arc<Calls>,
    calling: &LockManager,
    waiting: [&LockManager; N],
) -> (JoinHandle<Answer>, [JoinHandle<Answer>; N]) {
    let before = calls.begun();
    let caller = ask(calling, calls);
    until("the call", || calls.begun() == before + 1);
    let mut place = 0;
    let waiting = waiting.map(|locks| {
        let waiting = ask(locks, calls);
        place += 1;
        until("its place", || places(server) == place);
        waiting
    });
    (caller, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_told_to_those_who_waited_and_to_nobody_later() {
    let server = Server::start(&[]);
    let ((one, two), third, calls) = (two(&server).await, manager(&server).await, Calls::new());
    for round in 1..=2 {
        let (caller, waiting) = calling_and_waiting(&server, &calls, &one, [&two, &third]).await;
        calls.let_through(1);
        let value = format!("call {round}");
        assert_eq!(caller.await.unwrap().as_ref(), Ok(&value));
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().as_ref(), Ok(&value));
        }
        let left: i64 = server.ask(&format!("PTTL {VALUE}"));
        assert!((1..=10_000).contains(&left), "{left}");
        until("the end of the lock", || !exists(&server, "lock:k"));
    }
    let shared = [&one, &two, &third].map(|locks| (locks.stats().flights_led, locks.stats().flights_shared));
    assert_eq!((calls.begun(), shared), (2, [(2, 0), (0, 2), (0, 2)]));
}

/// Says that it was called, and holds up whoever calls it: a runtime that has no time.
struct HeldUp {
    woken: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Wake for HeldUp {
    fn wake(self: Arc<Self>) {
        let _ = self.woken.send(());
        let _ = self.go_on.lock().recv();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_no_older_for_being_asked_for_late() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let caller = ask(&one, &calls);
    until("the call", || calls.begun() == 1);
    let began = Instant::now();
    let call = || Arc::clone(&calls).call();
    let mut waiting = Box::pin(two.singleflight("k", call).across_processes(Words).wait(LONG).into_future());
    let ((woken, is_woken), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    let held_up = Waker::from(Arc::new(HeldUp { woken, go_on: Mutex::new(go_on) }));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&held_up)).is_pending());
    until("its place", || places(&server) == 1);
    calls.let_through(2);
    assert_eq!(caller.await.unwrap(), Ok("call 1".into()));
    is_woken.recv().unwrap();
    // Its question waits for the runtime that woke it, for longer than it has waited for the value.
    assert!(futures::poll!(&mut waiting).is_pending());
    std::thread::sleep(began.elapsed() * 2);
    drop::<mpsc::Sender<()>>(let_go);
    assert_eq!(waiting.await, Ok("call 1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_waits_nothing_is_left() {
    let server = Server::start(&[]);
    let (locks, calls) = (manager(&server).await, Calls::new());
    calls.let_through(1);
    assert!(ask(&locks, &calls).await.unwrap().is_ok());
    until("the end of the lock", || !exists(&server, "lock:k"));
    assert!(!exists(&server, VALUE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_from_before_the_question_is_not_taken_whoever_held_the_key_meanwhile() {
    let server = Server::start(&[]);
    let ((one, two), third, calls) = (two(&server).await, manager(&server).await, Calls::new());
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    calls.let_through(1);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 1".into())));
    assert!(exists(&server, VALUE), "it is there to be had");
    let holder = one.lock("k").await.unwrap();
    let late = ask(&third, &calls);
    until("its place", || places(&server) == 1);
    assert_eq!(holder.unlock().await, Release::Released);
    calls.let_through(1);
    assert_eq!(late.await.unwrap(), Ok("call 2".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_after_the_value_was_left_is_not_told_it_by_one_who_asked_before() {
    let server = Server::start(&[]);
    let ((one, two), third, calls) = (two(&server).await, manager(&server).await, Calls::new());
    let caller = ask(&one, &calls);
    until("the call", || calls.begun() == 1);
    let between = queue(&third, "k");
    until("its place", || places(&server) == 1);
    let early = asked(&two, &calls).await;
    let with_it = asked(&two, &calls).await;
    until("their place", || places(&server) == 2);
    calls.let_through(1);
    assert_eq!(caller.await.unwrap(), Ok("call 1".into()));
    let between = between.await.unwrap().unwrap();
    let late = asked(&two, &calls).await;
    calls.let_through(1);
    assert_eq!(between.unlock().await, Release::Released);
    let answers = futures::join!(early, with_it, late);
    let [first, second] = ["call 1", "call 2"].map(|value| Ok(value.to_owned()));
    assert_eq!(answers, (first.clone(), first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_lost_its_lock_tells_no_other_process() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    assert_eq!(two.force_release("k").await, Ok(Release::Released));
    until("the other's call", || calls.begun() == 2);
    calls.let_through(2);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 2".into())));
    assert!(!exists(&server, VALUE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_its_cap_tells_no_other_process() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let capped = {
        let (one, calls) = (one.clone(), Arc::clone(&calls));
        let request = async move {
            one.singleflight("k", || calls.call()).across_processes(Words).max_hold(Duration::from_millis(300)).await
        };
        tokio::spawn(request)
    };
    until("the call", || calls.begun() == 1);
    let waiting = ask(&two, &calls);
    until("the other's call", || calls.begun() == 2);
    calls.let_through(2);
    assert_eq!((capped.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 2".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_panics_or_is_dropped_is_another_processs_to_make() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let panics = async move {
        let call = || async { panic!("as it must") };
        one.singleflight("k", call).across_processes(Words).await
    };
    assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
    let third = manager(&server).await;
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &two, [&third]).await;
    caller.abort();
    until("the other's call", || calls.begun() == 2);
    calls.let_through(1);
    assert_eq!(waiting.await.unwrap(), Ok("call 2".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_answer_is_lost_has_left_its_value_and_one_that_comes_late_leaves_none() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let one = builder(&proxy.url()).build_and_connect().await.unwrap();
    let (two, calls) = (manager(&server).await, Calls::new());
    // The first time, the server does not know the script yet, and answers that.
    for value in ["call 1", "call 2"] {
        let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
        if value == "call 2" {
            proxy.lose_reply_of(value, Then::Reset);
        }
        calls.let_through(1);
        assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok(value.into()), Ok(value.into())));
        until("the end of the lock", || !exists(&server, "lock:k"));
    }
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    proxy.lose_reply_of("call 3", Then::HangUp(Duration::from_millis(100)));
    calls.let_through(1);
    // The release is repeated over another connection, before the first one comes.
    until("the other's call", || calls.begun() == 4);
    calls.let_through(1);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 3".into()), Ok("call 4".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_known_whether_a_value_was_left_it_is_called() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let two = builder(&proxy.url()).build_and_connect().await.unwrap();
    let (one, calls) = (manager(&server).await, Calls::new());
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    proxy.lose_reply_of(VALUE, Then::Reset);
    calls.let_through(2);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 2".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_no_longer_leaves_nothing() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let (caller, [dropped]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    dropped.abort();
    until("its place is free", || places(&server) == 0);
    let hurried = two.singleflight("k", || Arc::clone(&calls).call()).across_processes(Words);
    let hurried = hurried.wait(Duration::from_millis(50)).await;
    assert!(matches!(hurried, Err(LockError::Timeout { .. })), "{hurried:?}");
    until("its place is free", || places(&server) == 0);
    calls.let_through(1);
    assert_eq!((caller.await.unwrap(), calls.begun()), (Ok("call 1".into()), 1));
    assert!(!exists(&server, VALUE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_call_is_shared_by_other_processes_when_its_own_callers_have_gone() {
    let server = Server::start(&[]);
    let ((one, two), calls) = (two(&server).await, Calls::new());
    let hurried = {
        let calls = Arc::clone(&calls);
        one.singleflight("k", || calls.call()).across_processes(Words).detached().wait(Duration::from_millis(50))
    };
    let hurried = hurried.await;
    assert!(matches!(hurried, Err(LockError::Timeout { .. })), "{hurried:?}");
    until("the call", || calls.begun() == 1);
    let waiting = {
        let (two, calls) = (two.clone(), Arc::clone(&calls));
        let request =
            async move { two.singleflight("k", || calls.call()).across_processes(Words).detached().wait(LONG).await };
        tokio::spawn(request)
    };
    until("its place", || places(&server) == 1);
    calls.let_through(1);
    assert_eq!((waiting.await.unwrap(), calls.begun()), (Ok("call 1".into()), 1));
    assert_eq!((two.stats().flights_led, two.stats().flights_shared), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_long_or_cannot_be_written_or_read_is_its_own_processs() {
    struct Broken;
    impl Codec<String> for Broken {
        fn encode(&self, words: &String) -> Result<Vec<u8>, CodecError> {
            Words.encode(words)
        }
        fn decode(&self, _: &[u8]) -> Result<String, CodecError> {
            Err("not a word of it".into())
        }
    }
    struct Unwritten;
    impl Codec<String> for Unwritten {
        fn encode(&self, _: &String) -> Result<Vec<u8>, CodecError> {
            Err("there is no word for it".into())
        }
        fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
            Words.decode(bytes)
        }
    }
    let server = Server::start(&[]);
    let other = manager(&server).await;
    let tight = builder(&server.url()).max_value_bytes(5).build_and_connect().await.unwrap();
    let calls = Calls::new();
    let pair = async |first: &dyn Fn() -> JoinHandle<Answer>, second: &dyn Fn() -> JoinHandle<Answer>| {
        let (before, first) = (calls.begun(), first());
        until("the call", || calls.begun() == before + 1);
        let second = second();
        until("its place", || places(&server) == 1);
        calls.let_through(2);
        let answers = (first.await.unwrap(), second.await.unwrap());
        let [first, second] = [1, 2].map(|number| Ok(format!("call {}", before + number)));
        assert_eq!(answers, (first, second));
        until("the end of the lock", || !exists(&server, "lock:k"));
    };
    let with = |locks: &LockManager, codec: fn() -> Box<dyn Codec<String>>| {
        let (locks, calls) = (locks.clone(), Arc::clone(&calls));
        struct Boxed(Box<dyn Codec<String>>);
        impl Codec<String> for Boxed {
            fn encode(&self, words: &String) -> Result<Vec<u8>, CodecError> {
                self.0.encode(words)
            }
            fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
                self.0.decode(bytes)
            }
        }
        let request =
            async move { locks.singleflight("k", || calls.call()).across_processes(Boxed(codec())).wait(LONG).await };
        tokio::spawn(request)
    };
    pair(&|| ask(&tight, &calls), &|| ask(&other, &calls)).await;
    assert!(!exists(&server, VALUE), "six bytes are more than five");
    pair(&|| with(&tight, || Box::new(Unwritten)), &|| ask(&other, &calls)).await;
    assert!(!exists(&server, VALUE));
    pair(&|| ask(&other, &calls), &|| with(&tight, || Box::new(Broken))).await;
    assert!(exists(&server, VALUE));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_reused_are_in_nobodys_way() {
    let server = Server::start(&[]);
    let reuse = ClaimReuse::Linger { idle: Duration::from_secs(30), max_time: Duration::from_mins(1) };
    let reusing = async || {
        let store = RedisStore::builder(&server.url()).claim_reuse(reuse).build().unwrap();
        LockManager::builder().store(store).build_and_connect().await.unwrap()
    };
    let (one, two, calls) = (reusing().await, reusing().await, Calls::new());
    // A claim of its own lingers, or is held by a task that others queue behind.
    drop(one.lock("k").await.unwrap());
    let (caller, [waiting]) = calling_and_waiting(&server, &calls, &one, [&two]).await;
    let behind = queue(&one, "k");
    calls.let_through(1);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 1".into())));
    assert!(behind.await.unwrap().is_ok());
    assert_eq!(calls.begun(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_processes_share_a_call_too() {
    let cluster = Cluster::start();
    let url = format!("redis+cluster://{}", cluster.hosts());
    let manager = async || builder(&url).build_and_connect().await.unwrap();
    let (one, two, calls) = (manager().await, manager().await, Calls::new());
    let caller = ask(&one, &calls);
    until("the call", || calls.begun() == 1);
    let waiting = ask(&two, &calls);
    let owner = cluster.owner(cluster.slot_of("lock:k"));
    until("its place", || places(&cluster.nodes[owner]) == 1);
    calls.let_through(1);
    assert_eq!((caller.await.unwrap(), waiting.await.unwrap()), (Ok("call 1".into()), Ok("call 1".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_to_be_shared_and_to_stay_at_home_is_refused() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let answer = locks.singleflight("k", async || String::new()).across_processes(Words).process_scope().await;
    assert!(matches!(answer, Err(LockError::InvalidOption { option: "process_scope", .. })), "{answer:?}");
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} tells a worker what to do"))
}

/// Asks eight times at once for each line that it reads. The call counts itself, and goes on when there is a gate.
#[test]
#[ignore = "a process of the tests below, which run it"]
fn crowd() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let url = setting("LEASEHOLD_URL");
        let ttl = Duration::from_secs(2);
        let locks = builder(&url).ttl(ttl).build_and_connect().await.unwrap();
        let client = redis::Client::open(url).unwrap();
        let call = || async {
            let mut client = client.get_connection().unwrap();
            let number: u64 = redis::cmd("INCR").arg("calls").query(&mut client).unwrap();
            while !redis::cmd("EXISTS").arg(format!("gate:{number}")).query::<bool>(&mut client).unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err::<String, _>(format!("failure {number}"))
        };
        let mut lines = std::io::stdin().lines();
        while let Some(Ok(_)) = lines.next() {
            let ask = |_| locks.singleflight("k", call).across_processes(Failures).wait(LONG).into_future();
            let mut answers = futures::future::join_all((0..8).map(ask));
            assert!(futures::poll!(&mut answers).is_pending());
            println!("{MARK}asked");
            let mut answers: Vec<_> = answers.await.into_iter().map(|answer| answer.unwrap().unwrap_err()).collect();
            answers.dedup();
            println!("{MARK}{}", answers.join(", "));
        }
    });
}

/// Results, of which the failures are told as well.
struct Failures;

impl Codec<Result<String, String>> for Failures {
    fn encode(&self, result: &Result<String, String>) -> Result<Vec<u8>, CodecError> {
        let (sign, words) = match result {
            Ok(words) => ("+", words),
            Err(words) => ("-", words),
        };
        Ok([sign, words].concat().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Result<String, String>, CodecError> {
        let words = std::str::from_utf8(bytes)?;
        match words.split_at_checked(1) {
            Some(("+", words)) => Ok(Ok(words.to_owned())),
            Some(("-", words)) => Ok(Err(words.to_owned())),
            _ => Err("neither".into()),
        }
    }
}

fn crowds(server: &Server) -> [Process; 3] {
    [(); 3].map(|()| Process::worker("flights::crowd", &[("LEASEHOLD_URL", &*server.url())]))
}

#[test]
fn crowds_of_several_processes_call_once_and_a_failure_is_told_and_not_kept() {
    let server = Server::start(&[]);
    let mut crowds = crowds(&server);
    for round in 1..=3 {
        for (at, crowd) in crowds.iter_mut().enumerate() {
            assert_eq!(crowd.ask("ask"), "asked");
            until("the one call", || server.ask::<Option<u64>>("GET calls") == Some(round));
            until("the others' places", || places(&server) == at);
        }
        server.ask::<String>(&format!("SET gate:{round} open"));
        for crowd in &crowds {
            assert_eq!(crowd.hear().as_deref(), Some(&*format!("failure {round}")));
        }
        assert_eq!(server.ask::<u64>("GET calls"), round);
        until("the end of the lock", || !exists(&server, "lock:k"));
    }
}

#[test]
fn when_the_process_that_calls_is_killed_another_calls_for_those_who_wait() {
    let server = Server::start(&[]);
    let [mut first, mut second, mut third] = crowds(&server);
    assert_eq!(first.ask("ask"), "asked");
    until("the call", || server.ask::<Option<u64>>("GET calls") == Some(1));
    for (at, crowd) in [&mut second, &mut third].into_iter().enumerate() {
        assert_eq!(crowd.ask("ask"), "asked");
        until("its place", || places(&server) == at + 1);
    }
    first.kill9();
    until("another call", || server.ask::<Option<u64>>("GET calls") == Some(2));
    server.ask::<String>("SET gate:2 open");
    for crowd in [&second, &third] {
        assert_eq!(crowd.hear().as_deref(), Some("failure 2"));
    }
    assert_eq!(server.ask::<u64>("GET calls"), 2);
}
