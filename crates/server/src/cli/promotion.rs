//! `meguri env …`, `meguri proposals …` and `meguri rollback`.

use clap::{Args, Subcommand};
use db::catalog::{Label, Reference, Selector};
use db::promotion::{
    Delivery, GateRule, Promotion, ProposalFilter, RollbackRequest, RolledBack, Rules, Verdict,
};
use db::{Db, PageRequest, Scope};

use super::{Place, message, print_json, print_table};
use crate::app::{open_catalog, open_database};
use crate::error::AppError;
use crate::promotion::{EnvironmentsView, OPERATOR_ROLE, ProposalView, check_roles};
use crate::traces::time::format_rfc3339;

/// Where a command of this file works.
#[derive(Args)]
struct Target {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
}

impl Target {
    async fn open(&self) -> anyhow::Result<(Db, Promotion, Scope)> {
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let scope = crate::keys::operator_scope(&db, &self.project).await?;
        let catalog = open_catalog(&config, &db)?;
        Ok((db.clone(), Promotion::new(db, catalog), scope))
    }
}

#[derive(Subcommand)]
pub(super) enum Env {
    /// List the environments and what protects them.
    List(ListEnvironments),
    /// Add an environment after the others.
    Add(AddEnvironment),
    /// Change what protects a label; what is not said stays as it is.
    Protect(Protect),
}

#[derive(Args)]
pub(super) struct ListEnvironments {
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct AddEnvironment {
    #[command(flatten)]
    target: Target,
    /// Its name.
    name: Label,
}

#[derive(Args)]
pub(super) struct Protect {
    #[command(flatten)]
    target: Target,
    /// The label, environment or not.
    label: Label,
    /// How many people must approve a move; 0 for none.
    #[arg(long)]
    approvals: Option<u32>,
    /// Roles whose approvals count, separated by commas; "any" for all that may approve.
    #[arg(long, value_delimiter = ',')]
    roles: Option<Vec<String>>,
    /// A gate that must pass: resolves, earlier_environment[:SECONDS] or a name that
    /// evidence is given under; may be given more than once and replaces the gates.
    #[arg(long = "gate")]
    gates: Option<Vec<String>>,
    /// Take all gates away.
    #[arg(long, conflicts_with = "gates")]
    no_gates: bool,
    /// manual, or auto: content moves here by itself once its gates pass.
    #[arg(long, value_parser = parse_delivery)]
    delivery: Option<Delivery>,
    /// How long a proposal stays open, in seconds; 0 for ever.
    #[arg(long)]
    expires_after_s: Option<i64>,
}

fn parse_delivery(text: &str) -> Result<Delivery, String> {
    match text {
        "manual" => Ok(Delivery::Manual),
        "auto" => Ok(Delivery::Auto),
        _ => Err("delivery is manual or auto".to_owned()),
    }
}

fn parse_gate(text: &str) -> anyhow::Result<GateRule> {
    let (name, min_s) = match text.split_once(':') {
        Some((name, seconds)) => (name, seconds.parse()?),
        None => (text, 0),
    };
    Ok(GateRule {
        name: name.to_owned(),
        required: true,
        min_s,
    })
}

#[derive(Subcommand)]
pub(super) enum Proposals {
    /// List proposals that wait.
    List(ListProposals),
    /// Approve a proposal.
    Approve(Decide),
    /// Reject a proposal.
    Reject(Decide),
}

#[derive(Args)]
pub(super) struct ListProposals {
    #[command(flatten)]
    target: Target,
    /// Those that ended as well.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Decide {
    #[command(flatten)]
    target: Target,
    /// The proposal's id.
    id: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// `meguri rollback KIND:NAME@LABEL`.
#[derive(Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    target: Target,
    /// What to roll back: KIND:NAME@LABEL, as prompt:support/answer@production.
    pointer: Reference,
    /// The version to go back to, which the label pointed to before; without it the one before.
    #[arg(long)]
    to: Option<i64>,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not quarantine the version that it leaves.
    #[arg(long)]
    no_quarantine: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Env {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => list_environments(args).await,
            Self::Add(args) => add_environment(args).await,
            Self::Protect(args) => protect(args).await,
        }
    }
}

impl Proposals {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => list_proposals(args).await,
            Self::Approve(args) => decide(args, Verdict::Approve).await,
            Self::Reject(args) => decide(args, Verdict::Reject).await,
        }
    }
}

async fn list_environments(args: ListEnvironments) -> anyhow::Result<()> {
    let (db, promotion, scope) = args.target.open().await?;
    let all = promotion
        .environments(scope)
        .await
        .map_err(AppError::from)?;
    db.close().await;
    if args.json {
        return print_json(&EnvironmentsView::from(all));
    }
    let environments = all.environments.into_iter();
    let rows = environments.map(|known| {
        let rules = known.protection.map(|protection| protection.rules);
        rules_row(known.name, "environment", rules.unwrap_or_default())
    });
    let labels = all
        .labels
        .into_iter()
        .map(|known| rules_row(known.label, "label", known.rules));
    print_table(
        &["NAME", "WHAT", "APPROVALS", "ROLES", "GATES", "DELIVERY"],
        rows.chain(labels).collect(),
    )
}

