//! Who may use the routes: bearer tokens, what each of them may have, and what stands in their place where there are
//! none.
//!
//! | file | what it knows |
//! |---|---|
//! | `access`, `reload` | the rules of one server, and how they are exchanged |
//! | `tokens`, `caller` | a list of bearer tokens; the one that a request brings |
//! | `quota`, `rate_limit` | how much one token may have, and how often one address may come |
//! | `same_site`, `client_addr` | whether a web page of another site asks, and from where a request comes |
//! | `audit` | what is logged of refusals |

mod access;
mod audit;
mod caller;
mod client_addr;
mod quota;
mod rate_limit;
mod reload;
mod same_site;
mod tokens;

pub(in crate::http) use access::Needs;
pub use access::{Access, AccessError};
pub(in crate::http) use audit::{Refusal, is_logged};
pub(in crate::http) use caller::Caller;
pub use quota::Quotas;
pub(in crate::http) use quota::UsageGuard;
pub use reload::ReloadableAccess;
pub(in crate::http) use tokens::Right;
