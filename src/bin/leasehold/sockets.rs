//! The routes on sockets: what `actix_web::HttpServer` does, over connections that are not waited for without end.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Request};
use actix_rt::net::TcpStream;
use actix_server::{Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::App;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{AppConfig, ServiceResponse};
use leasehold::http::{Access, Limits};
use leasehold::metrics::{Exposition, HttpMetrics};
use leasehold::{LockManager, http};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::bounds::Bounds;
use crate::patience::{Patience, Patient, Work};
use crate::settings::ServeArgs;

/// What the server is made of, besides its settings.
pub(crate) struct Parts {
    pub(crate) bounds: Bounds,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) locks: LockManager,
    pub(crate) exposition: Exposition,
    pub(crate) access: Access,
    pub(crate) tls: Option<ServerConfig>,
}

/// What each worker makes its part of the server from.
#[derive(Clone)]
struct Recipe {
    locks: LockManager,
    exposition: Exposition,
    requests: HttpMetrics,
    access: Access,
    limits: Limits,
    head_timeout: Duration,
    patience: Patience,
}

/// Starts to serve.
///
/// # Errors
/// A socket cannot be listened to.
pub(crate) fn start(args: &ServeArgs, parts: Parts) -> io::Result<Server> {
    let Parts { bounds, listeners, locks, exposition, access, tls } = parts;
    let limits = Limits::new()
        .min_ttl(crate::serve::SHORTEST_TTL)
        .max_ttl(args.max_ttl)
        .max_wait(args.max_wait)
        .max_body_bytes(args.max_body_bytes)
        .body_timeout(args.body_timeout)
        .max_listed(args.max_listed)
        .max_streams(args.max_streams)
        .start_delay(args.start_delay);
    let head_timeout = args.head_timeout;
    // A stream of events gives a sign of life every 15 s, and the calls of a store have their own bounds: hence the slack.
    let at_work = args.max_wait.saturating_add(args.body_timeout);
    let busy = at_work.max(args.keep_alive).saturating_add(head_timeout).saturating_add(args.slack);
    let patience = Patience { idle: args.keep_alive, busy };
    let requests = HttpMetrics::new();
    let recipe = Recipe { locks, exposition, requests, access, limits, head_timeout, patience };
    let workers = args.workers.map_or_else(cores, usize::from);
    let mut server = Server::build()
        .workers(workers)
        .max_concurrent_connections(bounds.connections.div_ceil(workers))
        .disable_signals();
    for listener in listeners {
        server = add(server, listener, recipe.clone(), tls.clone())?;
    }
    Ok(server.run())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One more socket to listen to. What goes wrong with a connection concerns nobody but its client.
fn add(
    server: ServerBuilder,
    socket: TcpListener,
    recipe: Recipe,
    tls: Option<ServerConfig>,
) -> io::Result<ServerBuilder> {
    let Some(mut tls) = tls else {
        return server.listen("http", socket, move || {
            let patience = recipe.patience;
            fn_service(move |io: TcpStream| {
                let peer = io.peer_addr().ok();
                ready(Ok::<_, ()>((Patient::new(io, patience), peer)))
            })
            .and_then(recipe.serve())
        });
    };
    // Not HTTP/2: actix-web does not cancel its handlers, so a waiter whose client has gone would stay.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.listen("https", socket, move || {
        let patience = recipe.patience;
        let mut acceptor = Acceptor::new(tls.clone());
        acceptor.set_handshake_timeout(recipe.head_timeout);
        acceptor
            .map_err(drop)
            .and_then(fn_service(move |io: TlsStream<TcpStream>| {
                let peer = io.get_ref().0.peer_addr().ok();
                ready(Ok::<_, ()>((Patient::new(io, patience), peer)))
            }))
            .and_then(recipe.serve())
    })
}

impl Recipe {
    /// The routes, for connections of one kind.
    fn serve<T>(
        &self,
    ) -> impl ServiceFactory<(Patient<T>, Option<SocketAddr>), Config = (), Response = (), Error = (), InitError = ()> + use<T>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let app = App::new()
            .app_data(self.locks.clone())
            .app_data(self.limits)
            .app_data(self.access.clone())
            .app_data(self.exposition.clone())
            .app_data(self.requests.clone())
            .configure(http::configure_metrics)
            .configure(http::configure);
        let app = map_config(app.into_factory(), |()| AppConfig::default());
        HttpService::build()
            // Not by its own timers: a connection knows how long to wait.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(self.head_timeout)
            .on_connect_ext(|io: &Patient<T>, data| {
                data.insert(io.work());
            })
            // A waiter whose client has gone leaves the queue at once.
            .h1_allow_half_closed(false)
            .h1(apply_fn_factory(app, |request: Request, app: &_| answered(request, app)))
            .map_err(drop)
    }
}

/// Has a connection know that a request is under way.
fn answered<S>(request: Request, app: &S) -> impl Future<Output = Result<ServiceResponse, S::Error>> + use<S>
where
    S: Service<Request, Response = ServiceResponse>,
{
    let busy = request.conn_data::<Work>().map(Work::begin);
    let answer = app.call(request);
    async move {
        let answer = answer.await?;
        if let Some(busy) = busy
            && answer.response().body().size() == BodySize::Stream
        {
            busy.streams();
        }
        Ok(answer)
    }
}
