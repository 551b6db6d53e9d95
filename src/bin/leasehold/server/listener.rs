//! The routes on sockets: what `actix_web::HttpServer` does, over connections with time-outs and evictions of our own.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_rt::net::TcpStream;
use actix_server::{Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_tls::accept::rustls_0_23::{Acceptor, AcceptorService, TlsStream};
use actix_tls::accept::{TlsError, max_concurrent_tls_connect};
use actix_web::App;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::http::{Method, StatusCode};
use futures_util::future::Either;
use leasehold::http::{DirectCalls, Limits, ReloadableAccess};
use leasehold::metrics::{Exposition, HttpMetrics};
use leasehold::{LockManager, http};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::bad_clients::{BadClients, Wrong};
use super::connections::{ConnectionPermit, Connections, Evictable};
use super::fd_limits::{Bounds, SPARE_FILES};
use super::idle_timeout::{HeadTooLarge, IdleTimeout, TimedConnection};
use crate::settings::ServeArgs;

/// What the server is made of, besides its settings.
pub(crate) struct Parts {
    pub(crate) bounds: Bounds,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) locks: LockManager,
    pub(crate) exposition: Exposition,
    pub(crate) access: ReloadableAccess,
    pub(crate) tls: Option<ServerConfig>,
    pub(crate) edge: Edge,
}

/// What all workers share about connections.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) connections: Connections,
    pub(crate) bad_clients: Arc<BadClients>,
}

/// What each worker makes its part of the server from.
#[derive(Clone)]
struct Recipe {
    locks: LockManager,
    exposition: Exposition,
    requests: HttpMetrics,
    access: ReloadableAccess,
    limits: Limits,
    head_timeout: Duration,
    idle_timeout: Arc<IdleTimeout>,
    /// How long a body can be whose length its head does not say.
    max_body_bytes: u64,
    edge: Edge,
}

/// Starts to serve.
///
/// # Errors
/// A socket cannot be listened to.
pub(crate) fn start(args: &ServeArgs, parts: Parts) -> io::Result<Server> {
    let Parts { bounds, listeners, locks, exposition, access, tls, edge } = parts;
    let limits = Limits::new()
        .min_ttl(super::serve::SHORTEST_TTL)
        .max_ttl(args.max_ttl)
        .max_wait(args.max_wait)
        .max_body_bytes(args.max_body_bytes)
        .body_timeout(args.body_timeout)
        .max_listed(args.max_listed)
        .max_streams(args.max_streams)
        .start_delay(args.start_delay);
    let head_timeout = args.head_timeout;
    // A stream of events gives a sign of life every 15 s, and the calls of a store have their own bounds: hence the
    // slack.
    let at_work = args.max_wait.saturating_add(args.body_timeout);
    let busy = at_work.max(args.keep_alive).saturating_add(head_timeout).saturating_add(args.slack);
    let (max_head_bytes, max_body_bytes) = (args.max_head_bytes.into(), args.max_body_bytes as u64);
    let idle_timeout =
        Arc::new(IdleTimeout { idle: args.keep_alive, head: head_timeout, busy, max_head_bytes, max_body_bytes });
    let requests = HttpMetrics::new();
    let recipe =
        Recipe { locks, exposition, requests, access, limits, head_timeout, idle_timeout, max_body_bytes, edge };
    let workers = args.workers.map_or_else(cores, usize::from);
    // More are accepted than have room, as `Connections` decides which of them gives way; those whose TLS is not
    // finished are among them.
    let accepted = bounds.connections + SPARE_FILES;
    max_concurrent_tls_connect(accepted);
    let mut server =
        Server::build().workers(workers).max_concurrent_connections(accepted.div_ceil(workers)).disable_signals();
    for listener in listeners {
        server = add(server, listener, recipe.clone(), tls.clone())?;
    }
    Ok(server.run())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Adds a socket to listen to. An error of a connection ends that connection only.
fn add(
    server: ServerBuilder,
    socket: TcpListener,
    recipe: Recipe,
    tls: Option<ServerConfig>,
) -> io::Result<ServerBuilder> {
    let Some(mut tls) = tls else {
        return server.listen("http", socket, move || {
            let (idle_timeout, edge) = (Arc::clone(&recipe.idle_timeout), recipe.edge.clone());
            fn_service(move |io: TcpStream| ready(edge.admit(io).map(|io| timed(io, &idle_timeout))))
                .and_then(recipe.serve())
        });
    };
    // Not HTTP/2: actix-web does not cancel its handlers, so a waiter whose client has gone would stay.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.listen("https", socket, move || {
        let (idle_timeout, admitting, edge) =
            (Arc::clone(&recipe.idle_timeout), recipe.edge.clone(), recipe.edge.clone());
        let mut acceptor = Acceptor::new(tls.clone());
        acceptor.set_handshake_timeout(recipe.head_timeout);
        let acceptor = apply_fn_factory::<_, _, _, _, _, Evictable, _, _>(
            acceptor,
            move |io: Evictable, acceptor: &AcceptorService| {
                let (peer, edge) = (io.peer(), edge.clone());
                let shaking_hands = Service::call(acceptor, io);
                async move { shaking_hands.await.inspect_err(|why| edge.no_tls(peer, why)) }
            },
        );
        fn_service(move |io: TcpStream| ready(admitting.admit(io)))
            .and_then(acceptor.map_err(drop))
            .and_then(fn_service(move |io: TlsStream<Evictable>| ready(Ok::<_, ()>(timed(io, &idle_timeout)))))
            .and_then(recipe.serve())
    })
}

/// A socket, or TLS over one.
trait Placed {
    fn socket(&self) -> &Evictable;
}

