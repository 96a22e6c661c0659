//! How a connection is made: TCP, and TLS on it where the endpoint asks for it.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use actix_rt::net::{ActixStream, Ready, TcpStream};
use actix_service::Service;
use actix_tls::connect::{
    ConnectError, ConnectInfo, Connection, Connector as TcpConnector, Resolver,
};
use awc::http::Uri;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::strict::Strict;

/// Marks a failed TLS handshake: nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
#[error("the TLS handshake failed")]
struct HandshakeFailed;

/// Whether an error is a failed TLS handshake.
pub(super) fn is_handshake(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<HandshakeFailed>())
}

/// Makes connections of one sort: clear text without a TLS configuration, TLS with one.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls }
    }
}

impl Service<ConnectInfo<Uri>> for Connector {
    type Response = Connection<Uri, Strict>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    actix_service::always_ready!();

    fn call(&self, request: ConnectInfo<Uri>) -> Self::Future {
        let tls = self.tls.clone();
        let tcp = TcpConnector::new(Resolver::default()).service();
        Box::pin(async move {
            let (stream, connection) = tcp.call(request).await?.replace_io(());
            let strict = match tls {
                None => Strict::new(Box::new(stream)),
                Some(tls) => {
                    let encrypted = handshake(tls, connection.hostname(), stream).await;
                    Strict::new(Box::new(encrypted.map_err(ConnectError::Io)?))
                }
            };
            Ok(connection.replace_io(strict).1)
        })
    }
}

async fn handshake(tls: Arc<ClientConfig>, host: &str, stream: TcpStream) -> io::Result<Encrypted> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name =
        ServerName::try_from(bare.to_owned()).map_err(|_| io::Error::other(HandshakeFailed))?;
    match TlsConnector::from(tls).connect(name, stream).await {
        Ok(stream) => Ok(Encrypted(stream)),
        Err(error) => {
            // The kind of failure is what an operator needs, and the one place where it is known is
            // here.
            tracing::warn!(host, %error, "the TLS handshake with the vendor failed");
            Err(io::Error::other(HandshakeFailed))
        }
    }
}

/// A TLS stream that the HTTP client accepts: readiness is that of the socket below.
#[derive(Debug)]
struct Encrypted(TlsStream<TcpStream>);

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl ActixStream for Encrypted {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.0.get_ref().0, context)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.0.get_ref().0, context)
    }
}
