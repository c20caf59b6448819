//! A running server, as commands see it: its HTTP API under one key.
//!
//! The key comes from a variable or a file, never from the command line, where every
//! process of the machine could read it. The key says which project it is about.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base::{Digest, Secret};
use clap::Args;
use gateway::egress::{read_capped, uri_of};
use gateway::{Allow, Egress, EgressConfig};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::provider::read_secret;
use crate::error::AppError;
use crate::evaluators::Kept;
use crate::gitops::{
    Applied, BlobOf, ExportedTree, MAX_BLOB_BYTES, MAX_SENT_BYTES, Planned, SentTree, Validated,
};

/// How long a server may work on one request: an apply of a whole project.
const WORK: Duration = Duration::from_secs(300);
/// How long an answer may pause.
const IDLE: Duration = Duration::from_secs(60);
/// Where the key is, unless said.
const KEY_VARIABLE: &str = "MEGURI_API_KEY";
/// The largest answer: an export.
const MAX_ANSWER_BYTES: usize = 512 << 20;

#[derive(Args, Clone)]
pub(super) struct ServerArgs {
    /// Work on this running server instead of the data directory: https://…; the key decides the project.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The environment variable that holds the key for the server; MEGURI_API_KEY unless said.
    #[arg(
        long,
        value_name = "NAME",
        requires = "url",
        conflicts_with = "key_file"
    )]
    key_env: Option<String>,
    /// A file whose content is the key for the server; - is stdin.
    #[arg(long, value_name = "FILE", requires = "url")]
    key_file: Option<String>,
    /// Send the key over plain http to another machine.
    #[arg(long, requires = "url")]
    allow_http: bool,
}

impl ServerArgs {
    pub(super) fn is_given(&self) -> bool {
        self.url.is_some()
    }
}

/// A server and the key for it.
pub(super) struct Remote {
    egress: Egress,
    base: Url,
    authorization: Secret<HeaderValue>,
}

/// The part of a refusal that is shown.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalDetail,
}

#[derive(Deserialize)]
struct RefusalDetail {
    message: String,
    hint: Option<String>,
    at: Option<String>,
}

