//! What rooms above the engine keep with it: the engine knows nothing of what it carries.

use std::any::Any;
#[cfg(feature = "http")]
use std::any::TypeId;
#[cfg(feature = "http")]
use std::sync::Arc;
use std::sync::OnceLock;

#[cfg(feature = "http")]
use foldhash::HashMap;
#[cfg(feature = "http")]
use parking_lot::Mutex;

/// One value of one type, made when it is first asked for. Looking at it takes no lock.
#[derive(Debug, Default)]
pub(super) struct AttachedValue(OnceLock<Box<dyn Any + Send + Sync>>);

impl AttachedValue {
    /// The value; all callers ask for the same type.
    pub(super) fn get<T: Any + Default + Send + Sync>(&self) -> &T {
        let value = self.0.get_or_init(|| Box::new(T::default()));
        value.downcast_ref().expect("one type is kept in one place")
    }
}

/// One value of each type, made when it is first asked for, shared by all clones of the manager and gone with it.
#[cfg(feature = "http")]
#[derive(Debug, Default)]
pub(super) struct AttachedValues(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

#[cfg(feature = "http")]
impl AttachedValues {
    pub(super) fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = self.0.lock();
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        Arc::clone(value).downcast().expect("filed under its own type")
    }
}
