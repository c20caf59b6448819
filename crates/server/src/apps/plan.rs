//! The releases that the gateway can run.
//!
//! A plan holds what each environment runs, what running experiments want, and
//! the newest few beside them, on which conversations may still finish. Reading
//! and compiling a document happens once per content: [`Compiled`] keeps what
//! the last plan used.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Digest, ProjectId, Secret};
use gateway::{
    AppDocument, AppVersion, Experiment, PinnedPrompt, PromptDocument, PromptVersion, Target,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{APP, RELEASE, ReleaseContent};
use crate::app::App;
use crate::error::Result;

/// How many of an app's newest releases stay callable for conversations that began on them.
const KEPT: usize = 5;

/// What was read and compiled for the last plan, by content.
#[derive(Debug, Default)]
pub struct Compiled(Mutex<HashMap<(ProjectId, Digest), Known>>);

/// A document that never changes, in the form that plans hold.
#[derive(Debug, Clone)]
enum Known {
    Release(Arc<ReleaseContent>),
    App(Arc<AppVersion>),
    Prompt(Arc<PromptVersion>),
    Guard(Arc<crate::guards::Known>),
    List(Arc<guard::List>),
    /// It was saved by a version that allowed more; calls say that it is gone.
    Broken,
}

impl Compiled {
    fn get(&self, project: ProjectId, digest: &Digest) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(project, *digest)).cloned()
    }

    fn put(&self, project: ProjectId, digest: Digest, value: Known) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((project, digest), value);
    }

    /// Forgets what a project's newest plan does not use.
    fn keep_only(&self, project: ProjectId, used: &HashSet<Digest>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(owner, digest), _| *owner != project || used.contains(digest));
    }
}

/// How a document becomes what a plan holds; a guard may name a classifier among the blobs.
type Compile = fn(Option<&db::BlobStore>, Digest, Value) -> Option<Known>;

/// One release to put into a plan.
struct Wanted {
    name: String,
    number: i64,
    digest: Digest,
}

/// Every app of a project with the releases that can be called.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
    experiments: &HashMap<Target, Arc<Experiment>>,
) -> Result<BTreeMap<String, Arc<gateway::App>>> {
    let pointers = app.catalog.pointer_index(project, RELEASE).await?;
    let wanted = wanted(app, project, &pointers, &tested(experiments)).await?;
    let mut loading = Loading {
        app,
        project,
        used: HashSet::new(),
    };
    let releases: Vec<Digest> = wanted.iter().map(|one| one.digest).collect();
    loading.read(&releases, read_release).await?;
    let contents: Vec<Arc<ReleaseContent>> = releases
        .iter()
        .filter_map(|digest| loading.release(digest))
        .collect();
    let apps: BTreeSet<Digest> = contents
        .iter()
        .filter_map(|content| content.app.digest.parse().ok())
        .collect();
    loading.read(&Vec::from_iter(apps), read_app).await?;
    loading.read_pinned(&contents).await?;
    app.compiled.keep_only(project, &loading.used);

    let environments = crate::projects::environments(&app.db, project).await?;
    // An app that was never released is there with nothing in it, so that a call of it can say so.
    let known = app.catalog.version_index(project, APP).await?;
    let mut plan: BTreeMap<String, gateway::App> = known
        .into_iter()
        .map(|row| (row.name.as_str().to_owned(), gateway::App::default()))
        .collect();
    for one in &wanted {
        if let Some(release) = loading.assemble(one) {
            let app = plan.entry(one.name.clone()).or_default();
            app.releases.insert(one.number, Arc::new(release));
        }
    }
    for pointer in pointers {
        let release = plan
            .get_mut(pointer.name.as_str())
            .filter(|_| environments.contains(&pointer.label));
        if let Some(app) = release
            && let Some(release) = app.releases.get(&pointer.number)
        {
            app.environments.insert(pointer.label, Arc::clone(release));
        }
    }
    Ok(plan
        .into_iter()
        .map(|(name, app)| (name, Arc::new(app)))
        .collect())
}

