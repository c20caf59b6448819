//! The one way in: the accept loop, the route table, and the checks that stand
//! before every handler.
//!
//! A route exists only if a feature lists it with its access; what is not in
//! the table is refused. The order of the checks is fixed here: address (Host),
//! path form, cross-site, body size, then identity and permission, then the
//! handler. Security headers go on every response, errors included.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service as _;

use crate::app::App;
use crate::auth::{self, Permission};
use crate::error::AppError;
use crate::openapi::Doc;
use crate::surface::Surface;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, signed in or not.
    Public,
    /// Anybody who is signed in or holds a key, whatever the role.
    SignedIn,
    /// Holders of this permission in the project at hand.
    Needs(Permission),
    /// Holders of the first permission where the `{kind}` of the path is `prompt`, of
    /// the second for every other kind.
    OfKind(Permission, Permission),
}

impl Access {
    /// The permission that a request for this path needs, if it needs one.
    fn permission(self, route: &str, path: &str) -> Option<Permission> {
        match self {
            Self::Public | Self::SignedIn => None,
            Self::Needs(permission) => Some(permission),
            Self::OfKind(for_prompts, for_others) => {
                let mut pairs = route.split('/').zip(path.split('/'));
                let kind = pairs.find(|(segment, _)| *segment == "{kind}");
                let is_prompt = kind.is_some_and(|(_, kind)| kind == crate::prompts::KIND);
                Some(if is_prompt { for_prompts } else { for_others })
            }
        }
    }
}

/// One entry of the route table.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{name}` for parameters.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// How the OpenAPI document describes it; pages have none.
    pub doc: Option<Doc>,
    handler: MethodRouter<App>,
}

impl Route {
    fn new<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        Self {
            method,
            path,
            access,
            body_limit: 256 << 10,
            doc: None,
            handler: on(filter, handler),
        }
    }

    /// A route that reads.
    pub fn get<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self {
        Self::new(Method::GET, path, access, handler)
    }

    /// A route that creates or acts.
    pub fn post<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self {
        Self::new(Method::POST, path, access, handler)
    }

    /// A route that sets.
    pub fn put<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self {
        Self::new(Method::PUT, path, access, handler)
    }

    /// A route that changes a part.
    pub fn patch<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self {
        Self::new(Method::PATCH, path, access, handler)
    }

    /// A route that removes.
    pub fn delete<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self {
        Self::new(Method::DELETE, path, access, handler)
    }

    /// Allows larger bodies than the usual 256 KiB.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Describes the route in the OpenAPI document.
    pub fn doc(mut self, doc: Doc) -> Self {
        self.doc = Some(doc);
        self
    }
}

