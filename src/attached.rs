//! What rooms above the manager keep with it: one value of each type, made when it is first asked for, shared by all
//! clones of the manager and gone with it. The manager knows nothing of what it carries.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::manager::LockManager;

/// The values, by their types.
#[derive(Default)]
pub(crate) struct Attached(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl LockManager {
    /// This manager's value of a type. It must not keep the manager alive.
    pub(crate) fn attached<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = self.attached_values().0.lock();
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        Arc::clone(value).downcast().expect("filed under its own type")
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("values", &self.0.lock().len()).finish()
    }
}
