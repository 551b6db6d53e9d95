//! The open sessions, for people who look: [`SessionInfo`], [`LockManager::list_sessions`].

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::engine::{LockManager, SessionParts};

/// One open session. Nothing here can be used to end it or to lock in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The name it was opened under.
    pub name: Arc<str>,
    /// The time until it ends, unless it gets a heartbeat.
    pub remaining: Duration,
    /// How long it lives from each heartbeat.
    pub lifetime: Duration,
    /// How many locks it holds.
    pub held: u32,
    /// How many locks it waits for.
    pub waiting: u32,
    /// The name of the account that it was registered for.
    pub account: Option<Box<str>>,
}

impl LockManager {
    /// All [registered](crate::Session::register) sessions that have not ended: those that wait for the most locks first, then
    /// those that hold the most. It looks at each of them, which takes milliseconds where they are ten thousands.
    #[must_use]
    pub fn list_sessions(&self) -> Vec<SessionInfo> {
        let now = self.now();
        let info = |SessionParts { owner, ttl, .. }: &SessionParts, account: Option<&Account>| {
            let remaining = owner.deadline().ok()?.saturating_since(now);
            // Counted one after the other, while it goes on.
            let taken = owner.locks.taken();
            let held = owner.held().min(taken);
            (!remaining.is_zero()).then(|| SessionInfo {
                name: owner.label(),
                remaining,
                lifetime: ttl.as_duration(),
                held,
                waiting: taken - held,
                account: account.map(|account| account.name().into()),
            })
        };
        let mut found = self.sessions().list(info);
        found.sort_by(|a, b| b.waiting.cmp(&a.waiting).then(b.held.cmp(&a.held)).then_with(|| a.name.cmp(&b.name)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[actix_rt::test]
    async fn who_waits_comes_first_and_who_has_ended_not_at_all() {
        let clock = ManualClock::new();
        let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
        let [idle, busy, stuck, over, unregistered] =
            ["idle", "busy", "stuck", "over", "unregistered"].map(|name| locks.session(name));
        let short = locks.session("short").ttl(Duration::from_secs(1));
        let account = Account::new("tenant-7");
        busy.register_for(&account).unwrap();
        [&idle, &stuck, &over, &short].into_iter().for_each(|session| session.register().unwrap());
        let _held = [busy.lock("a").await.unwrap(), busy.lock("b").await.unwrap(), stuck.lock("c").await.unwrap()];
        let _other = unregistered.lock("d").await.unwrap();
        let mut waits = std::pin::pin!(stuck.lock("a").into_future());
        assert!(futures_util::poll!(&mut waits).is_pending());
        over.end().await;
        clock.advance(Duration::from_secs(2));
        let seen = locks.list_sessions();
        let rows: Vec<_> = seen.iter().map(|session| (&*session.name, session.waiting, session.held)).collect();
        assert_eq!(rows, [("stuck", 1, 1), ("busy", 0, 2), ("idle", 0, 0)]);
        assert_eq!(seen[1].account.as_deref(), Some("tenant-7"));
        assert_eq!((seen[0].remaining, seen[0].lifetime), (Duration::from_secs(28), Duration::from_secs(30)));
    }
}