fn rules_row(name: String, what: &str, rules: Rules) -> Vec<String> {
    let gates: Vec<String> = rules.gates.iter().map(|gate| gate.name.clone()).collect();
    let delivery = match rules.delivery {
        Delivery::Manual => "manual",
        Delivery::Auto => "auto",
    };
    vec![
        name,
        what.to_owned(),
        rules.approvals.to_string(),
        rules.approver_roles.join(", "),
        gates.join(", "),
        delivery.to_owned(),
    ]
}

async fn add_environment(args: AddEnvironment) -> anyhow::Result<()> {
    let (db, promotion, scope) = args.target.open().await?;
    let adding = promotion.add_environment(scope, &args.name);
    adding.await.map_err(AppError::from)?;
    db.close().await;
    message(&format!("added {}", args.name));
    Ok(())
}

async fn protect(args: Protect) -> anyhow::Result<()> {
    let (db, promotion, scope) = args.target.open().await?;
    let before = promotion
        .protection(scope, &args.label)
        .await
        .map_err(AppError::from)?;
    let revision = before.as_ref().map_or(0, |known| known.revision);
    let mut rules = before.map(|known| known.rules).unwrap_or_default();
    rules.approvals = args.approvals.unwrap_or(rules.approvals);
    rules.delivery = args.delivery.unwrap_or(rules.delivery);
    if let Some(roles) = args.roles {
        rules.approver_roles = roles.into_iter().filter(|role| role != "any").collect();
    }
    if args.no_gates {
        rules.gates.clear();
    }
    if let Some(gates) = &args.gates {
        rules.gates = gates
            .iter()
            .map(|gate| parse_gate(gate))
            .collect::<anyhow::Result<_>>()?;
    }
    if let Some(seconds) = args.expires_after_s {
        rules.expires_after_s = (seconds != 0).then_some(seconds);
    }
    check_roles(&rules)?;
    let setting = promotion.protect(scope, &args.label, rules, Some(revision));
    setting.await.map_err(AppError::from)?;
    db.close().await;
    message(&format!("set what protects {}", args.label));
    Ok(())
}

async fn list_proposals(args: ListProposals) -> anyhow::Result<()> {
    let (db, promotion, scope) = args.target.open().await?;
    let filter = ProposalFilter {
        waiting: (!args.all).then_some(true),
        ..ProposalFilter::default()
    };
    let page = PageRequest {
        cursor: None,
        limit: 200,
    };
    let listing = promotion.proposals(scope, &filter, &page);
    let page = listing.await.map_err(AppError::from)?;
    db.close().await;
    if args.json {
        let items: Vec<ProposalView> = page.items.into_iter().map(Into::into).collect();
        return print_json(&serde_json::json!({"items": items}));
    }
    let rows = page.items.into_iter().map(|proposal| {
        vec![
            proposal.id.clone(),
            proposal.object(),
            format!(
                "{} → {}",
                proposal
                    .from
                    .map_or("-".to_owned(), |from| from.to_string()),
                proposal.number
            ),
            proposal.state.name().to_owned(),
            format!("{}/{}", proposal.approved_by(), proposal.rules.approvals),
            proposal.author.clone(),
            format_rfc3339(proposal.created_at),
            proposal.reason,
        ]
    });
    print_table(
        &[
            "ID", "POINTER", "VERSION", "STATE", "APPROVED", "AUTHOR", "SINCE", "REASON",
        ],
        rows.collect(),
    )
}

async fn decide(args: Decide, verdict: Verdict) -> anyhow::Result<()> {
    let (db, promotion, scope) = args.target.open().await?;
    let deciding = promotion.decide(scope, OPERATOR_ROLE, &args.id, verdict, &args.reason);
    let decided = deciding.await.map_err(AppError::from)?;
    db.close().await;
    let state = decided.proposal.state.name();
    let object = decided.proposal.object();
    message(&match decided.held_up {
        Some(why) => format!("{object} is {state} and waits: {why}"),
        None => format!("{object} is {state}"),
    });
    Ok(())
}

impl Rollback {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Selector::Label(label) = &self.pointer.selector else {
            anyhow::bail!("name a label: KIND:NAME@LABEL");
        };
        let (db, promotion, scope) = self.target.open().await?;
        let request = RollbackRequest {
            kind: &self.pointer.kind,
            name: &self.pointer.name,
            label,
            to: self.to,
            expected: None,
            reason: &self.reason,
            quarantine: !self.no_quarantine,
        };
        let rolled = promotion
            .roll_back(scope, request)
            .await
            .map_err(AppError::from)?;
        db.close().await;
        let RolledBack::Done { pointer, left, .. } = rolled else {
            anyhow::bail!("somebody else moved {label} first");
        };
        if self.json {
            return print_json(&serde_json::json!({
                "label": pointer.label, "version": pointer.number, "left": left, "revision": pointer.revision,
            }));
        }
        message(&format!(
            "{} points to version {} again; it left version {left}",
            self.pointer, pointer.number
        ));
        Ok(())
    }
}
