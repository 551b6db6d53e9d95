//! The routes on sockets: what `actix_web::HttpServer` does, over connections that are not waited for without end.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::HttpService;
use actix_rt::net::TcpStream;
use actix_server::{Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::App;
use actix_web::dev::AppConfig;
use leasehold::http::{Access, Limits};
use leasehold::metrics::{Exposition, HttpMetrics};
use leasehold::{LockManager, http};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::bounds::Bounds;
use crate::patience::Patient;
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
    keep_alive: Duration,
    /// How long a connection may go without an answer.
    patience: Duration,
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
    let (head_timeout, keep_alive) = (args.head_timeout, args.keep_alive);
    // A stream of events gives a sign of life every 15 s, and the calls of a store have their own bounds: hence the slack.
    let at_work = args.max_wait.saturating_add(args.body_timeout);
    let patience = at_work.max(keep_alive).saturating_add(head_timeout).saturating_add(args.slack);
    let requests = HttpMetrics::new();
    let recipe = Recipe { locks, exposition, requests, access, limits, head_timeout, keep_alive, patience };
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
        fn_service(move |io: TcpStream| ready(Ok::<_, ()>(Patient::new(io, patience))))
            .and_then(acceptor.map_err(drop))
            .and_then(fn_service(|io: TlsStream<Patient>| {
                let peer = io.get_ref().0.peer_addr();
                ready(Ok::<_, ()>((io, peer)))
            }))
            .and_then(recipe.serve())
    })
}

impl Recipe {
    /// The routes, for connections of one kind.
    fn serve<T>(
        &self,
    ) -> impl ServiceFactory<(T, Option<SocketAddr>), Config = (), Response = (), Error = (), InitError = ()> + use<T>
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
        HttpService::build()
            .keep_alive(self.keep_alive)
            .client_request_timeout(self.head_timeout)
            // A waiter whose client has gone leaves the queue at once.
            .h1_allow_half_closed(false)
            .h1(map_config(app.into_factory(), |()| AppConfig::default()))
            .map_err(drop)
    }
}
