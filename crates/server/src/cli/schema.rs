//! `meguri schema [KIND]`: the JSON Schema of a kind's files, for editors.

use std::collections::BTreeMap;

use clap::Args;

use super::print_json;
use crate::app::kinds;
use crate::error::AppError;
use crate::gitops::{self, Layout};

#[derive(Args)]
pub(super) struct Schema {
    /// The kind, or `environments`; without it, all of them by name.
    kind: Option<String>,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let kinds = kinds();
        let layout = Layout::new(&kinds);
        let mut names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        names.push("environments");
        match self.kind {
            Some(kind) => match gitops::schema_of(&layout, &kind) {
                Some(schema) => print_json(&schema),
                None => {
                    let message = format!(
                        "there is no kind {kind:?}; the kinds are {}",
                        names.join(", ")
                    );
                    Err(AppError::not_found(message).into())
                }
            },
            None => {
                let all: BTreeMap<&str, _> = names
                    .into_iter()
                    .filter_map(|name| Some((name, gitops::schema_of(&layout, name)?)))
                    .collect();
                print_json(&all)
            }
        }
    }
}
