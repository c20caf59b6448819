//! The snapshot that the data plane runs on, and what it says about keys,
//! providers, prompts and prices.
//!
//! A [`Plan`] is built by the server, complete and resolved, and never changes
//! afterwards; a request loads it once and keeps it to its end. Secrets are
//! inside, so a plan has no serialisation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::app::AppVersion;
use crate::experiment::{Experiment, Target};
use crate::prompt::PromptVersion;
use base::{Digest, KeyId, NanoUsd, Price, ProjectId, Secret, Usage, UserId};

/// One immutable snapshot of everything that a request may depend on.
#[derive(Debug, Default)]
pub struct Plan {
    /// Names this snapshot in every record that it served.
    pub revision: String,
    /// Callers by the 32-byte hash of their key.
    pub keys: HashMap<[u8; 32], Arc<Principal>>,
    /// What each project owns.
    pub projects: HashMap<ProjectId, Arc<ProjectPlan>>,
    /// Caps that hold for everybody.
    pub limits: Limits,
}

impl Plan {
    /// Who this key hash belongs to.
    ///
    /// # Errors
    /// The key is unknown, or its time is over at `now_us`.
    pub fn principal(
        &self,
        key_hash: &[u8; 32],
        now_us: i64,
    ) -> Result<&Arc<Principal>, KeyProblem> {
        let principal = self.keys.get(key_hash).ok_or(KeyProblem::Unknown)?;
        match principal.expires_at {
            Some(end) if end <= now_us => Err(KeyProblem::Expired),
            _ => Ok(principal),
        }
    }
}

/// Why a key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// No such key; a revoked one is not in the plan any more.
    #[error("this API key is not known here, or it was revoked")]
    Unknown,
    /// It was good once.
    #[error("this API key has expired")]
    Expired,
}

/// Who calls: a key's owner, or a signed-in person in the playground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key, if one was used.
    pub key_id: Option<KeyId>,
    /// The person, if one is signed in.
    pub user_id: Option<UserId>,
    /// The tenant that everything is looked up in.
    pub project: ProjectId,
    /// The environment that the key is bound to.
    pub environment: String,
    /// The role's name. The server decides what it may do; the gateway carries it.
    pub role: String,
    /// When the key stops working, microseconds since the epoch.
    pub expires_at: Option<i64>,
}

/// What one project owns.
#[derive(Debug, Default, Clone)]
pub struct ProjectPlan {
    /// Connections by name; `NAME/model` is called through them. The name `local` is reserved.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Prompts by name.
    pub prompts: BTreeMap<String, Arc<Prompt>>,
    /// Apps by name: what `model: "NAME"` calls.
    pub apps: BTreeMap<String, Arc<App>>,
    /// Guard policies by name.
    pub guards: BTreeMap<String, Arc<GuardPolicies>>,
    /// Experiments that run, by what they split.
    pub experiments: HashMap<Target, Arc<Experiment>>,
    /// What tokens cost here.
    pub prices: Arc<PriceTable>,
}

/// The language that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI chat completions and embeddings, and everything compatible.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
}

impl Protocol {
    /// The name that configuration and records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// A connection to somebody's models.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The name before the slash in `NAME/model`.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it lives, the version path included for OpenAI (`https://api.openai.com/v1`);
    /// for Anthropic without it (`https://api.anthropic.com`). Made by `base::net::parse_base_url`.
    pub base_url: url::Url,
    /// The credential, resolved.
    pub credential: Option<Secret<String>>,
    /// Whether an operator allowed loopback and private addresses for it.
    pub allow_private: bool,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What to do when it fails before the first token.
    pub retry: Retry,
    /// Where it differs from its protocol.
    pub quirks: Quirks,
    /// Models to list in `/v1/models`; calls are not limited to them.
    pub models: Vec<String>,
}

/// How long each stage of a call may take. The connect time-out is the egress client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From sending the request to the response's headers.
    pub headers: Duration,
    /// From the headers to the first real token of a stream.
    pub first_token: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
    /// The whole call, retries included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // Not streaming, headers come with the whole answer: reasoning models take minutes.
            headers: Duration::from_secs(300),
            first_token: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(900),
        }
    }
}

/// What to do when an attempt fails before the client has seen anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; 1 means no retry.
    pub attempts: u32,
    /// The wait before the second attempt; doubles after that.
    pub backoff: Duration,
    /// The longest `Retry-After` that is waited for; a longer one goes to the client at once.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_millis(250),
            longest_wait: Duration::from_secs(5),
        }
    }
}