/// Every route of the product. A feature that is not listed here does not exist.
pub fn routes() -> Vec<Route> {
    [
        crate::meta::routes(),
        crate::inference::routes(),
        crate::traces::routes(),
        crate::scores::routes(),
        crate::overview::routes(),
        crate::playground::routes(),
        crate::prompts::routes(),
        crate::apps::routes(),
        crate::guards::routes(),
        crate::releases::routes(),
        crate::sdk::routes(),
        crate::catalog::routes(),
        crate::experiments::routes(),
        crate::evaluations::routes(),
        crate::calibration::routes(),
        crate::improve::routes(),
        crate::evaluators::routes(),
        crate::live::routes(),
        crate::choice::routes(),
        crate::datasets::routes(),
        crate::review::routes(),
        crate::gitops::routes(),
        crate::models::routes(),
        crate::providers::routes(),
        crate::prices::routes(),
        crate::promotion::routes(),
        crate::audit::routes(),
        crate::keys::routes(),
        crate::members::routes(),
        crate::setup::routes(),
        crate::sessions::routes(),
        crate::ui::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the checks need to know of a route.
#[derive(Debug, Clone, Copy)]
struct Rule {
    access: Access,
    body_limit: usize,
}

/// By path, then by method.
type Rules = HashMap<&'static str, Vec<(Method, Rule)>>;

/// The router behind all checks.
#[derive(Clone)]
pub struct Http {
    app: App,
    router: Router,
}

impl Http {
    /// Builds the router from the route table.
    pub fn new(app: App) -> Self {
        let mut rules = Rules::new();
        let mut router = Router::new();
        for route in routes() {
            let limit = if route.body_limit == usize::MAX {
                app.config.file.limits.inference_body_bytes
            } else {
                route.body_limit
            };
            let rule = Rule {
                access: route.access,
                body_limit: limit,
            };
            rules
                .entry(route.path)
                .or_default()
                .push((route.method.clone(), rule));
            router = router.route(route.path, route.handler);
        }
        let gate = Gate {
            app: app.clone(),
            rules: Arc::new(rules),
        };
        let router = router
            .route_layer(axum::middleware::from_fn_with_state(gate, authorise))
            .method_not_allowed_fallback(async || {
                AppError::not_found("this path does not take that method")
                    .code("method_not_allowed")
            })
            .fallback(async || AppError::not_found("there is nothing at this address"))
            .with_state(app.clone());
        Self { app, router }
    }

    /// Answers one request: checks, handler, error shape, headers.
    pub async fn answer(mut self, connection: Connection, mut request: Request) -> Response {
        let context = RequestContext::new(&self.app, &request);
        request.extensions_mut().insert(context.clone());
        request.extensions_mut().insert(connection);
        let (head, body) = request.into_parts();
        let checked = check_request(&self.app, &head, &connection);
        let view = ErrorView::of(&head);
        let mut response = match checked {
            Err(error) => error.into_response(),
            Ok(()) => {
                let call = async {
                    let Ok(response) = self.router.call(Request::from_parts(head, body)).await;
                    response
                };
                // What the request changes says in the audit log which request it was.
                let call = db::audit::with_request(context.id.to_string(), call);
                // A panic is our bug; the other calls on this server are not to blame for it.
                AssertUnwindSafe(call)
                    .catch_unwind()
                    .await
                    .unwrap_or_else(|_| {
                        AppError::internal(anyhow::anyhow!("a handler panicked")).into_response()
                    })
            }
        };
        if let Some(error) = response.extensions_mut().remove::<Arc<AppError>>() {
            log_error(&error, &context, &view);
            response = crate::surface::shape(&self.app, &error, &context, &view).await;
        }
        finish(&self.app, &context, &mut response);
        response
    }
}

/// What identifies and decorates one request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Sent as `x-request-id` and logged; for inference calls also the trace id.
    pub id: base::TraceId,
    /// The CSP nonce of this response's scripts and htmx elements.
    pub nonce: String,
    /// When the request arrived, in microseconds since the epoch.
    pub arrived_us: i64,
}

impl RequestContext {
    fn new(app: &App, request: &Request) -> Self {
        let wants_page = Surface::of(request.uri().path()) == Surface::Page;
        let nonce = if wants_page {
            let mut bytes = [0; 16];
            app.random.fill(&mut bytes);
            URL_SAFE_NO_PAD.encode(bytes)
        } else {
            String::new()
        };
        Self {
            id: app.ids.make(),
            nonce,
            arrived_us: app.clock.now_us(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| AppError::internal(anyhow::anyhow!("no request context")))
    }
}

/// Both ends of the TCP connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Our side.
    pub local: SocketAddr,
    /// The client's side.
    pub peer: SocketAddr,
}

/// What the error page needs of a request that is consumed by then.
pub struct ErrorView {
    /// The method.
    pub method: Method,
    /// The path as it was sent.
    pub path: String,
    /// Headers, for language and theme; only pages need them.
    pub headers: axum::http::HeaderMap,
}

impl ErrorView {
    fn of(head: &Parts) -> Self {
        let path = head.uri.path().to_owned();
        let headers = match Surface::of(&path) {
            Surface::Page => head.headers.clone(),
            Surface::OpenAi | Surface::Api | Surface::Langfuse | Surface::Mlflow => {
                axum::http::HeaderMap::new()
            }
        };
        Self {
            method: head.method.clone(),
            path,
            headers,
        }
    }
}

fn check_request(app: &App, head: &Parts, connection: &Connection) -> Result<(), AppError> {
    app.hosts.check(head, connection)?;
    check_path(head.uri.path())?;
    auth::check_cross_site(app, head)
}

/// One spelling for each address: empty and dot segments, backslashes and NUL
/// never reach the router. An encoded slash stays inside its parameter: the router
/// matches the raw path and the rule is looked up by the route, not by the path.
fn check_path(path: &str) -> Result<(), AppError> {
    let lower = path.to_ascii_lowercase();
    let odd = path.contains("//")
        || lower.contains("%2e%2e")
        || lower.contains("%00")
        || lower.contains("%5c")
        || path
            .split('/')
            .any(|segment| segment == "." || segment == "..");
    if odd {
        Err(AppError::not_found("there is nothing at this address"))
    } else {
        Ok(())
    }
}

#[derive(Clone)]
struct Gate {
    app: App,
    rules: Arc<Rules>,
}

/// Runs after the route is known and before its handler: body limit, identity,
/// permission. A matched path without a rule is refused.
async fn authorise(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match admit(&gate, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn admit(gate: &Gate, request: Request) -> Result<Request, AppError> {
    let (mut head, body) = request.into_parts();
    let method = if head.method == Method::HEAD {
        &Method::GET
    } else {
        &head.method
    };
    let matched = head
        .extensions
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let rule = gate
        .rules
        .get(matched)
        .and_then(|rules| rules.iter().find(|(known, _)| known == method));
    // `/v1/traces` has the form of a project's page, but a program that asks there for an API must not get a page.
    let first = head.uri.path().split('/').nth(1).unwrap_or_default();
    let is_mistaken = matched.starts_with("/{project}") && crate::ui::is_reserved(first);
    let Some(&(_, rule)) = rule.filter(|_| !is_mistaken) else {
        return Err(AppError::not_found("there is nothing at this address"));
    };
    check_length(&head, rule.body_limit)?;
    let needed = rule.access.permission(matched, head.uri.path());
    if rule.access != Access::Public {
        let actor = auth::identify(&gate.app, &mut head).await?;
        if let Some(permission) = needed {
            actor.require(permission)?;
        }
        head.extensions.insert(actor);
    }
    let body = Body::new(http_body_util::Limited::new(body, rule.body_limit));
    head.extensions.insert(BodyLimit(rule.body_limit));
    Ok(Request::from_parts(head, body))
}

/// The limit that the current route's body is read under.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

fn check_length(head: &Parts, limit: usize) -> Result<(), AppError> {
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit as u64 => Err(AppError::too_large(limit)),
        _ => Ok(()),
    }
}

fn log_error(error: &AppError, context: &RequestContext, view: &ErrorView) {
    if error.status.is_server_error() {
        let cause = error
            .source
            .as_ref()
            .map(|source| format!("{source:#}"))
            .unwrap_or_default();
        tracing::error!(
            request.id = %context.id, http.method = %view.method, http.path = %view.path,
            error.code = error.code, error.cause = cause, "request failed: {}", error.message
        );
    }
}

const CSP_FOR_DATA: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

fn finish(app: &App, context: &RequestContext, response: &mut Response) {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.entry(name).or_insert(value);
        }
    };
    set(
        HeaderName::from_static("x-request-id"),
        &context.id.to_string(),
    );
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    if app.config.is_https() {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    set(header::CACHE_CONTROL, "no-store");
    if context.nonce.is_empty() {
        set(header::CONTENT_SECURITY_POLICY, CSP_FOR_DATA);
        return;
    }
    let nonce = &context.nonce;
    let policy = format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; \
         img-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'; trusted-types htmx; require-trusted-types-for 'script'"
    );
    set(header::CONTENT_SECURITY_POLICY, &policy);
}

