//! Redlock: one lock over N independent Redis nodes, held by whoever has a majority of them: [`RedlockStore`].
//!
//! * `ops/`: one operation a file, with its script beside it. Each asks all nodes at once (`fanout`) and is decided as
//!   soon as a majority allows it; the answers of slower nodes are collected in the background.
//! * `round`: acquires and releases that wait for each other (`batching`) go out as one command, the same to all nodes;
//!   `reply` reads the answers, and `in_flight` knows what goes on after the caller has been answered.
//! * `quorum` counts votes, `acquire_round` says what the answers to one try mean, and `fence` proves fences. They do no
//!   I/O; `model` walks every bounded history of votes and fences.
//! * `node`: a node is a [`RedisStore`](super::redis::RedisStore) of its own. It votes once it is admitted (`roll`).
//!
//! # Rules
//!
//! | rule | what holds of a lock over N nodes |
//! |---|---|
//! | L1 | A quorum is more than half of the configured nodes, which are told apart by endpoint and by run id. Their number is odd. All are asked at once. |
//! | L2 | A lock is granted if a quorum has said yes before the deadline; otherwise it is released on all nodes, also on those that did not answer. A denial names the holder's fence, so that a key that a majority holds is not taken for a split vote. |
//! | L3 | An extend needs a quorum within the old validity. A minority that has lost the lock is given it back with the time that is left, while a majority holds it, and never after the deadline. |
//! | L4 | A node that may have forgotten locks does not vote for `max_ttl`: one that was started less than that ago, unless it runs `appendfsync always`, or one that was flushed. Run id, uptime and the marker that a flush removes are read on the connection that votes. One that was only paused votes at once. |
//! | L5 | A fence is proposed above all that were seen and above the clock; a node accepts what is above its own. A majority of acceptances proves it; without proof there is no grant. Nodes' clocks are assumed to differ by less than `max_ttl`. |
//!
//! # What it promises, and what not
//! * A key is held by one token at a time as long as nodes' and holders' clocks run at the same rate (R11), give or take
//!   the drift allowance, and no node is given up for lost and replaced within `max_ttl`. Redis itself says no more:
//!   <https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/>.
//! * A holder that is paused (GC, SIGSTOP, a slow disk) past its deadline does not know. No lock with a TTL can prevent that:
//!   Kleppmann, "How to do distributed locking" (2016). Sanfilippo's answer, "Is Redlock safe?" (2016), is about clocks
//!   and restarts, not about that pause. **The fencing token is the real protection**: the resource refuses a lower one.
//! * Fences are proved here (`fence`): each grant's was accepted by a majority, and is above all earlier ones, through
//!   crashes, lost replies and restarts, while clocks differ by less than `max_ttl`. Without proof there is no grant.
//! * There is no board (S18): no node sees all that happens in one order. So deadlocks are looked for within each process.
//! * A node that restarts without `appendfsync always`, or is flushed, does not vote for `max_ttl` (L4). So a new
//!   deployment is silent for that long once, unless it is told that nothing is held ([`RedlockStore::initialise`], or
//!   `leasehold redlock init`).
//! * One node with replicas and `WAIT` ([`wait_for_replicas`](super::redis::RedisBuilder::wait_for_replicas)) is a
//!   fifth of the work, and is to be preferred where an outage of seconds is bearable and the resource checks fences:
//!   N nodes buy that any minority can die without anybody noticing.
//! * Turns between processes are kept as well as they can be without a promise ([`Fairness::None`](super::Fairness)): each
//!   node has a queue, in an order that is the same on all of them (`queue`), and after a release each node calls the
//!   process that is first there. To be first on a majority of the nodes is not yet a grant, so a vote may still be
//!   split; then each rival tries again after a random pause.

mod acquire_round;
mod builder;
mod config;
mod fanout;
pub(crate) mod fence;
mod in_flight;
mod inner;
mod lock;
#[cfg(test)]
mod model;
mod node;
mod ops;
mod queue;
pub(crate) mod quorum;
mod reply;
mod roll;
mod round;
mod script;
mod store;

pub use self::builder::RedlockBuilder;
pub use self::config::NodeEvent;
pub use self::store::RedlockStore;
