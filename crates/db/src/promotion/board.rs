//! The board: one kind's names against the environments, a query per table.

use std::collections::HashMap;

use base::{Cursor, Digest};

use super::environments::arrange;
use super::gates::Facts;
use super::proposals::show;
use super::store::{self, Range, Standing};
use super::{
    Board, BoardCell, BoardRow, Candidate, Environment, Promotion, PromotionError, Proposal, Rules,
};
use crate::Scope;
use crate::catalog::{Name, Page, PageRequest, Pointer};

impl Promotion {
    /// What runs where, what differs, and what holds a promotion up.
    ///
    /// # Errors
    /// There is no such kind, or the database cannot be read.
    pub async fn board(
        &self,
        scope: Scope,
        kind: &str,
        page: &PageRequest,
    ) -> Result<Board, PromotionError> {
        self.catalog.kinds().get(kind)?;
        let after: Option<String> = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()
            .map_err(crate::CatalogError::from)?;
        let mut connection = self.db.read().acquire().await?;
        let (project, limit, now) = (scope.project, page.limit(), self.db.now_us());
        let after = after.unwrap_or_default();
        let names = store::newest_versions(&mut connection, project, kind, &after, limit).await?;
        let names = Page::cut(names, limit, |(name, _, _)| Cursor::new(&name.as_str()));
        let environments = store::environments(&mut connection, project).await?;
        let protections = store::protections(&mut connection, project).await?;
        let rules: HashMap<String, Rules> = protections
            .iter()
            .map(|known| (known.label.clone(), known.rules.clone()))
            .collect();
        let environments = arrange(environments, protections).environments;
        let range = range_of(&names.items);
        let facts =
            Facts::load(&mut connection, project, kind, &range, rules.values(), now).await?;
        let mut table = Table {
            environments,
            rules,
            facts,
            pointers: HashMap::new(),
            proposals: HashMap::new(),
        };
        // An empty range would mean every name.
        if !names.items.is_empty() {
            let pointers =
                store::environment_pointers(&mut connection, project, kind, &range).await?;
            table.pointers = by_place(pointers);
            let mut waiting = store::waiting(&mut connection, project, kind, &range).await?;
            store::add_approvals(&mut connection, project, &mut waiting).await?;
            show(&mut waiting, &table.rules, now);
            waiting.retain(|proposal| proposal.state.is_waiting());
            for proposal in waiting {
                let place = (proposal.name.to_string(), proposal.label.clone());
                table.proposals.entry(place).or_default().push(proposal);
            }
        }
        let rows = names
            .items
            .into_iter()
            .map(|(name, latest, digest)| table.row(name, latest, digest))
            .collect();
        Ok(Board {
            environments: table.environments,
            rows: Page {
                items: rows,
                next: names.next,
            },
        })
    }
}

fn range_of(names: &[(Name, i64, Digest)]) -> Range {
    let text = |row: Option<&(Name, i64, Digest)>| {
        row.map(|(name, _, _)| name.to_string()).unwrap_or_default()
    };
    Range {
        first: text(names.first()),
        last: text(names.last()),
    }
}

fn by_place(standings: Vec<Standing>) -> HashMap<(String, String), Pointer> {
    let live = standings.into_iter().filter(|standing| !standing.removed);
    live.map(|standing| {
        let pointer = standing.pointer;
        ((pointer.name.to_string(), pointer.label.clone()), pointer)
    })
    .collect()
}

struct Table {
    environments: Vec<Environment>,
    rules: HashMap<String, Rules>,
    facts: Facts,
    pointers: HashMap<(String, String), Pointer>,
    proposals: HashMap<(String, String), Vec<Proposal>>,
}

impl Table {
    fn row(&self, name: Name, latest: i64, latest_digest: Digest) -> BoardRow {
        let mut before = Some((latest, latest_digest));
        let mut cells = Vec::new();
        for environment in &self.environments {
            let cell = self.cell(&name, &environment.name, before);
            before = cell
                .pointer
                .as_ref()
                .map(|pointer| (pointer.number, pointer.digest));
            cells.push(cell);
        }
        BoardRow {
            name,
            latest,
            latest_digest,
            cells,
        }
    }

    /// `before` is the version and content in the environment before.
    fn cell(&self, name: &Name, environment: &str, before: Option<(i64, Digest)>) -> BoardCell {
        let place = (name.to_string(), environment.to_owned());
        let pointer = self.pointers.get(&place).cloned();
        let here = pointer.as_ref().map(|pointer| pointer.digest);
        let next = before.filter(|(_, digest)| here != Some(*digest));
        BoardCell {
            environment: environment.to_owned(),
            differs: here != before.map(|(_, digest)| digest),
            quarantined: here.is_some_and(|digest| self.facts.is_quarantined(name, &digest)),
            next: next.map(|(number, digest)| self.candidate(name, environment, number, digest)),
            proposals: self.proposals.get(&place).cloned().unwrap_or_default(),
            pointer,
        }
    }

    fn candidate(&self, name: &Name, environment: &str, number: i64, digest: Digest) -> Candidate {
        let none = Rules::default();
        let rules = self.rules.get(environment).unwrap_or(&none);
        Candidate {
            number,
            digest,
            quarantined: self.facts.is_quarantined(name, &digest),
            report: self.facts.report(rules, name, &digest, environment),
        }
    }
}