impl Placed for Evictable {
    fn socket(&self) -> &Evictable {
        self
    }
}

impl Placed for TlsStream<Evictable> {
    fn socket(&self) -> &Evictable {
        self.get_ref().0
    }
}

fn timed<T: Placed>(io: T, idle_timeout: &Arc<IdleTimeout>) -> (TimedConnection<T>, Option<SocketAddr>) {
    let (peer, activity) = (io.socket().peer(), io.socket().place().activity().clone());
    (TimedConnection::new(io, Arc::clone(idle_timeout), activity), peer)
}

impl Edge {
    /// Lets a connection in; `Err`: it is closed.
    fn admit(&self, io: TcpStream) -> Result<Evictable, ()> {
        let peer = io.peer_addr().ok();
        // Else an answer waits until the one before it was acknowledged. Without it the server is only slower.
        let _ = io.set_nodelay(true);
        match self.connections.admit(peer.map(|peer| peer.ip())) {
            Ok(place) => Ok(Evictable::new(io, place)),
            Err(refused) => {
                tracing::debug!(?peer, ?refused, "a connection for which there is no room");
                Err(())
            }
        }
    }

    fn no_tls<E>(&self, peer: Option<SocketAddr>, why: &TlsError<io::Error, E>) {
        match why {
            // As a scan for open ports does.
            TlsError::Tls(why) if has_gone(why) => {}
            TlsError::Tls(why) => self.bad_clients.came(peer.map(|peer| peer.ip()), Wrong::Tls, why),
            TlsError::Timeout | TlsError::Service(_) => {}
        }
    }

    fn no_http(&self, peer: Option<SocketAddr>, why: &DispatchError) {
        let wrong = match why {
            DispatchError::Parse(_) => Wrong::Http,
            DispatchError::Io(why) if why.get_ref().is_some_and(|why| why.is::<HeadTooLarge>()) => Wrong::Head,
            _ => return,
        };
        self.bad_clients.came(peer.map(|peer| peer.ip()), wrong, why);
    }
}

fn has_gone(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}

impl Recipe {
    /// The routes, for connections of one kind.
    fn serve<T>(
        &self,
    ) -> impl ServiceFactory<
        (TimedConnection<T>, Option<SocketAddr>),
        Config = (),
        Response = (),
        Error = (),
        InitError = (),
    > + use<T>
    where
        T: AsyncRead + AsyncWrite + Placed + Unpin + 'static,
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
        let calls = DirectCalls::new(self.locks.clone(), self.limits, self.access.clone());
        let calls = calls.counted(self.requests.clone());
        let (edge, max_body_bytes) = (self.edge.clone(), self.max_body_bytes);
        let http = HttpService::build()
            // No timers of actix-http: `TimedConnection` has its own.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(self.head_timeout)
            .on_connect_ext(|io: &TimedConnection<T>, data| {
                data.insert(Arc::clone(io.get_ref().socket().place()));
            })
            // A waiter whose client has gone leaves the queue at once.
            .h1_allow_half_closed(false)
            .h1(apply_fn_factory(app, move |request: Request, app: &_| answered(request, &calls, app, max_body_bytes)));
        apply_fn_factory(http, move |client: (TimedConnection<T>, Option<SocketAddr>), http: &_| {
            served(client, http, &edge)
        })
        .map_err(drop)
    }
}

/// Serves a connection to its end, and notes down what was wrong with it.
fn served<T, S>(
    (io, peer): (TimedConnection<T>, Option<SocketAddr>),
    http: &S,
    edge: &Edge,
) -> impl Future<Output = Result<(), DispatchError>> + use<T, S>
where
    S: Service<(TimedConnection<T>, Option<SocketAddr>), Response = (), Error = DispatchError>,
{
    // On the heap: each future around it would have room for it twice, as what it is given and as what it awaits.
    let (serving, edge) = (Box::pin(http.call((io, peer))), edge.clone());
    async move { serving.await.inspect_err(|why| edge.no_http(peer, why)) }
}

/// Answers a request, and notes at its connection that it is under way, and that it succeeded.
///
/// The calls that locks live by are answered directly, by a future on the heap: connections without one have no room for
/// it.
fn answered<S>(
    request: Request,
    calls: &DirectCalls,
    app: &S,
    max_body_bytes: u64,
) -> impl Future<Output = Result<Response<BoxBody>, S::Error>> + use<S>
where
    S: Service<Request, Response = ServiceResponse>,
{
    let place = request.conn_data::<Arc<ConnectionPermit>>().cloned();
    let uses_locks = *request.method() == Method::POST;
    let declared = if uses_locks { declared(&request, max_body_bytes) } else { 0 };
    let busy = place.as_ref().map(|place| place.activity().begin(declared));
    let answer = match calls.find(request.head()) {
        Some(call) => {
            let (head, payload) = request.into_parts();
            Either::Left(Box::pin(call.answer(head, payload)))
        }
        None => Either::Right(app.call(request)),
    };
    async move {
        let answer: Response<BoxBody> = match answer {
            Either::Left(answer) => answer.await.into(),
            Either::Right(answer) => answer.await?.into(),
        };
        if let Some(busy) = &busy
            && answer.body().size() == BodySize::Stream
        {
            busy.streams();
        }
        if let Some(place) = place
            && uses_locks
            && answer.status() == StatusCode::OK
        {
            place.succeeded();
        }
        Ok(answer)
    }
}

/// How much of a body may come behind the head.
fn declared(request: &Request, max_body_bytes: u64) -> u64 {
    let length = request.head().headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(max_body_bytes)
}
