//! The setters that requests of all kinds share: each passes an option on to a field.

/// `setters! { field: name(arg: Type); … }`: the field's own setters, as setters of the request.
macro_rules! setters {
    ($field:tt: $($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $($arg: $type),*) -> Self {
            self.$field = self.$field.$name($($arg),*);
            self
        }
    )*};
}
pub(crate) use setters;
