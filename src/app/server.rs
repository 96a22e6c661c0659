//! The server: HTTP/1.1 on a socket, in clear text or encrypted, with the same limits.

use std::{
    fmt,
    future::{Future, ready},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_http::{HttpServiceBuilder, Request, Response, body::BoxBody, error::DispatchError};
use actix_service::{
    IntoServiceFactory as _, ServiceFactoryExt as _, fn_factory, fn_service, map_config,
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, Extensions, Server, Service, ServiceFactory, ServiceResponse},
    web,
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::{
    api,
    listener::{Connections, HEAD_TIMEOUT, Peer, Place, Tls, Watched},
    upstream::{Lane, Upstream},
};

/// How long a connection without requests is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that the orderly end of a connection may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the API on a listener, encrypted if there is something to encrypt with. The numbers:
/// threads, and how long a stop may take.
pub(super) fn run(
    listener: TcpListener,
    (connections, tls): (Connections, Option<Tls>),
    (state, upstream): (web::Data<api::State>, Upstream),
    (workers, drain_timeout): (usize, Duration),
) -> io::Result<Server> {
    let builder = Server::build()
        .workers(workers)
        .shutdown_timeout(drain_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let stopped = move || {
        let stopping = stopping.clone();
        async move { stopping.notified().await }
    };
    // Nothing is made of the address by which this machine is known: links are relative, or begin
    // with the public URL.
    let apps = move || {
        let services = upstream
            .services(Lane::Callers)
            .expect("the engine's thread has built the same from the same settings");
        let services = Rc::new(services);
        let app = || {
            let app = api::app(state.clone(), Rc::clone(&services)).into_factory();
            let app = app.map_err(|error: Error| error.error_response().into());
            map_config(app, |()| AppConfig::default())
        };
        (app(), expecting(state.clone(), app()))
    };
    let builder = match tls {
        None => builder.listen("http", listener, move || {
            let connections = connections.clone();
            let admit = fn_service(move |stream: TcpStream| {
                let admitted = admit(&connections, &stream);
                ready(admitted.map(|(place, peer)| (Watched::new(stream, place), Some(peer))))
            });
            let keep = |stream: &Watched<TcpStream>, kept: &mut Extensions| {
                kept.insert(stream.exchange());
            };
            let (app, expecting) = apps();
            let http = http(stopped.clone()).on_connect_ext(keep);
            admit.and_then(http.expect(expecting).h1(app))
        }),
        Some(tls) => builder.listen("https", listener, move || {
            let (connections, acceptor, at_stop) =
                (connections.clone(), tls.clone(), stopped.clone());
            let handshake = fn_service(move |stream: TcpStream| {
                let (acceptor, stopped) = (acceptor.clone(), at_stop());
                let admitted = admit(&connections, &stream);
                async move {
                    let (place, peer) = admitted?;
                    let stream = accept(&acceptor, stream, stopped).await?;
                    Ok((Watched::new(stream, place), Some(peer)))
                }
            });
            let at_connect = tls.clone();
            let keep = move |stream: &Watched<TlsStream<TcpStream>>, kept: &mut Extensions| {
                kept.insert(stream.exchange());
                if let Some(peer) = Peer::of(stream.stream(), &at_connect) {
                    kept.insert(peer);
                }
            };
            let (app, expecting) = apps();
            let http = http(stopped.clone()).on_connect_ext(keep);
            handshake.and_then(http.expect(expecting).h1(app))
        }),
    };
    Ok(builder?.run())
}

/// The place of a connection and the address of its peer. One too many is closed without a word: an
/// answer would cost more than it says.
fn admit(
    connections: &Connections,
    stream: &TcpStream,
) -> Result<(Place, SocketAddr), DispatchError> {
    let peer = stream.peer_addr()?;
    let place = connections.admit(peer.ip());
    let place = place.ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
    Ok((place, peer))
}

/// An encrypted connection. A stop does not wait for a handshake.
async fn accept(
    tls: &Tls,
    stream: TcpStream,
    stopped: impl Future<Output = ()>,
) -> Result<TlsStream<TcpStream>, DispatchError> {
    tokio::select! {
        accepted = tls.accept(stream) => Ok(accepted?),
        () = stopped => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
    }
}

/// Answers who asks whether to send a body (`Expect: 100-continue`): at once, if the answer is no
/// whatever the body is.
fn expecting<A, B>(
    state: web::Data<api::State>,
    app: A,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = Request,
    Error = Response<BoxBody>,
    InitError = A::InitError,
>
where
    A: ServiceFactory<
            Request,
            Config = (),
            Response = ServiceResponse<B>,
            Error = Response<BoxBody>,
        > + 'static,
    A::Service: 'static,
    B: MessageBody + 'static,
{
    fn_factory(move || {
        let (state, app) = (state.clone(), app.new_service(()));
        async move {
            let app = Rc::new(app.await?);
            Ok(fn_service::<_, _, _, _, _, ()>(move |request: Request| {
                let (state, app) = (state.clone(), Rc::clone(&app));
                async move {
                    let (headers, peer) = (&request.head().headers, request.conn_data());
                    if !api::is_refused_by_head(&state, request.path(), headers, peer) {
                        return Ok(request);
                    }
                    Err(match app.call(request).await {
                        Ok(response) => Response::from(response.map_into_boxed_body()),
                        Err(response) => response,
                    })
                }
            }))
        }
    })
}

/// HTTP with limits, until the server stops.
fn http<T, S, U>(stopped: impl Fn() -> U + 'static) -> HttpServiceBuilder<T, S>
where
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: fmt::Debug,
    <S::Service as Service<Request>>::Future: 'static,
    U: Future<Output = ()> + 'static,
{
    HttpServiceBuilder::default()
        .keep_alive(IDLE_TIMEOUT)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .graceful_shutdown_signal(stopped)
}
