//! The one way out: every HTTP request that the product sends goes through here.
//!
//! A host is resolved once, every address it has is checked, and the connection
//! is made to a checked address, so nothing can change between check and use. No
//! redirects unless [`Egress::get`] follows them, no proxy variables, no cookies,
//! no decompression. Two pools that never mix: one for targets that must be
//! public, one for targets that an operator allowed to be private; else a private
//! connection that is kept alive would serve a request that may not use it.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::net::is_public;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

/// Which addresses a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Public ones only.
    Public,
    /// Any: an operator's configuration says so for this target.
    Private,
}

/// Looks a host name up. Tests bring their own.
pub type Resolver = Arc<dyn Fn(String) -> ResolverFuture + Send + Sync>;
/// The answer of a [`Resolver`].
pub type ResolverFuture = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;

/// Settings of the client.
#[derive(Clone)]
pub struct EgressConfig {
    /// Resolving, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle: Duration,
    /// Unused connections per host.
    pub pool_per_host: usize,
    /// Trusted besides the machine's own certificates.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The system's resolver when none.
    pub resolver: Option<Resolver>,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            pool_idle: Duration::from_secs(60),
            pool_per_host: 64,
            extra_roots: Vec::new(),
            resolver: None,
        }
    }
}

/// Why a request got no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The host has an address that may not be reached.
    #[error(
        "{host} is at {address}, which is not a public address; an operator can allow it in the configuration"
    )]
    Refused {
        /// The host as written.
        host: String,
        /// Its offending address.
        address: IpAddr,
    },
    /// The request itself cannot be sent: no host, another scheme.
    #[error("cannot send a request to {0}")]
    BadTarget(String),
    /// No address, no connection, or no TLS session.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// The host as written.
        host: String,
        /// What the system said.
        reason: String,
    },
    /// Connecting took too long.
    #[error("connecting to {0} took too long")]
    ConnectTimeout(String),
    /// The connection stood, but no response headers came in time.
    #[error("{0} sent no response in time")]
    HeaderTimeout(String),
    /// The connection broke, or what came was not HTTP.
    #[error("the connection to {host} broke: {reason}")]
    Broken {
        /// The host as written.
        host: String,
        /// What the HTTP layer said.
        reason: String,
    },
    /// The body stopped coming.
    #[error("the answer stopped coming")]
    IdleTimeout,
    /// More bytes than the caller wants.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A chain of redirects without end, or one that leaves HTTPS.
    #[error("the redirect to {0} was not followed")]
    Redirect(String),
}

/// The client. Cheap to clone; make one per process.
#[derive(Clone)]
pub struct Egress {
    public: Client<Connector, Full<Bytes>>,
    private: Client<Connector, Full<Bytes>>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Egress")
    }
}

impl Egress {
    /// A client. Opens nothing and loads no certificates until it is used.
    pub fn new(config: EgressConfig) -> Self {
        let shared = Arc::new(Shared {
            config,
            tls: OnceCell::new(),
        });
        let build = |allow| {
            let mut builder = Client::builder(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(shared.config.pool_idle)
                .pool_max_idle_per_host(shared.config.pool_per_host)
                .http1_max_headers(128)
                .http1_max_buf_size(256 << 10)
                .http2_max_header_list_size(64 << 10)
                .http2_initial_stream_window_size(1 << 20)
                .http2_initial_connection_window_size(4 << 20)
                .http2_keep_alive_interval(Duration::from_secs(30))
                .http2_keep_alive_timeout(Duration::from_secs(10));
            builder.build(Connector {
                shared: shared.clone(),
                allow,
            })
        };
        Self {
            public: build(Allow::Public),
            private: build(Allow::Private),
        }
    }

    /// Sends a request and waits for the response's headers. Dropping the future,
    /// or the response's body, ends the exchange at once.
    ///
    /// # Errors
    /// See [`EgressError`]; a response of any status is not an error.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        allow: Allow,
        header_timeout: Duration,
    ) -> Result<Response<Incoming>, EgressError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let agent = HeaderValue::from_static(concat!("meguri/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        let client = match allow {
            Allow::Public => &self.public,
            Allow::Private => &self.private,
        };
        match tokio::time::timeout(header_timeout, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(&error, host)),
            Err(_) => Err(EgressError::HeaderTimeout(host)),
        }
    }

    /// A `GET` that follows up to five redirects, for downloads. Every hop is
    /// checked like the first; on another origin credentials are dropped and only
    /// public addresses are reached; HTTPS never becomes HTTP.
    ///
    /// # Errors
    /// See [`EgressError`]; a final response of any status is not an error.
    pub async fn get(
        &self,
        url: &Url,
        headers: HeaderMap,
        allow: Allow,
        header_timeout: Duration,
    ) -> Result<Response<Incoming>, EgressError> {
        const HOPS: usize = 5;
        let (mut url, mut headers, mut allow) = (url.clone(), headers, allow);
        for _ in 0..=HOPS {
            let mut request = Request::new(Full::default());
            *request.method_mut() = Method::GET;
            *request.uri_mut() = uri_of(&url)?;
            *request.headers_mut() = headers.clone();
            let response = self.send(request, allow, header_timeout).await?;
            let Some(next) = redirect_target(&url, &response)? else {
                return Ok(response);
            };
            if next.origin() != url.origin() {
                allow = Allow::Public;
                drop_credentials(&mut headers);
            }
            url = next;
        }
        Err(EgressError::Redirect(shown(&url)))
    }
}

