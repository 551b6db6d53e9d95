//! A grant that is not answered yet (D4): [`Unheard`].

use std::sync::Arc;

use super::shared::{Ended, Shared};
use crate::key::{Key, Token};
use crate::store::Hint;

/// Goes along with a grant that waits for its commit. Dropped before it is heard, it takes the grant back.
pub(super) struct Unheard {
    shared: Arc<Shared>,
    generation: u64,
    grant: Option<(Key, Token, u64)>,
}

impl Unheard {
    pub(super) fn new(shared: &Arc<Shared>, generation: u64, key: &Key, token: Token, fence: u64) -> Self {
        Self { shared: Arc::clone(shared), generation, grant: Some((key.clone(), token, fence)) }
    }

    /// The grant is answered. `None` if it has ended meanwhile.
    pub(super) fn hear(mut self) -> Option<()> {
        let (key, token, fence) = self.grant.take()?;
        self.shared.step(self.generation).ok()?.hear(&key, token, fence)
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let Some((key, token, fence)) = self.grant.take() else { return };
        // After the end of the store there is nothing to take back.
        let Ok(mut step) = self.shared.step(self.generation) else { return };
        let ended = step.give_up(&key, token, fence);
        drop(step);
        if ended == Ended::Some {
            self.shared.hint(&key, Hint::Released);
        }
    }
}
