//! `meguri serve` and `meguri up`: the server's life from lock to last fsync.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use super::{Place, message};
use crate::app::App;
use crate::config::{Config, LogFormat};

/// How long calls in flight may take to finish after a stop signal.
const DRAIN: Duration = Duration::from_secs(25);
/// How long background work may take to end after that.
const BACKGROUND: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    place: Place,
    /// The address to listen on.
    #[arg(long, env = "MEGURI_LISTEN")]
    listen: Option<SocketAddr>,
}

#[derive(Args)]
pub(super) struct Up {
    #[command(flatten)]
    place: Place,
    /// The address to listen on.
    #[arg(long, env = "MEGURI_LISTEN")]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        serve(self.place.load(self.listen)?, false).await
    }
}

impl Up {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        serve(self.place.load(self.listen)?, true).await
    }
}

async fn serve(config: Config, with_default_models: bool) -> anyhow::Result<()> {
    crate::memory::few_arenas();
    start_logging(&config)?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("creating the data directory {}", config.data_dir.display()))?;
    let _lock = lock(&config.data_dir)?;
    let address = config.file.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let app = App::open(config).await?;
    if with_default_models {
        crate::models::ensure_defaults(&app).await;
    }
    let mut background = JoinSet::new();
    app.start_background(&mut background);
    announce(&app).await?;
    crate::memory::give_back();
    let served = crate::http::serve(app.clone(), listener, stop_signal(), DRAIN).await;
    tracing::info!("stopping: calls in flight have ended");
    // Jobs give their leases back, so that another server or the next start goes on at once.
    let ended = tokio::time::timeout(BACKGROUND, async {
        while background.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() {
        tracing::warn!("background work did not end in time and is broken off");
        background.shutdown().await;
    }
    app.close().await;
    served
}

/// One server per data directory: two writers would each believe that the
/// active segment is theirs.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("meguri.lock");
    let file = File::create(&path)
        .with_context(|| format!("the data directory is not writable: {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!(
                "another meguri server uses the data directory {}; stop it or choose another directory",
                data_dir.display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let log = &config.file.log;
    let filter =
        EnvFilter::try_new(&log.level).with_context(|| format!("log.level = {:?}", log.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let result = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}

async fn announce(app: &App) -> anyhow::Result<()> {
    tracing::info!(listen = %app.config.file.listen, data_dir = %app.config.data_dir.display(), "meguri serves");
    let listen = app.config.file.listen;
    if !listen.ip().is_loopback() && !app.config.is_https() {
        tracing::warn!(
            "listening beyond this machine without TLS: put a proxy before it and set public_url"
        );
    }
    if crate::setup::is_needed(&app.db).await? {
        let link = crate::setup::make_link(app).await?;
        message(&format!(
            "\n  Open this link once to create the first administrator:\n\n    {}\n",
            link.expose()
        ));
    } else {
        message(&format!("\n  Sign in at {}\n", app.config.public_url()));
    }
    Ok(())
}

/// Resolves at the first request to stop; a second one ends the process at once.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
