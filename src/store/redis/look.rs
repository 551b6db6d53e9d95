//! Who holds a lock, and how the server is. No value of another client leaves Redis (S14).

use std::time::Duration;

use super::Shared;
use super::acquire::text;
use super::fault::odd;
use super::names::Names;
use super::script::LOOK;
use crate::key::{Key, Token};
use crate::store::{Health, Holder, Seen, StoreError};

impl Shared {
    pub(super) async fn look(&self, key: &Key, token: Option<Token>) -> Result<Seen, StoreError> {
        let names = Names::new(&self.settings.template, key)?;
        let answer = self
            .call(&LOOK, self.ticks.now(), |command, _| {
                let mut room = [0; 36];
                let token = token.map_or("", |token| text(token, &mut room));
                command.arg(2).arg(names.lock()).arg(names.fence()).arg(token);
            })
            .await;
        let reply = answer.map_err(|fault| fault.error)?;
        match (reply.code(), reply.rest()) {
            (0, _) => Ok(Seen::Free),
            (1, &[who, left, fence]) => {
                let by = match who {
                    0 => Holder::Other,
                    1 => Holder::Ours,
                    _ => Holder::OtherKind,
                };
                let ends_in = u64::try_from(left).ok().map(Duration::from_millis);
                Ok(Seen::Held { by, ends_in, fence: self.saw_fence(fence) })
            }
            _ => Err(odd().error),
        }
    }

    pub(super) async fn health(&self) -> Health {
        let begun = self.ticks.now();
        let answer = self.ping(begun).await.map(|()| self.ticks.now().saturating_since(begun));
        Health::new(answer, self.warning.lock().iter().cloned().collect())
    }
}