/// The URL as a request target, without user info.
///
/// # Errors
/// [`EgressError::BadTarget`] when it is not an HTTP URL.
pub fn uri_of(url: &Url) -> Result<Uri, EgressError> {
    let bad = || EgressError::BadTarget(shown(url));
    if !matches!(url.scheme(), "http" | "https")
        || url.host_str().is_none()
        || !url.username().is_empty()
    {
        return Err(bad());
    }
    url[..url::Position::AfterQuery].parse().map_err(|_| bad())
}

/// A URL without the parts that may hold secrets.
fn shown(url: &Url) -> String {
    format!(
        "{}://{}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    )
}

fn redirect_target(from: &Url, response: &Response<Incoming>) -> Result<Option<Url>, EgressError> {
    let follow = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = response.headers().get(LOCATION).filter(|_| follow) else {
        return Ok(None);
    };
    let target = location.to_str().ok().and_then(|text| from.join(text).ok());
    let target = target.ok_or_else(|| EgressError::Redirect(shown(from)))?;
    let downgrade = from.scheme() == "https" && target.scheme() != "https";
    if downgrade || uri_of(&target).is_err() {
        return Err(EgressError::Redirect(shown(&target)));
    }
    Ok(Some(target))
}

fn drop_credentials(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    headers.remove("x-api-key");
}

/// The next piece of a body; `None` at its end.
///
/// # Errors
/// The connection broke, or nothing came for `idle`.
pub async fn next_chunk(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, EgressError> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame())
            .await
            .map_err(|_| EgressError::IdleTimeout)?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Some(Err(error)) => return Err(broken(&error)),
        }
    }
}

/// A whole body of at most `cap` bytes.
///
/// # Errors
/// As [`next_chunk`], or [`EgressError::TooLarge`].
pub async fn read_capped(
    body: &mut Incoming,
    cap: usize,
    idle: Duration,
) -> Result<Bytes, EgressError> {
    let Some(first) = next_chunk(body, idle).await? else {
        return Ok(Bytes::new());
    };
    // Most answers come in one piece, which needs no copy.
    let mut whole = first;
    while let Some(chunk) = next_chunk(body, idle).await? {
        if whole.len() + chunk.len() > cap {
            return Err(EgressError::TooLarge(cap));
        }
        let mut joined = match whole.try_into_mut() {
            Ok(buffer) => buffer,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        joined.extend_from_slice(&chunk);
        whole = joined.freeze();
    }
    if whole.len() > cap {
        Err(EgressError::TooLarge(cap))
    } else {
        Ok(whole)
    }
}

pub(crate) fn broken(error: &hyper::Error) -> EgressError {
    EgressError::Broken {
        host: "the provider".to_owned(),
        reason: deepest(error),
    }
}

/// Finds our own error inside the HTTP client's, or describes what is there.
fn explain(error: &(dyn StdError + 'static), host: String) -> EgressError {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(own) = current.downcast_ref::<EgressError>() {
            return own.clone();
        }
        cause = current.source();
    }
    EgressError::Broken {
        host,
        reason: deepest(error),
    }
}

fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

struct Shared {
    config: EgressConfig,
    /// Certificates are loaded by the first HTTPS connection: they cost memory
    /// that an installation with local models only never needs.
    tls: OnceCell<TlsConnector>,
}

#[derive(Clone)]
struct Connector {
    shared: Arc<Shared>,
    allow: Allow,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, EgressError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (shared, allow) = (self.shared.clone(), self.allow);
        Box::pin(async move {
            let host = target.host().unwrap_or_default().to_owned();
            let limit = shared.config.connect_timeout;
            let connected = tokio::time::timeout(limit, shared.connect(&target, allow)).await;
            connected.unwrap_or(Err(EgressError::ConnectTimeout(host)))
        })
    }
}

impl Shared {
    async fn connect(&self, target: &Uri, allow: Allow) -> Result<Stream, EgressError> {
        let bad = || EgressError::BadTarget(target.to_string());
        let host = target
            .host()
            .ok_or_else(bad)?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let secure = match target.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let port = target.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let addresses = self.checked_addresses(&host, allow).await?;
        let tcp = connect_any(&host, &addresses, port).await?;
        if !secure {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let tls = self
            .tls
            .get_or_try_init(|| load_tls(self.config.extra_roots.clone()))
            .await?;
        let failed = |reason: String| EgressError::Connect {
            host: host.clone(),
            reason,
        };
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
        let stream = tls
            .connect(name, tcp)
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
    }

    /// Every address of the host, or an error when one of them may not be reached:
    /// a host that is half private is a trick, not a choice.
    async fn checked_addresses(
        &self,
        host: &str,
        allow: Allow,
    ) -> Result<Vec<IpAddr>, EgressError> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(literal) => vec![literal],
            Err(_) => self.resolve(host).await?,
        };
        if allow == Allow::Public
            && let Some(&address) = addresses.iter().find(|address| !is_public(**address))
        {
            return Err(EgressError::Refused {
                host: host.to_owned(),
                address,
            });
        }
        Ok(addresses)
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, EgressError> {
        let failed = |reason: String| EgressError::Connect {
            host: host.to_owned(),
            reason,
        };
        let addresses = match &self.config.resolver {
            Some(resolver) => resolver(host.to_owned()).await,
            None => system_resolve(host).await,
        };
        let addresses = addresses.map_err(|error| failed(error.to_string()))?;
        if addresses.is_empty() {
            return Err(failed("the name has no address".to_owned()));
        }
        Ok(addresses)
    }
}

async fn system_resolve(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

async fn connect_any(
    host: &str,
    addresses: &[IpAddr],
    port: u16,
) -> Result<TcpStream, EgressError> {
    // One dead address must not use up the time of the others.
    const EACH: Duration = Duration::from_secs(4);
    let mut reason = String::new();
    for (index, &address) in addresses.iter().enumerate() {
        let attempt = TcpStream::connect(SocketAddr::new(address, port));
        let last = index + 1 == addresses.len();
        let outcome = if last {
            Ok(attempt.await)
        } else {
            tokio::time::timeout(EACH, attempt).await
        };
        match outcome {
            Ok(Ok(stream)) => {
                // Without it a request that is written in two pieces waits 40 ms for an ACK.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => "the address did not answer".clone_into(&mut reason),
        }
    }
    Err(EgressError::Connect {
        host: host.to_owned(),
        reason,
    })
}

async fn load_tls(extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsConnector, EgressError> {
    let loaded = tokio::task::spawn_blocking(move || build_tls(extra_roots)).await;
    let result = loaded.unwrap_or_else(|error| Err(error.to_string()));
    result.map_err(|reason| EgressError::Connect {
        host: "any HTTPS host".to_owned(),
        reason,
    })
}

fn build_tls(extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs.into_iter().chain(extra_roots));
    if roots.is_empty() {
        return Err("this machine has no trusted certificates; install ca-certificates".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_go_to_another_origin() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-api-key",
            "range",
        ] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        drop_credentials(&mut headers);
        assert_eq!(
            headers
                .keys()
                .map(http::HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["range"]
        );
    }
}
