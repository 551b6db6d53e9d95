//! The setters that requests of all kinds share: each passes an option on to a field.

/// `setters! { field: ttl; wait; … }`: setters of the request that are those of the field. What a usual one takes and
/// does is told here; one that means something else for a kind of request is written there, as
/// `/// What it does.` `name(arg: Type);`.
macro_rules! setters {
    ($field:tt:) => {};
    ($field:tt: $(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*); $($rest:tt)*) => {
        $(#[$doc])*
        pub fn $name(mut self, $($arg: $type),*) -> Self {
            self.$field = self.$field.$name($($arg),*);
            self
        }
        setters! { $field: $($rest)* }
    };
    (@usual $field:tt, $text:literal, $name:ident($($arg:ident: $type:ty),*); $($rest:tt)*) => {
        setters! { $field:
            #[doc = concat!($text, " See [`LockOptions::", stringify!($name), "`](crate::LockOptions::", stringify!($name), ").")]
            $name($($arg: $type),*);
            $($rest)*
        }
    };
    ($f:tt: ttl; $($rest:tt)*) => {
        setters! { @usual $f, "How long the lock lasts unless refreshed.", ttl(ttl: std::time::Duration); $($rest)* }
    };
    ($f:tt: ttl_secs; $($rest:tt)*) => {
        setters! { @usual $f, "The same in seconds.", ttl_secs(secs: f64); $($rest)* }
    };
    ($f:tt: wait; $($rest:tt)*) => {
        setters! { @usual $f, "How long to wait.", wait(wait: std::time::Duration); $($rest)* }
    };
    ($f:tt: wait_forever; $($rest:tt)*) => {
        setters! { @usual $f, "Waits without end.", wait_forever(); $($rest)* }
    };
    ($f:tt: owner; $($rest:tt)*) => {
        setters! { @usual $f, "Who asks.", owner(owner: impl AsRef<str>); $($rest)* }
    };
    ($f:tt: token; $($rest:tt)*) => {
        setters! { @usual $f, "Chooses the token, to make a retry safe.", token(token: impl Into<crate::Token>); $($rest)* }
    };
    ($f:tt: max_hold; $($rest:tt)*) => {
        setters! { @usual $f, "Caps the hold.", max_hold(cap: std::time::Duration); $($rest)* }
    };
    ($f:tt: refresh_after; $($rest:tt)*) => {
        setters! { @usual $f, "When a refresh writes.", refresh_after(share: f32); $($rest)* }
    };
    ($f:tt: retry; $($rest:tt)*) => {
        setters! { @usual $f, "Polls instead of queueing.", retry(strategy: impl crate::retry::RetryStrategy); $($rest)* }
    };
    ($f:tt: session; $($rest:tt)*) => {
        setters! { @usual $f, "Asks on behalf of a session.", session(session: &crate::Session); $($rest)* }
    };
    ($f:tt: reentrant; $($rest:tt)*) => {
        setters! { @usual $f, "Grants again what the owner holds already.", reentrant(); $($rest)* }
    };
    ($f:tt: account; $($rest:tt)*) => {
        setters! { @usual $f, "Charges the lock to an account.", account(account: &crate::Account); $($rest)* }
    };
    ($f:tt: process_scope; $($rest:tt)*) => {
        setters! { @usual $f, "Keeps the lock within this process.", process_scope(); $($rest)* }
    };
}
pub(crate) use setters;