/// One release, whether a plan has it or not: an evaluation keeps what it began with.
///
/// # Errors
/// The database cannot be read.
pub async fn load_release(
    app: &App,
    project: ProjectId,
    name: &str,
    number: i64,
    digest: Digest,
) -> Result<Option<gateway::Release>> {
    let mut loading = Loading {
        app,
        project,
        used: HashSet::new(),
    };
    loading.read(&[digest], read_release).await?;
    let Some(content) = loading.release(&digest) else {
        return Ok(None);
    };
    if let Ok(app_digest) = content.app.digest.parse() {
        loading.read(&[app_digest], read_app).await?;
    }
    loading.read_pinned(&[content]).await?;
    Ok(loading.assemble(&Wanted {
        name: name.to_owned(),
        number,
        digest,
    }))
}

/// The releases that experiments choose between, by app and number.
fn tested(experiments: &HashMap<Target, Arc<Experiment>>) -> HashSet<(String, i64)> {
    let mut found = HashSet::new();
    for (target, experiment) in experiments {
        if let Target::App { name, .. } = target {
            let arms = experiment.arms.iter().chain(&experiment.shadows);
            found.extend(arms.map(|arm| (name.clone(), arm.number)));
        }
    }
    found
}

/// Which releases a plan needs: nothing that is quarantined.
async fn wanted(
    app: &App,
    project: ProjectId,
    pointers: &[db::PointerIndexRow],
    tested: &HashSet<(String, i64)>,
) -> Result<Vec<Wanted>> {
    let bad = crate::releases::quarantined_digests(app, project, RELEASE).await?;
    let pointed: HashSet<(&str, i64)> = pointers
        .iter()
        .map(|pointer| (pointer.name.as_str(), pointer.number))
        .collect();
    let mut by_name: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for row in app.catalog.version_index(project, RELEASE).await? {
        if bad.contains(&(row.name.as_str().to_owned(), row.digest)) {
            continue;
        }
        let name = row.name.as_str().to_owned();
        by_name.entry(name.clone()).or_default().push(Wanted {
            name,
            number: row.number,
            digest: row.digest,
        });
    }
    let mut all = Vec::new();
    for (name, mut releases) in by_name {
        releases.sort_by_key(|release| std::cmp::Reverse(release.number));
        let kept = releases.into_iter().enumerate().filter(|(index, release)| {
            *index < KEPT
                || pointed.contains(&(name.as_str(), release.number))
                || tested.contains(&(name.clone(), release.number))
        });
        all.extend(kept.map(|(_, release)| release));
    }
    Ok(all)
}

struct Loading<'a> {
    app: &'a App,
    project: ProjectId,
    used: HashSet<Digest>,
}

