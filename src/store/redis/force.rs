//! Ends any holder, and tells everybody (S11). Never tried again: it might hit a later holder.

use super::Shared;
use super::acquire::millis;
use super::fault::odd;
use super::names::Names;
use super::script::FORCE;
use crate::key::Key;
use crate::store::Forced;

impl Shared {
    pub(super) async fn force_release(&self, key: &Key) -> Forced {
        let names = match Names::new(&self.settings.template, key) {
            Ok(names) => names,
            Err(error) => return Forced::Unknown(error),
        };
        let answer = self
            .call(&FORCE, self.ticks.now(), |command, limit| {
                command.arg(2).arg(names.lock()).arg(names.fence());
                command.arg(names.wake()).arg(&*self.ears.forced).arg(limit);
                command.arg(millis(self.settings.fence_retention)).arg(self.highest_fence());
            })
            .await;
        match answer {
            Ok(reply) => {
                if let [fence] = reply.rest() {
                    let _ = self.saw_fence(*fence);
                }
                match reply.code() {
                    1 => Forced::Released,
                    2 => Forced::WasFree,
                    _ => Forced::Unknown(odd().error),
                }
            }
            Err(fault) => Forced::Unknown(fault.error),
        }
    }
}