impl Remote {
    /// The server that was named; `None` when none was.
    pub(super) fn open(args: &ServerArgs) -> anyhow::Result<Option<Self>> {
        let Some(text) = &args.url else {
            return Ok(None);
        };
        let base = server_url(text, args.allow_http)?;
        let key = match (&args.key_file, args.key_env.as_deref()) {
            (Some(path), _) => {
                read_secret(path).with_context(|| format!("reading the key from {path}"))?
            }
            (None, name) => key_of(name.unwrap_or(KEY_VARIABLE))?,
        };
        if key.expose().is_empty() {
            bail!(
                "the key for {} is empty",
                base.origin().ascii_serialization()
            );
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
            .map_err(|_| anyhow::anyhow!("the key has characters that no key has"))?;
        header.set_sensitive(true);
        Ok(Some(Self {
            egress: Egress::new(EgressConfig::default()),
            base,
            authorization: Secret::new(header),
        }))
    }

    pub(super) async fn export(&self) -> anyhow::Result<ExportedTree> {
        self.get("api/v1/gitops/export").await
    }

    pub(super) async fn validate(&self, sent: &SentTree) -> anyhow::Result<Validated> {
        self.post("api/v1/gitops/validate", sent).await
    }

    pub(super) async fn plan(&self, sent: &SentTree) -> anyhow::Result<Planned> {
        self.post("api/v1/gitops/plan", sent).await
    }

    pub(super) async fn apply(&self, sent: &SentTree) -> anyhow::Result<Applied> {
        self.post("api/v1/gitops/apply", sent).await
    }

    pub(super) async fn put_blob(&self, digest: &Digest, bytes: Vec<u8>) -> anyhow::Result<()> {
        let path = format!("api/v1/gitops/blobs/{digest}");
        let body = Some(("application/octet-stream", Bytes::from(bytes)));
        self.call(Method::PUT, &path, body, MAX_ANSWER_BYTES)
            .await?;
        Ok(())
    }

    /// Keeps a module for evaluators.
    pub(super) async fn keep_module(&self, bytes: Vec<u8>) -> anyhow::Result<Kept> {
        let body = Some(("application/wasm", Bytes::from(bytes)));
        let path = "api/v1/evaluator-modules";
        let bytes = self
            .call(Method::POST, path, body, MAX_ANSWER_BYTES)
            .await?;
        self.read(&bytes)
    }

    /// A blob, which must be the one that was asked for.
    pub(super) async fn blob(&self, blob: &BlobOf) -> anyhow::Result<Vec<u8>> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("kind", &blob.kind)
            .append_pair("document", &blob.document)
            .finish();
        let path = format!("api/v1/gitops/blobs/{}?{query}", blob.digest);
        let bytes = self.call(Method::GET, &path, None, MAX_BLOB_BYTES).await?;
        if Digest::of(&bytes).to_string() != blob.digest {
            bail!("{} sent other bytes as {}", self.shown(), blob.digest);
        }
        Ok(bytes.into())
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let bytes = self.call(Method::GET, path, None, MAX_ANSWER_BYTES).await?;
        self.read(&bytes)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let bytes = serde_json::to_vec(body).context("writing the request")?;
        if bytes.len() > MAX_SENT_BYTES {
            bail!(
                "this is {} MiB, and a server takes at most {} MiB at once",
                bytes.len() >> 20,
                MAX_SENT_BYTES >> 20
            );
        }
        let body = Some(("application/json", Bytes::from(bytes)));
        let bytes = self
            .call(Method::POST, path, body, MAX_ANSWER_BYTES)
            .await?;
        self.read(&bytes)
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(bytes).with_context(|| {
            format!(
                "{} answered in a way that this meguri ({}) does not know; is it of another version?",
                self.shown(),
                env!("CARGO_PKG_VERSION")
            )
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
        most_bytes: usize,
    ) -> anyhow::Result<Bytes> {
        let failed = || format!("calling {}", self.shown());
        let url = self.base.join(path).with_context(failed)?;
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = uri_of(&url).with_context(failed)?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.expose().clone());
        if let Some((kind, bytes)) = body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            *request.body_mut() = Full::new(bytes);
        }
        let response = self.egress.send(request, Allow::Private, WORK).await;
        let mut response = response.with_context(failed)?;
        let status = response.status();
        let bytes = read_capped(response.body_mut(), most_bytes, IDLE)
            .await
            .with_context(failed)?;
        if status.is_success() {
            Ok(bytes)
        } else {
            Err(self.refusal(status, &bytes))
        }
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> anyhow::Error {
        let Ok(refusal) = serde_json::from_slice::<Refusal>(bytes) else {
            let shown = self.shown();
            return anyhow::anyhow!(
                "{shown} answered {status}; is that the address of a Meguri server?"
            );
        };
        let detail = refusal.error;
        let message = match detail.at {
            Some(at) => format!("{at}: {}", detail.message),
            None => detail.message,
        };
        let mut error = AppError::new_status(status, "refused", message);
        error.hint = detail.hint;
        error.into()
    }

    /// The address without anything secret.
    fn shown(&self) -> String {
        self.base.to_string()
    }
}

fn key_of(variable: &str) -> anyhow::Result<Secret<String>> {
    let key = std::env::var(variable).with_context(|| {
        format!("reading the key for --url from the variable {variable} (--key-env and --key-file name other places)")
    })?;
    Ok(Secret::new(key.trim().to_owned()))
}

/// The address of a server, ending in a slash.
fn server_url(text: &str, allow_http: bool) -> anyhow::Result<Url> {
    let mut url: Url = text
        .parse()
        .with_context(|| format!("--url {text:?} is no address"))?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_plain || !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        bail!("--url is https:// and a server's name, without user, query and fragment");
    }
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !is_here && !allow_http {
        bail!("the key would travel in the clear: use https, or say --allow-http");
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}
