//! `GET /whoami`: whom the server takes the caller for.

use actix_web::HttpRequest;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::auth::Right;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};

/// Who asks, as far as the server can tell.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "name": "ci", "rights": ["acquire", "read"], "namespaces": ["ci:"] }))]
pub(in crate::http) struct Whoami {
    /// The token's name; `null` without one.
    #[schema(required)]
    pub(in crate::http) name: Option<String>,
    /// All of them where the server asks for no token.
    pub(in crate::http) rights: Vec<Right>,
    /// The prefixes of the keys that it may use; `null` for every key.
    #[schema(required)]
    pub(in crate::http) namespaces: Option<Vec<String>>,
}

/// Says whom the server takes the caller for, and what that one may do.
#[utoipa::path(
    get, path = "/whoami", tag = "operating", operation_id = "whoami",
    responses((status = 200, description = "The token's name and rights.", body = Whoami)),
)]
pub(in crate::http) async fn whoami(ctx: &RequestContext<'_>, _: &HttpRequest) -> HandlerResult {
    let caller = &ctx.caller;
    let namespaces = caller.namespaces().filter(|_| !caller.is_unbound()).map(<[String]>::to_vec);
    let name = caller.token_name().map(str::to_owned);
    Ok(body::answer(&Whoami { name, rights: caller.rights().to_vec(), namespaces }))
}