impl IntoResponse for AppError {
    /// A bare status that carries the error; [`Http::answer`] gives it the shape of the surface.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// How long a client may leave written bytes untaken before its connection is
/// closed. A stream to a client that stopped reading would otherwise hold its
/// upstream call for ever.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// Accepts connections until `stop` resolves, then lets calls in flight finish
/// for at most `drain`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> anyhow::Result<()> {
    let connections = Arc::new(tokio::sync::Semaphore::new(
        app.config.file.limits.connections,
    ));
    let stopping = app.stopping.clone();
    let http = Http::new(app);
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    loop {
        // One arm: at the connection limit the server must still hear that it shall stop.
        let accept = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            (permit, accepted) = accept => match accepted {
                Ok((stream, peer)) => {
                    let permit = permit.context("the connection limit is closed")?;
                    if let Some(connection) = open_connection(http.clone(), stream, peer, &graceful) {
                        tasks.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    // Out of file descriptors, or the client left: neither ends the server.
                    tracing::warn!(error.message = %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = tokio::time::timeout(drain, graceful.shutdown()).await;
    tasks.shutdown().await;
    Ok(())
}

fn open_connection(
    http: Http,
    stream: TcpStream,
    peer: SocketAddr,
    graceful: &hyper_util::server::graceful::GracefulShutdown,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    // Without this, small streamed frames wait up to 40 ms for the client's delayed ACK.
    stream.set_nodelay(true).ok()?;
    let local = stream.local_addr().ok()?;
    let stream = crate::stall::StallGuard::new(stream, WRITE_STALL);
    let connection = Connection { local, peer };
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let http = http.clone();
            async move {
                let (head, body) = request.into_parts();
                let (body, leftover) = crate::leftover::lend(&head, body);
                let request = hyper::Request::from_parts(head, body);
                let mut answer = http.answer(connection, request).await;
                if let Some(leftover) = leftover {
                    leftover.settle(answer.headers_mut()).await;
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(15))
        .max_headers(100)
        .max_buf_size(64 << 10)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let watched = graceful.watch(
        builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned(),
    );
    Some(async move {
        if let Err(error) = watched.await {
            tracing::debug!(error.message = %error, "a connection ended early");
        }
    })
}

/// Which `Host` names the server answers to. A browser that was lured to a
/// foreign name which resolves to this machine sends that name: refusing it
/// stops DNS rebinding, also on loopback.
#[derive(Debug, Clone)]
pub struct Hosts {
    names: Vec<String>,
    origins: Vec<String>,
}

impl Hosts {
    /// The names that the configuration allows.
    pub fn new(config: &crate::config::Config) -> Self {
        let file = &config.file;
        let port = file.listen.port();
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"]
            .map(str::to_owned)
            .to_vec();
        names.push(match file.listen.ip() {
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            ip => ip.to_string(),
        });
        let mut origins: Vec<String> = names
            .iter()
            .map(|name| format!("http://{name}:{port}"))
            .collect();
        let public = file
            .public_url
            .as_deref()
            .and_then(|url| url::Url::parse(url).ok());
        if let Some(url) = public {
            names.extend(url.host_str().map(str::to_ascii_lowercase));
            origins.push(url.origin().ascii_serialization());
        }
        names.extend(
            file.allowed_hosts
                .iter()
                .map(|host| host.to_ascii_lowercase()),
        );
        Self { names, origins }
    }

    fn check(&self, head: &Parts, connection: &Connection) -> Result<(), AppError> {
        let headers = head
            .headers
            .get_all(header::HOST)
            .iter()
            .map(|host| host.to_str().unwrap_or_default());
        // HTTP/2 carries the name in the request target, and HTTP/1.1 may. Whoever gives several
        // names means different ones for different readers: all must be ours.
        let mut hosts = headers
            .chain(head.uri.authority().map(|authority| authority.as_str()))
            .peekable();
        if hosts.peek().is_none() {
            return Err(AppError::invalid("the request names no host").code("no_host"));
        }
        hosts.try_for_each(|host| self.check_name(host, connection))
    }

    fn check_name(&self, host: &str, connection: &Connection) -> Result<(), AppError> {
        let name = strip_port(host).to_ascii_lowercase();
        let own_address = match connection.local.ip() {
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        if name == own_address || self.names.contains(&name) {
            return Ok(());
        }
        let mut error = AppError::new_status(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            format!("this server does not answer to the name {name:?}"),
        );
        error.hint = Some("set public_url or allowed_hosts in the configuration".to_owned());
        Err(error)
    }

    /// Whether an `Origin` header names this server, as the request reached it.
    pub fn is_own_origin(&self, origin: &str, host: Option<&str>) -> bool {
        self.origins.iter().any(|own| own == origin)
            || host.is_some_and(|host| {
                origin
                    .strip_prefix("http://")
                    .or_else(|| origin.strip_prefix("https://"))
                    == Some(host)
            })
    }
}

fn strip_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // `127.0.0.1:80@evil.test` has no port at its end: what stands before the colon is not the name.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
