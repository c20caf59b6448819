//! Splits: which example goes where, decided by what it says.
//!
//! The same input gets the same place for the same seed, in every version and on every
//! machine, and examples that are nearly the same stay together if asked: otherwise a
//! test would be answered by its twin in training.

use std::collections::{BTreeMap, HashMap};

use base::Digest;
use db::Scope;
use db::catalog::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alike::groups;
use super::edit::Touched;
use super::example::{Example, check_split};
use super::{Datasets, Saved};
use crate::error::{AppError, Result};

/// How examples are assigned to splits.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// Split → its share; the shares are weights and need not add up to 1.
    pub shares: BTreeMap<String, f64>,
    /// Another seed gives another assignment.
    #[serde(default)]
    pub seed: String,
    /// Only examples that are in no split; else all of them.
    #[serde(default)]
    pub only_unassigned: bool,
    /// Keep inputs that are nearly the same in one split.
    #[serde(default)]
    pub keep_alike_together: bool,
    /// Why, for the history.
    #[serde(default)]
    pub message: String,
}

/// What an assignment did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Assigned {
    /// The dataset as it is now.
    #[serde(flatten)]
    pub saved: Saved,
    /// How many examples each split has.
    pub splits: BTreeMap<String, u64>,
}

impl Assign {
    fn check(&self) -> Result<f64> {
        let bad = |message: String| AppError::invalid(message).at("shares");
        if self.shares.is_empty() {
            return Err(bad("name at least one split with its share".to_owned()));
        }
        for (split, share) in &self.shares {
            check_split(split).map_err(&bad)?;
            if !share.is_finite() || *share < 0.0 {
                return Err(bad(format!("the share of {split} is a number from 0")));
            }
        }
        let sum: f64 = self.shares.values().sum();
        if sum > 0.0 && sum.is_finite() {
            Ok(sum)
        } else {
            Err(bad("the shares add up to nothing".to_owned()))
        }
    }

    /// The split of whatever has this key.
    fn split_of(&self, key: &str, sum: f64) -> Option<&str> {
        let digest = Digest::of(format!("{}\0{key}", self.seed).as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.0[..8]);
        // 53 bits, as many as a double holds exactly.
        let at = (u64::from_be_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        let mut until = 0.0;
        let mut last = None;
        for (split, share) in self.shares.iter().filter(|(_, share)| **share > 0.0) {
            until += share;
            last = Some(split.as_str());
            if at < until {
                break;
            }
        }
        last
    }
}

impl Datasets {
    /// Assigns splits and saves the version.
    ///
    /// # Errors
    /// The shares are wrong, or somebody else saved first.
    pub async fn assign_splits(
        &self,
        scope: Scope,
        name: &Name,
        assign: &Assign,
    ) -> Result<Assigned> {
        let sum = assign.check()?;
        let base = self.latest(scope, name).await?;
        let together = match assign.keep_alike_together {
            true => groups(self, scope, &base).await?,
            false => HashMap::new(),
        };
        let (mut writer, mut touched) = (self.chunks(scope)?.writer(), Touched::default());
        let mut reading = self.reading(scope, &base)?;
        while let Some(examples) = reading.next().await? {
            for mut example in examples {
                if example.split.is_none() || !assign.only_unassigned {
                    let key = together
                        .get(&example.id)
                        .cloned()
                        .unwrap_or_else(|| key_of(&example));
                    let split = assign.split_of(&key, sum).map(str::to_owned);
                    touched.changed += u64::from(split != example.split);
                    example.split = split;
                }
                writer
                    .push(&example)
                    .await
                    .map_err(|error| error.at(&example.id))?;
            }
        }
        let document = base.document.with_chunks(writer.finish().await?);
        let saved = self
            .save_version(scope, name, document.clone(), &assign.message, Some(&base))
            .await?;
        let splits = document.splits.clone();
        Ok(Assigned {
            saved: Saved::of(name, &document, &saved, touched, Vec::new()),
            splits,
        })
    }
}

/// What decides where an example goes: its input, so that copies of it go the same way.
fn key_of(example: &Example) -> String {
    example
        .input_digest()
        .map_or_else(|| example.id.clone(), |digest| digest.hex())
}
