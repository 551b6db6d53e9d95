//! Moves the end of a lock (S6).

use super::Shared;
use super::acquire::{millis, text};
use super::fault::odd;
use super::names::Names;
use super::script::EXTEND;
use crate::key::{Key, Token, Ttl};
use crate::store::{Extended, StoreError};

impl Shared {
    pub(super) async fn extend(&self, key: &Key, token: Token, ttl: Ttl) -> Extended {
        let begun = self.ticks.now();
        if ttl.as_duration() < self.terms.min_ttl {
            return Extended::Unknown(StoreError::InvalidTtl);
        }
        let names = match Names::new(&self.settings.template, key) {
            Ok(names) => names,
            Err(error) => return Extended::Unknown(error),
        };
        let answer = self
            .call(&EXTEND, begun, |command, limit| {
                command.arg(1).arg(names.lock()).arg(text(token, &mut [0; 36]));
                command.arg(millis(ttl.as_duration() + self.settings.lock_delay)).arg(limit);
            })
            .await;
        match answer {
            Ok(reply) => match (reply.code(), reply.rest()) {
                (1, &[left]) => {
                    let valid_for = self.valid_for(left, ttl);
                    if valid_for <= self.ticks.now().saturating_since(begun) {
                        return Extended::Unknown(StoreError::Timeout);
                    }
                    Extended::Extended { valid_for }
                }
                (2, _) => Extended::Lost,
                _ => Extended::Unknown(odd().error),
            },
            Err(fault) => Extended::Unknown(fault.error),
        }
    }
}