/// Where a provider differs from the protocol that it claims to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// It understands `stream_options.include_usage`; false for old servers that refuse the field.
    pub stream_usage: bool,
    /// It ends streams without `[DONE]`: a clean end of the connection after a finish reason is then good.
    pub no_done: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            stream_usage: true,
            no_done: false,
        }
    }
}

/// A catalog prompt with all versions that can be called.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Versions by number.
    pub versions: BTreeMap<i64, Arc<PromptVersion>>,
    /// Labels: name → version number.
    pub labels: BTreeMap<String, i64>,
}

/// The versions of a guard policy that hold somewhere.
#[derive(Debug, Clone, Default)]
pub struct GuardPolicies {
    /// What holds where: a label, which is an environment's name, → the version.
    pub labels: BTreeMap<String, Arc<GuardPolicy>>,
    /// The versions that a running experiment chooses between, by number.
    pub versions: BTreeMap<i64, Arc<GuardPolicy>>,
}

/// One version of a guard policy, ready to run.
#[derive(Debug, Clone)]
pub struct GuardPolicy {
    /// Its name.
    pub name: String,
    /// The version's number.
    pub number: i64,
    /// The digest of its document.
    pub digest: Digest,
    /// The calls that it watches by itself.
    pub applies_to: guard::AppliesTo,
    /// The rules; or why they cannot run. A policy that cannot run refuses the calls that it
    /// applies to: it is never skipped.
    pub compiled: Result<Arc<guard::Compiled>, String>,
}

/// An app with every release that can be called.
#[derive(Debug, Clone, Default)]
pub struct App {
    /// What each environment runs.
    pub environments: BTreeMap<String, Arc<Release>>,
    /// Releases by number: those of the environments, of experiments, and those
    /// that conversations may still finish on. A quarantined one is not here.
    pub releases: BTreeMap<i64, Arc<Release>>,
}

/// An app version with every reference resolved.
#[derive(Debug)]
pub struct Release {
    /// The app's name.
    pub name: String,
    /// The release's number under that name.
    pub number: i64,
    /// The release's own identity.
    pub digest: Digest,
    /// The app, ready to run.
    pub app: Arc<AppVersion>,
    /// What the app's references stand for, transitively: the text of the reference
    /// (`prompt:geo/who@production`) → the prompt.
    pub prompts: HashMap<String, PinnedPrompt>,
    /// The guard policies that it refers to: `guard:safe@production` → the version.
    pub guards: HashMap<String, Arc<GuardPolicy>>,
    /// Credentials of its tools, resolved: `env:MEGURI_TOOL_NAME` → the secret.
    pub credentials: HashMap<String, Secret<String>>,
}

/// The version of a prompt that a release keeps.
#[derive(Debug, Clone)]
pub struct PinnedPrompt {
    /// The version's number.
    pub number: i64,
    /// The version.
    pub version: Arc<PromptVersion>,
}

/// Caps that hold for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body.
    pub request_bytes: usize,
    /// Bytes of an answer that is not streamed.
    pub response_bytes: usize,
    /// Bytes of one event of a stream.
    pub event_bytes: usize,
    /// Nesting of a request's JSON.
    pub json_depth: usize,
    /// Bytes of a rendered prompt.
    pub prompt_bytes: usize,
    /// Choices of one local request.
    pub local_choices: u32,
    /// Inputs of one local embedding request.
    pub local_inputs: usize,
    /// Whether tools may call loopback and private addresses. The operator says so.
    pub private_tools: bool,
    /// How long a call may wait for a place in the queue of records before it is refused.
    pub admission_wait: Duration,
    /// How often a stream whose text guards hold says that it lives.
    pub sign_of_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 32 << 20,
            response_bytes: 64 << 20,
            event_bytes: 4 << 20,
            json_depth: 64,
            prompt_bytes: 1 << 20,
            local_choices: 8,
            local_inputs: 2048,
            private_tools: false,
            admission_wait: Duration::from_secs(2),
            sign_of_life: Duration::from_secs(10),
        }
    }
}

/// What tokens cost: a version and rows. Users edit it, so a row is plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceTable {
    /// Names this table in the records that it priced.
    pub version: String,
    /// Rows; their order does not matter.
    pub rows: Vec<PriceRow>,
}

/// The price of one model or family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceRow {
    /// The provider's name, or `*`.
    pub provider: String,
    /// The model's name; `gpt-4o*` stands for all that begin so.
    pub model: String,
    /// Plain prompt tokens.
    pub input: Price,
    /// Completion tokens, hidden reasoning included.
    pub output: Price,
    /// Prompt tokens from the provider's cache; the plain price when not given.
    pub cache_read: Option<Price>,
    /// Prompt tokens written to the provider's cache; the plain price when not given.
    pub cache_write: Option<Price>,
}

