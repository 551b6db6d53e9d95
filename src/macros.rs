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

/// Implements `Debug` for a type of which only some is to be shown: `debug_of!(Ticket, |it| key: it.key);`. A type with
/// parameters has them beside its name: `debug_of!(RunRequest [F] ['_, F], |it| request: it.request);`.
macro_rules! debug_of {
    ($type:ident $([$($own:tt)*] [$($given:tt)*])?) => { debug_of!($type $([$($own)*] [$($given)*])?, |_it|); };
    ($type:ident $([$($own:tt)*] [$($given:tt)*])?, |$it:ident| $($name:ident: $value:expr),*) => {
        impl $(<$($own)*>)? std::fmt::Debug for $type $(<$($given)*>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $it = self;
                f.debug_struct(stringify!($type))$(.field(stringify!($name), &$value))*.finish_non_exhaustive()
            }
        }
    };
}

/// Declares an enum whose variants are all listed, in `ALL`, and have a name each, `as_str`:
///
/// ```text
/// named! {
///     pub enum Vote {
///         /// What the variant stands for.
///         Holder = "holder",
///     }
/// }
/// ```
macro_rules! named {
    ($(#[$meta:meta])* $vis:vis enum $type:ident {
        $($(#[$doc:meta])* $variant:ident = $name:literal,)*
    }) => {
        $(#[$meta])*
        $vis enum $type {
            $($(#[$doc])* $variant,)*
        }

        #[allow(dead_code, reason = "with few features, nobody asks for some of the names")]
        impl $type {
            /// All of them, in their order.
            $vis const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, the same in every interface.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

/// Gives memory of a map or list back after a spike: if it holds little of what it once did. A table needs to be told
/// how what it holds is hashed.
macro_rules! shrink_if_sparse {
    ($of:expr $(, $hash:expr)?) => {
        if $of.capacity() > 1024 && $of.len() < $of.capacity() / 16 {
            $of.shrink_to($of.len() * 2 $(, $hash)?);
        }
    };
}
