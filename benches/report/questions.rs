//! What is asked, and what is held to a target.

/// What is held to a target.
pub(crate) struct Question {
    pub(crate) asks: &'static str,
    pub(crate) group: &'static str,
    /// The end of a bench's name where a group asks more than one thing.
    pub(crate) variant: Option<&'static str>,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
}

pub(crate) enum Target {
    /// Ours is at most this share of the rival's.
    OfRival(&'static str, f64),
    /// Ours is at most so much.
    AtMost(f64),
    /// Ours is at least so much.
    AtLeast(f64),
    /// Ours is at most so many times ours in this other variant.
    OfVariant(&'static str, f64),
    /// Ours is at least this share of the rival's.
    ShareOf(&'static str, f64),
    /// None: it is shown beside its rivals.
    Shown,
}

impl Target {
    /// Whether it compares ours with this rival.
    pub(crate) fn names(&self, rival: &str) -> bool {
        matches!(self, OfRival(name, _) | ShareOf(name, _) if *name == rival)
    }
}
use Target::{AtLeast, AtMost, OfRival, OfVariant, ShareOf, Shown};

const fn question(
    asks: &'static str,
    group: &'static str,
    variant: Option<&'static str>,
    unit: &'static str,
    target: Target,
) -> Question {
    Question { asks, group, variant, unit, target }
}

/// How long a key took to a waiter in another process and back, in microseconds, at commit f49baf0.
const PASSING_BEFORE_US: f64 = 410.0;

/// For how long one process may have a key once another asks for it (K4), in milliseconds, and as long again for the way
/// there and back on a busy machine.
const WITHOUT_MS: f64 = 20.0;
/// The same after the pause of a process that has reused a claim for its whole second, an eighth of that (K5).
const WITHOUT_LINGERING_MS: f64 = 125.0 + WITHOUT_MS;

/// What the numbers before questions stand for.
pub(crate) const SECTIONS: &[(u32, &str)] = &[
    (1, "A free lock"),
    (2, "Two threads"),
    (3, "One hot key"),
    (4, "A million of them"),
    (5, "Locks that refresh themselves"),
    (6, "Over HTTP"),
    (7, "Shares"),
    (8, "Deadlocks"),
    (9, "Events"),
    (10, "Calls that are shared"),
    (11, "Over Redis and Redlock"),
    (12, "One key that all processes want, without claims"),
    (13, "The same, with claims that are handed on"),
    (14, "The same, with claims that linger"),
    (15, "Shares and permits over Redis"),
    (16, "Latencies"),
    (17, "On a disk"),
];

pub(crate) const QUESTIONS: &[Question] = &[
    question("1. a free lock and its release", "uncontended", None, "ns", OfRival("lockable", 0.5)),
    question("1. a free lock and its release", "uncontended", None, "ns", OfRival("bare_map", 1.5)),
    question("1. the same in a task's loop", "uncontended_in_a_task", None, "ns", OfRival("lockable", 0.5)),
    question("1. the same in a task's loop", "uncontended_in_a_task", None, "ns", OfRival("bare_map", 1.5)),
    question("1. its instructions", "instructions", Some("free_lock"), "instructions", AtMost(700.0)),
    question("2. two threads, different keys", "two_threads", None, "ns", OfRival("lockable", 1.0 / 3.0)),
    question("3. one key, 2 tasks", "hot_key", Some("2"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 2 tasks", "hot_key", Some("2"), "ns", OfRival("tokio_mutex", 1.2)),
    question("3. one key, 8 tasks", "hot_key", Some("8"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 8 tasks", "hot_key", Some("8"), "ns", OfRival("tokio_mutex", 1.2)),
    question("3. one key, 64 tasks", "hot_key", Some("64"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 64 tasks", "hot_key", Some("64"), "ns", OfRival("tokio_mutex", 1.2)),
    question("3. one key, 1,000 tasks", "hot_key", Some("1000"), "ns", OfRival("lockable", 1.0)),
    question("3. one key, 1,000 tasks", "hot_key", Some("1000"), "ns", OfRival("tokio_mutex", 1.2)),
    question(
        "3. instructions, 8 tasks on one thread",
        "instructions",
        Some("hand_off"),
        "instructions",
        OfRival("lockable", 1.0),
    ),
    question("4. a held lock's weight", "bytes_per_lock", None, "bytes", AtMost(160.0)),
    question("4. a waiter's weight", "bytes_per_waiter", None, "bytes", AtMost(400.0)),
    question("4. beside a million locks", "crowd", Some("beside_a_million"), "ns", OfVariant("alone", 1.5)),
    question("5. refreshing 100,000 locks", "cpu_of_refreshing", None, "% of a core", AtMost(5.0)),
    question("6. acquire and release, against a bare echo", "http", None, "requests/s", ShareOf("echo", 0.9)),
    question("6. HTTP, a parked waiter's weight", "http_waiter", None, "KiB", AtMost(12.0)),
    question("6. HTTP, p99 beside 10,000 of them", "http_crowd_p99", None, "ms", AtMost(10.0)),
    question("7. a share, alone", "shared", Some("alone"), "ns", Shown),
    question("7. a share, beside eight others", "shared", Some("together"), "ns", OfRival("tokio_rwlock", 3.0)),
    question("7. 64 tasks, one in 100 writes", "shared", Some("mixed"), "ns", Shown),
    question("8. deadlock check, 10 owners wait", "deadlocks", Some("10_owners"), "ns", Shown),
    question("8. the same, 1,000 owners", "deadlocks", Some("1000_owners"), "ns", OfVariant("10_owners", 1.5)),
    question("8. the same, 100,000 owners", "deadlocks", Some("100000_owners"), "ns", OfVariant("10_owners", 1.5)),
    question("9. a free lock, 1 listener", "events", Some("1_listener"), "ns", Shown),
    question("9. the same, 100 listeners", "events", Some("100_listeners"), "ns", OfVariant("1_listener", 1.5)),
    question("10. 64 callers share one call", "shared_call", None, "ns", Shown),
    question("10. calls that share nothing", "lone_calls", None, "ns", OfRival("async_singleflight", 1.5)),
    question("10. the same", "instructions", Some("lone_call"), "instructions", Shown),
    question("11. Redis, a free key, one at a time", "redis_one", None, "us", OfRival("rslock", 1.15)),
    question("11. Redis, free keys, 64 in flight", "redis_pairs", Some("64"), "pairs/s", ShareOf("rslock", 0.9)),
    question("11. Redis, free keys, 256 in flight", "redis_pairs", Some("256"), "pairs/s", ShareOf("rslock", 1.0)),
    question("11. Redlock, free keys, 64 in flight", "redlock_pairs", Some("64"), "pairs/s", ShareOf("rslock", 2.0)),
    question("11. to a process that waits, and back", "redis_passing", None, "us", AtMost(PASSING_BEFORE_US)),
    question("12. Redis, one key, 8 x 8", "redis_grants", Some("8x8"), "grants/s", AtLeast(5_000.0)),
    question("12. its scripts a grant", "redis_scripts", Some("8x8"), "scripts", AtMost(3.0)),
    question("12. its shares, least of greatest", "redis_shares", Some("8x8"), "", AtLeast(0.8)),
    question("12. Redis, one key, 32 x 8", "redis_grants", Some("32x8"), "grants/s", AtLeast(5_000.0)),
    question("12. its scripts a grant", "redis_scripts", Some("32x8"), "scripts", AtMost(3.0)),
    question("12. its shares, least of greatest", "redis_shares", Some("32x8"), "", AtLeast(0.8)),
    question("12. Redlock, one key, 8 x 8", "redlock_grants", Some("8x8"), "grants/s", AtLeast(1_000.0)),
    question("12. its scripts a grant and node", "redlock_scripts", Some("8x8"), "scripts", AtMost(4.0)),
    question("12. its shares, least of greatest", "redlock_shares", Some("8x8"), "", AtLeast(0.8)),
    question("12. Redlock, one key, 32 x 8", "redlock_grants", Some("32x8"), "grants/s", AtLeast(1_000.0)),
    question("12. its scripts a grant and node", "redlock_scripts", Some("32x8"), "scripts", AtMost(4.0)),
    question("12. its shares, least of greatest", "redlock_shares", Some("32x8"), "", AtLeast(0.8)),
    question("13. relock of a key whose claim lingers", "relock", Some("lingering"), "ns", OfVariant("in_memory", 3.0)),
    question("13. handed on, one key, 1 x 64", "hand_off_grants", Some("1x64"), "grants/s", ShareOf("rslock", 20.0)),
    question("13. the same, 2 x 32", "hand_off_grants", Some("2x32"), "grants/s", ShareOf("rslock", 10.0)),
    question("13. longest without a grant, 2 x 32", "hand_off_without", Some("2x32"), "ms", AtMost(WITHOUT_MS)),
    question("13. even shares, 2 x 8 (Jain)", "hand_off_jain", Some("2x8"), "", AtLeast(0.9)),
    question("13. even shares, 4 x 8", "hand_off_jain", Some("4x8"), "", AtLeast(0.9)),
    question("13. even shares, 8 x 8", "hand_off_jain", Some("8x8"), "", AtLeast(0.9)),
    question("13. growth: 1 x 8", "hand_off_grants", Some("1x8"), "grants/s", Shown),
    question("13. growth: 2 x 8", "hand_off_grants", Some("2x8"), "grants/s", Shown),
    question("13. growth: 4 x 8", "hand_off_grants", Some("4x8"), "grants/s", Shown),
    question("13. growth: 8 x 8", "hand_off_grants", Some("8x8"), "grants/s", Shown),
    question("14. lingers, one key, 1 x 64", "linger_grants", Some("1x64"), "grants/s", ShareOf("rslock", 20.0)),
    question("14. the same, 2 x 32", "linger_grants", Some("2x32"), "grants/s", ShareOf("rslock", 10.0)),
    question("14. longest without a grant, 2 x 32", "linger_without", Some("2x32"), "ms", AtMost(WITHOUT_LINGERING_MS)),
    question("14. even shares, 2 x 8 (Jain)", "linger_jain", Some("2x8"), "", AtLeast(0.9)),
    question("14. even shares, 4 x 8", "linger_jain", Some("4x8"), "", AtLeast(0.9)),
    question("14. even shares, 8 x 8", "linger_jain", Some("8x8"), "", AtLeast(0.9)),
    question("14. growth: 1 x 8", "linger_grants", Some("1x8"), "grants/s", Shown),
    question("14. growth: 2 x 8", "linger_grants", Some("2x8"), "grants/s", Shown),
    question("14. growth: 4 x 8", "linger_grants", Some("4x8"), "grants/s", Shown),
    question("14. growth: 8 x 8", "linger_grants", Some("8x8"), "grants/s", Shown),
    question("15. Redis, a share, one at a time", "redis_share", Some("shared_1"), "us", OfVariant("exclusive_1", 1.5)),
    question("15. Redis, shares, 64 in flight", "redis_share", Some("shared_64"), "us", OfVariant("exclusive_64", 1.5)),
    question("15. a further share in its process", "local_share", Some("riding"), "ns", OfVariant("in_memory", 3.0)),
    question("15. permits of 4, 1 task", "permits", Some("1"), "permits/s", Shown),
    question("15. the same, 4 tasks", "permits", Some("4"), "permits/s", Shown),
    question("15. the same, 16 tasks", "permits", Some("16"), "permits/s", Shown),
    question("16. an acquire in memory, median", "latency_memory", Some("50"), "ns", Shown),
    question("16. the same, one in 1,000 is slower", "latency_memory", Some("99.9"), "ns", Shown),
    question("16. an acquire over HTTP, median", "latency_http", Some("50"), "ns", Shown),
    question("16. the same, one in 1,000 is slower", "latency_http", Some("99.9"), "ns", Shown),
    question("16. an acquire over Redis, median", "latency_redis", Some("50"), "ns", Shown),
    question("16. the same, one in 1,000 is slower", "latency_redis", Some("99.9"), "ns", Shown),
    question("17. synced, one at a time", "durable", Some("1"), "pairs/s", ShareOf("append_and_sync", 0.7)),
    question("17. synced, 64 in flight", "durable", Some("64"), "pairs/s", ShareOf("append_and_sync", 0.7)),
    question("17. by a manager, 64 in flight", "durable_manager", Some("64"), "pairs/s", Shown),
    question("17. relaxed, 64 in flight", "durable_relaxed", Some("64"), "pairs/s", Shown),
];