impl PriceRow {
    /// What these tokens cost. Cached tokens are part of `input` and are not
    /// counted twice.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let plain = usage
            .input
            .saturating_sub(usage.cache_read)
            .saturating_sub(usage.cache_write);
        self.input.of(plain)
            + self.cache_read.unwrap_or(self.input).of(usage.cache_read)
            + self.cache_write.unwrap_or(self.input).of(usage.cache_write)
            + self.output.of(usage.output)
    }
}

impl PriceTable {
    /// The row for a model: the provider's own rows before `*`, an exact name
    /// before a pattern, the longest pattern first. `None` means that nobody
    /// knows the price, which is not the same as free.
    pub fn find(&self, provider: &str, model: &str) -> Option<&PriceRow> {
        let fit = |row: &PriceRow| {
            let own = match row.provider.as_str() {
                "*" => 0,
                name if name == provider => 1,
                _ => return None,
            };
            match row.model.strip_suffix('*') {
                None if row.model == model => Some((own, usize::MAX)),
                Some(start) if model.starts_with(start) => Some((own, start.len())),
                _ => None,
            }
        };
        let fitting = self.rows.iter().filter_map(|row| Some((fit(row)?, row)));
        fitting.max_by_key(|(rank, _)| *rank).map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(provider: &str, model: &str, input: i64) -> PriceRow {
        PriceRow {
            provider: provider.to_owned(),
            model: model.to_owned(),
            input: Price(input),
            output: Price(0),
            cache_read: None,
            cache_write: None,
        }
    }

    #[test]
    fn the_closest_price_wins_and_an_unknown_one_is_none() {
        let rows = vec![
            row("*", "*", 1),
            row("*", "gpt-4o*", 2),
            row("*", "gpt-4o-mini", 3),
            row("openai", "gpt*", 4),
            row("openai", "gpt-4o*", 5),
            row("openai", "gpt-4o", 6),
        ];
        let table = PriceTable {
            version: "1".to_owned(),
            rows,
        };
        let check = |provider, model, price| {
            assert_eq!(
                table.find(provider, model).map(|row| row.input.0),
                price,
                "{provider}/{model}"
            );
        };
        check("openai", "gpt-4o", Some(6));
        check("openai", "gpt-4o-2026-11", Some(5));
        check("openai", "gpt-5", Some(4));
        // A provider's own rows come before rows for everybody, however exact those are.
        check("openai", "gpt-4o-mini", Some(5));
        check("azure", "gpt-4o-mini", Some(3));
        check("azure", "gpt-4o-mini-2", Some(2));
        check("azure", "llama", Some(1));
        assert_eq!(PriceTable::default().find("openai", "gpt-4o"), None);
        let no_star = PriceTable {
            version: "1".to_owned(),
            rows: vec![row("openai", "gpt-4o", 1)],
        };
        assert_eq!(no_star.find("openai", "gpt-4o-mini"), None);
        assert_eq!(no_star.find("other", "gpt-4o"), None);
    }

    #[test]
    fn cached_tokens_are_never_counted_twice_and_never_below_zero() {
        let mut row = row("*", "*", 1_000_000);
        row.cache_read = Some(Price(100_000));
        row.output = Price(2_000_000);
        let usage = Usage {
            input: 10,
            cache_read: 4,
            output: 3,
            reasoning: 2,
            ..Usage::default()
        };
        assert_eq!(row.cost(&usage), NanoUsd(6 + 3 * 2), "4 * 0.1 rounds to 0");
        let odd = Usage {
            input: 1,
            cache_read: 40,
            cache_write: 5,
            ..Usage::default()
        };
        assert_eq!(row.cost(&odd), NanoUsd(4 + 5));
    }

    #[test]
    fn keys_end() {
        let mut plan = Plan::default();
        let principal = Principal {
            key_id: None,
            user_id: None,
            project: base::Id::from_uuid_bytes([1; 16]),
            environment: "dev".to_owned(),
            role: "viewer".to_owned(),
            expires_at: Some(100),
        };
        plan.keys.insert([1; 32], Arc::new(principal));
        assert!(plan.principal(&[1; 32], 99).is_ok());
        assert_eq!(plan.principal(&[1; 32], 100), Err(KeyProblem::Expired));
        assert_eq!(plan.principal(&[2; 32], 0), Err(KeyProblem::Unknown));
    }
}