impl Loading<'_> {
    /// Reads those of these contents that are not known yet, in one query.
    async fn read(&mut self, digests: &[Digest], compile: Compile) -> Result<()> {
        self.used.extend(digests);
        let new: Vec<Digest> = digests
            .iter()
            .filter(|digest| self.app.compiled.get(self.project, digest).is_none())
            .copied()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let blobs = self.app.catalog.blobs(self.project);
        for (digest, content) in self.app.catalog.documents(self.project, &new).await? {
            let known = compile(blobs.as_ref(), digest, content).unwrap_or(Known::Broken);
            self.app.compiled.put(self.project, digest, known);
        }
        Ok(())
    }

    /// Reads the documents that these releases pin.
    async fn read_pinned(&mut self, releases: &[Arc<ReleaseContent>]) -> Result<()> {
        let kinds: [(&str, Compile); 3] = [
            (crate::prompts::KIND, read_prompt),
            (crate::guards::KIND, read_guard),
            (crate::guards::words::KIND, read_list),
        ];
        for (kind, read) in kinds {
            let digests: BTreeSet<Digest> = releases
                .iter()
                .flat_map(|release| release.documents.values())
                .filter(|pinned| pinned.kind == kind)
                .filter_map(|pinned| pinned.digest.parse().ok())
                .collect();
            self.read(&Vec::from_iter(digests), read).await?;
        }
        Ok(())
    }

    fn release(&self, digest: &Digest) -> Option<Arc<ReleaseContent>> {
        match self.app.compiled.get(self.project, digest)? {
            Known::Release(content) => Some(content),
            _ => None,
        }
    }

    /// A word list as a release pins it.
    fn list(&self, release: &ReleaseContent, name: &str) -> Option<(Digest, guard::List)> {
        let reference: db::catalog::Reference = name.parse().ok()?;
        let pinned = release.documents.get(&reference.to_string())?;
        let digest: Digest = pinned.digest.parse().ok()?;
        match self.app.compiled.get(self.project, &digest)? {
            Known::List(list) => Some((digest, guard::List::clone(&list))),
            _ => None,
        }
    }

    /// A release with its parts; `None` when one of them is missing or broken.
    fn assemble(&self, wanted: &Wanted) -> Option<gateway::Release> {
        let content = self.release(&wanted.digest)?;
        let app_digest: Digest = content.app.digest.parse().ok()?;
        let Known::App(app) = self.app.compiled.get(self.project, &app_digest)? else {
            return None;
        };
        let (mut prompts, mut guards) = (HashMap::new(), HashMap::new());
        for (reference, pinned) in &content.documents {
            // A document may leave the usual label out; the gateway looks up what is written.
            let names = [
                Some(reference.as_str()),
                reference.strip_suffix("@production"),
            ];
            let names = names.into_iter().flatten().map(str::to_owned);
            let digest: Digest = pinned.digest.parse().ok()?;
            if pinned.kind == crate::prompts::KIND {
                let Known::Prompt(prompt) = self.app.compiled.get(self.project, &digest)? else {
                    return None;
                };
                let prompt = PinnedPrompt {
                    number: pinned.number,
                    version: prompt,
                };
                prompts.extend(names.map(|name| (name, prompt.clone())));
            } else if pinned.kind == crate::guards::KIND {
                let known = match self.app.compiled.get(self.project, &digest) {
                    Some(Known::Guard(known)) => {
                        Some(known.with_lists(|name| self.list(&content, name)))
                    }
                    _ => None,
                };
                let name = pinned.name.parse().ok()?;
                let policy = crate::guards::policy(&name, pinned.number, digest, known.as_deref());
                let policy = Arc::new(policy);
                guards.extend(names.map(|name| (name, policy.clone())));
            }
        }
        Some(gateway::Release {
            name: wanted.name.clone(),
            number: wanted.number,
            digest: wanted.digest,
            credentials: credentials(self.app, &app.document),
            app,
            prompts,
            guards,
        })
    }
}

fn read_release(_: Option<&db::BlobStore>, _: Digest, content: Value) -> Option<Known> {
    let content = ReleaseContent::deserialize(content).ok()?;
    Some(Known::Release(Arc::new(content)))
}

fn read_app(_: Option<&db::BlobStore>, digest: Digest, content: Value) -> Option<Known> {
    let document = AppDocument::read(&content).ok()?;
    Some(Known::App(Arc::new(AppVersion::new(digest, document))))
}

fn read_guard(blobs: Option<&db::BlobStore>, _: Digest, content: Value) -> Option<Known> {
    Some(Known::Guard(Arc::new(crate::guards::know(&content, blobs))))
}

fn read_list(_: Option<&db::BlobStore>, _: Digest, content: Value) -> Option<Known> {
    let document = crate::guards::words::WordsDocument::parse(&content).ok()?;
    Some(Known::List(Arc::new(document.into())))
}

fn read_prompt(_: Option<&db::BlobStore>, digest: Digest, content: Value) -> Option<Known> {
    let document = PromptDocument::deserialize(content).ok()?;
    Some(Known::Prompt(Arc::new(PromptVersion::new(
        digest, document,
    ))))
}

/// The credentials that an app's tools need. One that cannot be read is left out,
/// so that the tool's own refusal says what is missing, and the other steps run.
pub(super) fn credentials(app: &App, document: &AppDocument) -> HashMap<String, Secret<String>> {
    let mut found = HashMap::new();
    for reference in document.credentials() {
        match app.secrets.resolve(APP, reference) {
            Ok(secret) => {
                found.insert(reference.to_owned(), secret);
            }
            Err(error) => {
                tracing::warn!(credential = reference, error.message = %format!("{error:#}"), "a tool's credential cannot be read");
            }
        }
    }
    found
}
