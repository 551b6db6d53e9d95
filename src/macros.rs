//! Macros that several rooms use.

/// Declares a struct of settings, each with its default and, in the first part, a setter of its name:
///
/// ```text
/// settings! {
///     pub struct Limits {
///         /// What the setter says.
///         max_wait: Duration = Duration::from_secs(60);
///         ..
///         /// A field whose setter, if it has one, is written by hand.
///         grants_from: Option<Instant> = None;
///     }
/// }
/// ```
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $setting:ident: $type:ty = $default:expr;)*
        ..
        $($(#[$field_doc:meta])* $field:ident: $field_type:ty = $field_default:expr;)*
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $(pub(crate) $setting: $type,)*
            $($(#[$field_doc])* pub(crate) $field: $field_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($setting: $default,)* $($field: $field_default,)* }
            }
        }

        impl $name {
            $($(#[$doc])* pub fn $setting(mut self, $setting: $type) -> Self {
                self.$setting = $setting;
                self
            })*
        }
    };
}

/// Implements `Debug` for a type of which only some is to be shown: `debug_of!(Ticket, |it| key: it.key);`.
macro_rules! debug_of {
    ($type:ident) => { debug_of!($type, |_it|); };
    ($type:ident, |$it:ident| $($name:ident: $value:expr),*) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $it = self;
                f.debug_struct(stringify!($type))$(.field(stringify!($name), &$value))*.finish_non_exhaustive()
            }
        }
    };
}
