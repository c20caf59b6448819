use base::{Digest, UserId};
use db::catalog::Label;
use db::promotion::{
    Delivery, EARLIER_ENVIRONMENT, GateOutcome, GateRule, NewEvidence, Outcome, Promotion,
    PromotionError, Proposal, ProposalFilter, ProposalState, RESOLVES, Requested, RollbackRequest,
    RolledBack, Rules, Verdict,
};
use db::{
    Actor, CatalogError, Db, MoveRequest, Name, NewVersion, PageRequest, Pointer, Scope, audit,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Fixture, on_both, prompt};

on_both!(
    a_protected_label_moves_only_by_approval,
    nobody_approves_their_own_in_any_disguise,
    only_the_roles_of_the_rules_count,
    a_move_meanwhile_voids_approvals,
    of_many_approvals_at_once_one_moves,
    an_approval_and_a_rollback_at_once_have_one_end,
    evidence_carries_out_what_waited_for_it,
    an_unknown_result_is_never_a_pass,
    time_in_the_environment_before_is_a_gate,
    references_that_are_quarantined_hold_a_move_up,
    a_proposal_expires_and_can_be_made_again,
    rules_may_become_stricter_for_open_proposals_and_not_looser,
    rolling_back_is_undo_and_quarantines,
    a_second_click_rolls_back_nothing,
    quarantined_content_is_refused_everywhere,
    content_moves_on_by_itself_and_never_against_a_person,
    automatic_delivery_asks_once_where_approvals_are_needed,
    the_board_says_what_runs_where,
    projects_keep_to_themselves,
);

const NAME: &str = "support/answer";

struct Story {
    f: Fixture,
    promotion: Promotion,
    ann: Scope,
    bob: Scope,
    eve: Scope,
}

/// A prompt with three versions, the environments dev, staging and prod, and three people.
async fn begin(f: Fixture) -> Story {
    let person = |f: &Fixture| Scope {
        actor: Actor::User(f.db.ids().make::<UserId>()),
        ..f.scope
    };
    let promotion = Promotion::new(f.db.clone(), f.catalog.clone());
    for name in ["dev", "staging", "prod"] {
        promotion
            .add_environment(f.scope, &label(name))
            .await
            .unwrap();
    }
    let story = Story {
        ann: person(&f),
        bob: person(&f),
        eve: person(&f),
        promotion,
        f,
    };
    for text in ["one", "two", "three"] {
        story.save(story.ann, NAME, text).await;
    }
    story
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn page() -> PageRequest {
    PageRequest::default()
}

fn rules(approvals: u32, gates: &[&str]) -> Rules {
    Rules {
        approvals,
        gates: gates.iter().map(|name| gate(name, 0)).collect(),
        ..Rules::default()
    }
}

fn gate(name: &str, min_s: i64) -> GateRule {
    GateRule {
        name: name.to_owned(),
        required: true,
        min_s,
    }
}

fn digest(text: &str) -> Digest {
    Digest::of_json(&prompt(text)).unwrap()
}

impl Story {
    async fn save(&self, scope: Scope, at: &str, text: &str) {
        let new = NewVersion {
            kind: "prompt",
            name: &name(at),
            content: &prompt(text),
            message: "",
        };
        self.f.catalog.save_version(scope, new).await.unwrap();
    }

    async fn protect(&self, at: &str, rules: Rules) {
        let scope = self.f.scope;
        self.promotion
            .protect(scope, &label(at), rules, None)
            .await
            .unwrap();
    }

    async fn ask(&self, scope: Scope, at: &str, to: i64) -> Result<Requested, PromotionError> {
        ask(&self.promotion, scope, at, to).await
    }

    async fn propose(&self, scope: Scope, at: &str, to: i64) -> Proposal {
        match self.ask(scope, at, to).await.unwrap() {
            Requested::Proposed(proposal) => *proposal,
            other => panic!("{other:?}"),
        }
    }

    async fn move_to(&self, at: &str, to: i64) -> Pointer {
        match self.ask(self.ann, at, to).await.unwrap() {
            Requested::Moved(pointer) => pointer,
            other => panic!("{other:?}"),
        }
    }

    async fn approve(
        &self,
        scope: Scope,
        proposal: &Proposal,
    ) -> Result<db::promotion::Decided, PromotionError> {
        let verdict = Verdict::Approve;
        self.promotion
            .decide(scope, "product_owner", &proposal.id, verdict, "looks good")
            .await
    }

    async fn state(&self, proposal: &Proposal) -> ProposalState {
        let found = self.promotion.proposal(self.ann, &proposal.id).await;
        found.unwrap().unwrap().state
    }

    async fn at(&self, at: &str) -> Option<i64> {
        let pointers = self
            .f
            .catalog
            .pointers(self.ann, "prompt", &name(NAME))
            .await
            .unwrap();
        let found = pointers.into_iter().find(|pointer| pointer.label == at);
        found.map(|pointer| pointer.number)
    }

    async fn evidence(&self, text: &str, gate: &str, outcome: Outcome) -> usize {
        let new = NewEvidence {
            kind: "prompt",
            name: &name(NAME),
            digest: digest(text),
            gate,
            outcome,
            detail: &json!({"n": 40}),
            link: "/default/evals/1",
        };
        let (_, decided) = self.promotion.add_evidence(self.eve, new).await.unwrap();
        decided.len()
    }

    async fn roll_back(
        &self,
        at: &str,
        to: Option<i64>,
        quarantine: bool,
    ) -> Result<RolledBack, PromotionError> {
        let request = RollbackRequest {
            kind: "prompt",
            name: &name(NAME),
            label: &label(at),
            to,
            expected: None,
            reason: "worse",
            quarantine,
        };
        self.promotion.roll_back(self.bob, request).await
    }

    async fn waiting(&self) -> Vec<Proposal> {
        let filter = ProposalFilter {
            waiting: Some(true),
            ..ProposalFilter::default()
        };
        let found = self.promotion.proposals(self.ann, &filter, &page()).await;
        found.unwrap().items
    }

    /// The audit chain must be whole at the end of every story.
    async fn end(self) {
        let verified = audit::verify(&self.f.db, Some(self.f.scope.project), None).await;
        verified.unwrap().unwrap();
    }
}

async fn ask(
    promotion: &Promotion,
    scope: Scope,
    at: &str,
    to: i64,
) -> Result<Requested, PromotionError> {
    let request = MoveRequest {
        kind: "prompt",
        name: &name(NAME),
        label: &label(at),
        to,
        expected: None,
        reason: "better",
    };
    promotion.request_move(scope, request).await
}

async fn move_directly(story: &Story, at: &str, to: i64) -> Result<(), CatalogError> {
    let request = MoveRequest {
        kind: "prompt",
        name: &name(NAME),
        label: &label(at),
        to,
        expected: None,
        reason: "",
    };
    let moving = story.f.catalog.move_pointer(story.ann, request);
    moving.await.map(drop)
}

async fn a_protected_label_moves_only_by_approval(f: Fixture) {
    let story = begin(f).await;
    story.move_to("prod", 1).await;
    story.protect("prod", rules(2, &[])).await;
    let refused = move_directly(&story, "prod", 2).await.unwrap_err();
    assert!(
        matches!(&refused, CatalogError::Protected { what, .. } if what.contains("2 approvals")),
        "{refused}"
    );
    let proposal = story.propose(story.ann, "prod", 2).await;
    assert_eq!((proposal.from, proposal.number), (Some(1), 2));
    assert_eq!(story.propose(story.ann, "prod", 2).await, proposal);

    let first = story.approve(story.bob, &proposal).await.unwrap();
    assert_eq!(first.proposal.state, ProposalState::Open);
    // Twice by one person is once.
    let again = story.approve(story.bob, &proposal).await.unwrap();
    assert_eq!((again.proposal.approved_by(), again.moved), (1, None));
    let second = story.approve(story.eve, &proposal).await.unwrap();
    assert_eq!(second.proposal.state, ProposalState::Applied);
    assert_eq!(second.moved.unwrap().number, 2);
    assert_eq!(story.at("prod").await, Some(2));
    let late = story.approve(story.f.scope, &proposal).await.unwrap_err();
    assert!(matches!(
        late,
        PromotionError::Ended(ProposalState::Applied)
    ));

    let moves = story
        .f
        .catalog
        .moves(story.ann, "prompt", &name(NAME), None, &page())
        .await
        .unwrap();
    assert_eq!(moves.items[0].proposal.as_deref(), Some(&*proposal.id));
    assert_eq!(moves.items[0].reason, "better");
    let filter = audit::Filter {
        object: proposal.object(),
        ..audit::Filter::default()
    };
    let lines = audit::list(&story.f.db, Some(story.ann.project), &filter, &page())
        .await
        .unwrap();
    let actions: Vec<_> = lines.items.iter().map(|line| &*line.action).collect();
    assert_eq!(
        actions,
        [
            "proposal.apply",
            "proposal.approve",
            "proposal.approve",
            "proposal.approve",
            "proposal.create"
        ]
    );
    assert_eq!(lines.items[0].after, Some(digest("two").to_string()));
    story.end().await;
}

async fn insert_key(db: &Db, scope: Scope, created_by: Actor) -> Actor {
    let key: base::KeyId = db.ids().make();
    let mut tx = db.begin_write().await.unwrap();
    db::sqlx::query(
        "INSERT INTO api_keys (id, project, environment, name, prefix, secret_hash, role, created_by, created_at)
         VALUES ($1, $2, 'dev', 'ci', 'mgr', $1, 'editor', $3, 0)",
    )
    .bind(key.to_string())
    .bind(scope.project.to_string())
    .bind(created_by.to_string())
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit().await.unwrap();
    Actor::Key(key)
}

async fn nobody_approves_their_own_in_any_disguise(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(1, &[])).await;
    let own = story.propose(story.ann, "prod", 1).await;
    let refused = story.approve(story.ann, &own).await.unwrap_err();
    assert!(matches!(refused, PromotionError::OwnChange), "{refused}");

    // A key of Bob's, and a key that this key made, speak for Bob; and where a key
    // asks, who wrote the version cannot approve either.
    let key = insert_key(&story.f.db, story.ann, story.bob.actor).await;
    let grandchild = insert_key(&story.f.db, story.ann, key).await;
    let as_key = |actor| Scope { actor, ..story.ann };
    let by_key = story.propose(as_key(grandchild), "prod", 2).await;
    for scope in [story.bob, story.ann] {
        let refused = story.approve(scope, &by_key).await.unwrap_err();
        assert!(matches!(refused, PromotionError::OwnChange), "{refused}");
    }
    let refused = story.approve(as_key(key), &by_key).await.unwrap_err();
    assert!(matches!(refused, PromotionError::NotAPerson), "{refused}");

    // What the operator asks for, the operator does not approve.
    let by_operator = story.propose(story.f.scope, "prod", 3).await;
    let refused = story
        .approve(story.f.scope, &by_operator)
        .await
        .unwrap_err();
    assert!(matches!(refused, PromotionError::OwnChange), "{refused}");

    let refused = story
        .promotion
        .withdraw(story.bob, &own.id, "")
        .await
        .unwrap_err();
    assert!(matches!(refused, PromotionError::NotTheAuthor), "{refused}");
    let taken = story.promotion.withdraw(story.ann, &own.id, "no").await;
    assert_eq!(taken.unwrap().state, ProposalState::Withdrawn);
    let moved = story.approve(story.eve, &by_key).await.unwrap();
    assert_eq!(moved.moved.unwrap().number, 2);
    story.end().await;
}

async fn only_the_roles_of_the_rules_count(f: Fixture) {
    let story = begin(f).await;
    let owners = Rules {
        approver_roles: vec!["product_owner".to_owned()],
        ..rules(1, &[])
    };
    story.protect("prod", owners).await;
    let proposal = story.propose(story.ann, "prod", 1).await;
    let decide = |role: &'static str, verdict| {
        story
            .promotion
            .decide(story.bob, role, &proposal.id, verdict, "")
    };
    let refused = decide("admin", Verdict::Approve).await.unwrap_err();
    assert!(matches!(refused, PromotionError::WrongRole(_)), "{refused}");
    let rejected = decide("product_owner", Verdict::Reject).await.unwrap();
    assert_eq!(rejected.proposal.state, ProposalState::Rejected);
    assert_eq!(story.at("prod").await, None);
    story.end().await;
}

async fn a_move_meanwhile_voids_approvals(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(2, &[])).await;
    let a = story.propose(story.ann, "prod", 1).await;
    let b = story.propose(story.ann, "prod", 2).await;
    story.approve(story.bob, &a).await.unwrap();
    for scope in [story.bob, story.eve] {
        story.approve(scope, &b).await.unwrap();
    }
    assert_eq!(story.at("prod").await, Some(2));
    assert_eq!(story.state(&a).await, ProposalState::Superseded);
    let late = story.approve(story.eve, &a).await.unwrap_err();
    assert!(matches!(late, PromotionError::Ended(_)), "{late}");
    story.end().await;
}

async fn of_many_approvals_at_once_one_moves(f: Fixture) {
    let story = begin(f).await;
    story.move_to("prod", 1).await;
    story.protect("prod", rules(2, &[])).await;
    let proposals = [
        story.propose(story.ann, "prod", 2).await,
        story.propose(story.ann, "prod", 3).await,
    ];
    let mut tasks = JoinSet::new();
    for round in 0..4 {
        for proposal in &proposals {
            let db = story.f.second().await;
            let promotion = Promotion::new(db, story.f.catalog.clone());
            let id = proposal.id.clone();
            let actor = Actor::User(story.f.db.ids().make());
            let scope = Scope { actor, ..story.ann };
            tasks.spawn(async move {
                let reason = format!("round {round}");
                let verdict = Verdict::Approve;
                promotion
                    .decide(scope, "admin", &id, verdict, &reason)
                    .await
            });
        }
    }
    let ended: Vec<_> = tasks.join_all().await;
    let moved = ended
        .iter()
        .flatten()
        .filter(|decided| decided.moved.is_some());
    assert_eq!(moved.count(), 1, "{ended:?}");
    let states = [
        story.state(&proposals[0]).await,
        story.state(&proposals[1]).await,
    ];
    assert!(states.contains(&ProposalState::Applied), "{states:?}");
    assert!(states.contains(&ProposalState::Superseded), "{states:?}");
    let pointers = story
        .f
        .catalog
        .pointers(story.ann, "prompt", &name(NAME))
        .await
        .unwrap();
    assert_eq!(pointers[0].revision, 2);
    story.end().await;
}

async fn an_approval_and_a_rollback_at_once_have_one_end(f: Fixture) {
    let story = begin(f).await;
    story.move_to("prod", 1).await;
    story.move_to("prod", 2).await;
    story.protect("prod", rules(1, &[])).await;
    let proposal = story.propose(story.ann, "prod", 3).await;
    let (approved, back) = tokio::join!(
        story.approve(story.eve, &proposal),
        story.roll_back("prod", Some(1), false)
    );
    assert!(matches!(back.unwrap(), RolledBack::Done { .. }));
    // Whichever came first, the label was rolled back after or before, and never half.
    match approved {
        Ok(_) => assert_eq!(story.state(&proposal).await, ProposalState::Applied),
        Err(_) => assert_eq!(story.state(&proposal).await, ProposalState::Cancelled),
    }
    assert_eq!(story.at("prod").await, Some(1));
    assert!(story.waiting().await.is_empty());
    story.end().await;
}

async fn evidence_carries_out_what_waited_for_it(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(1, &["eval/answers"])).await;
    let proposal = story.propose(story.ann, "prod", 2).await;
    let decided = story.approve(story.bob, &proposal).await.unwrap();
    assert_eq!(decided.proposal.state, ProposalState::Approved);
    assert!(decided.held_up.unwrap().contains("eval/answers"));
    assert_eq!(
        story.evidence("one", "eval/answers", Outcome::Pass).await,
        0
    );
    assert_eq!(story.at("prod").await, None);
    assert_eq!(
        story.evidence("two", "eval/answers", Outcome::Pass).await,
        1
    );
    assert_eq!(story.at("prod").await, Some(2));
    assert_eq!(story.state(&proposal).await, ProposalState::Applied);
    story.end().await;
}

async fn an_unknown_result_is_never_a_pass(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(0, &["eval"])).await;
    let report = async || {
        let report = story
            .promotion
            .gate_report(
                story.ann,
                "prompt",
                &name(NAME),
                &digest("two"),
                &label("prod"),
            )
            .await
            .unwrap();
        (report.passes, report.gates[0].outcome)
    };
    assert_eq!(report().await, (false, GateOutcome::Missing));
    let waiting = story.propose(story.ann, "prod", 2).await;
    assert_eq!(waiting.state, ProposalState::Approved);
    for (outcome, expected) in [
        (Outcome::Inconclusive, GateOutcome::Inconclusive),
        (Outcome::Fail, GateOutcome::Fail),
    ] {
        story.f.clock.advance_us(1);
        story.evidence("two", "eval", outcome).await;
        assert_eq!(report().await, (false, expected));
        assert_eq!(story.at("prod").await, None);
    }
    story.f.clock.advance_us(1);
    story.evidence("two", "eval", Outcome::Pass).await;
    assert_eq!(story.at("prod").await, Some(2));
    // The newest counts, for the next time.
    story.f.clock.advance_us(1);
    story.evidence("two", "eval", Outcome::Fail).await;
    assert_eq!(report().await, (false, GateOutcome::Fail));

    let bad_link = NewEvidence {
        kind: "prompt",
        name: &name(NAME),
        digest: digest("two"),
        gate: "eval",
        outcome: Outcome::Pass,
        detail: &json!({}),
        link: "javascript:alert(1)",
    };
    assert!(
        story
            .promotion
            .add_evidence(story.eve, bad_link)
            .await
            .is_err()
    );
    let built_in = NewEvidence {
        gate: RESOLVES,
        link: "",
        ..bad_link
    };
    assert!(
        story
            .promotion
            .add_evidence(story.eve, built_in)
            .await
            .is_err()
    );
    story.end().await;
}

async fn time_in_the_environment_before_is_a_gate(f: Fixture) {
    let story = begin(f).await;
    let soaked = Rules {
        gates: vec![gate(EARLIER_ENVIRONMENT, 60)],
        ..Rules::default()
    };
    story.protect("prod", soaked).await;
    let proposal = story.propose(story.ann, "prod", 2).await;
    story.move_to("staging", 2).await;
    story.f.clock.advance_us(59_000_000);
    story.promotion.sweep().await.unwrap();
    assert_eq!(story.state(&proposal).await, ProposalState::Approved);
    let gates = story.promotion.proposal_gates(story.ann, &proposal).await;
    let gates = gates.unwrap();
    assert_eq!(gates.gates[0].outcome, GateOutcome::Waiting);
    assert_eq!(
        gates.gates[0].passes_at,
        Some(story.f.db.now_us() + 1_000_000)
    );
    story.f.clock.advance_us(1_000_000);
    assert_eq!(story.promotion.sweep().await.unwrap(), 1);
    assert_eq!(story.at("prod").await, Some(2));
    // Gone again too early is not enough, however long ago.
    story.move_to("staging", 3).await;
    story.f.clock.advance_us(10_000_000);
    story.move_to("staging", 2).await;
    story.f.clock.advance_us(100_000_000);
    let short = story
        .promotion
        .gate_report(
            story.ann,
            "prompt",
            &name(NAME),
            &digest("three"),
            &label("prod"),
        )
        .await
        .unwrap();
    assert_eq!(short.gates[0].outcome, GateOutcome::Fail);
    story.end().await;
}

async fn references_that_are_quarantined_hold_a_move_up(f: Fixture) {
    let story = begin(f).await;
    let report = async || {
        story
            .promotion
            .gate_report(
                story.ann,
                "prompt",
                &name(NAME),
                &digest("two"),
                &label("prod"),
            )
            .await
            .unwrap()
    };
    story.protect("prod", rules(0, &[RESOLVES])).await;
    assert!(report().await.passes);
    // The toy prompt of these tests refers to nothing: its mentions are put beside it.
    story.save(story.ann, "partial", "p1").await;
    story.save(story.ann, "partial", "p2").await;
    mention(&story, "two", "partial", "production").await;
    let missing = report().await;
    assert!(
        missing.gates[0].why.contains("does not exist"),
        "{missing:?}"
    );
    let partial = name("partial");
    for to in [1, 2] {
        let request = MoveRequest {
            kind: "prompt",
            name: &partial,
            label: &label("production"),
            to,
            expected: None,
            reason: "",
        };
        let moving = story.f.catalog.move_pointer(story.ann, request);
        moving.await.unwrap();
        assert!(report().await.passes);
    }
    mention(&story, "one", "partial", &digest("p2").to_string()).await;
    let request = RollbackRequest {
        kind: "prompt",
        name: &partial,
        label: &label("production"),
        to: None,
        expected: None,
        reason: "bad",
        quarantine: true,
    };
    story.promotion.roll_back(story.bob, request).await.unwrap();
    assert!(
        report().await.passes,
        "the label points to a good one again"
    );
    let pinned = story
        .promotion
        .gate_report(
            story.ann,
            "prompt",
            &name(NAME),
            &digest("one"),
            &label("prod"),
        )
        .await
        .unwrap();
    assert!(pinned.gates[0].why.contains("quarantined"), "{pinned:?}");
    story.end().await;
}

async fn mention(story: &Story, text: &str, to: &str, selector: &str) {
    let mut tx = story.f.db.begin_write().await.unwrap();
    db::sqlx::query(
        "INSERT INTO document_references (project, kind, digest, path, to_kind, to_name, selector)
         VALUES ($1, 'prompt', $2, '/partial', 'prompt', $3, $4)",
    )
    .bind(story.ann.project.to_string())
    .bind(digest(text).to_string())
    .bind(to)
    .bind(selector)
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

async fn a_proposal_expires_and_can_be_made_again(f: Fixture) {
    let story = begin(f).await;
    let short = Rules {
        expires_after_s: Some(3600),
        ..rules(1, &[])
    };
    story.protect("prod", short).await;
    let first = story.propose(story.ann, "prod", 2).await;
    story.f.clock.advance_us(3600 * 1_000_000);
    // Nobody swept yet, and it is over all the same.
    assert_eq!(story.state(&first).await, ProposalState::Expired);
    let late = story.approve(story.bob, &first).await.unwrap_err();
    assert!(matches!(
        late,
        PromotionError::Ended(ProposalState::Expired)
    ));
    let second = story.propose(story.ann, "prod", 2).await;
    assert_ne!(first.id, second.id);
    story.f.clock.advance_us(3600 * 1_000_000);
    assert_eq!(story.promotion.sweep().await.unwrap(), 1);
    assert_eq!(story.promotion.sweep().await.unwrap(), 0);
    assert!(story.waiting().await.is_empty());
    assert_eq!(story.at("prod").await, None);
    story.end().await;
}

async fn rules_may_become_stricter_for_open_proposals_and_not_looser(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(1, &["eval"])).await;
    let proposal = story.propose(story.ann, "prod", 2).await;
    // Somebody who would take the protection away to get a change through.
    story.protect("prod", rules(0, &[])).await;
    let decided = story.approve(story.bob, &proposal).await.unwrap();
    assert_eq!(decided.proposal.state, ProposalState::Approved);
    assert!(decided.held_up.is_some());
    // Stricter takes the approved one back to waiting for people.
    story.protect("prod", rules(2, &[])).await;
    story.evidence("two", "eval", Outcome::Pass).await;
    assert_eq!(story.state(&proposal).await, ProposalState::Open);
    story.approve(story.eve, &proposal).await.unwrap();
    assert_eq!(story.at("prod").await, Some(2));

    let stale = story
        .promotion
        .protect(story.ann, &label("prod"), rules(1, &[]), Some(1))
        .await
        .unwrap_err();
    assert!(matches!(stale, PromotionError::Stale(3)), "{stale}");
    story.end().await;
}

async fn rolling_back_is_undo_and_quarantines(f: Fixture) {
    let story = begin(f).await;
    for to in [1, 2, 3] {
        story.move_to("prod", to).await;
    }
    story.protect("prod", rules(2, &["eval"])).await;
    let open = story.propose(story.ann, "prod", 2).await;
    let revision = story.f.db.plan_revision().await.unwrap();
    let RolledBack::Done {
        pointer,
        left,
        quarantine,
    } = story.roll_back("prod", None, true).await.unwrap()
    else {
        panic!("a conflict")
    };
    assert_eq!((pointer.number, left), (2, 3));
    assert!(story.f.db.plan_revision().await.unwrap() > revision);
    assert_eq!(story.state(&open).await, ProposalState::Cancelled);
    let RolledBack::Done { pointer, .. } = story.roll_back("prod", None, false).await.unwrap()
    else {
        panic!("a conflict")
    };
    assert_eq!(pointer.number, 1, "not back to what was left before");
    let nothing = story.roll_back("prod", None, true).await.unwrap_err();
    assert!(
        matches!(nothing, PromotionError::NothingBefore(_)),
        "{nothing}"
    );
    // To a version that it had: forward again, but not to the bad one.
    let refused = story.roll_back("prod", Some(3), true).await.unwrap_err();
    assert!(
        matches!(
            refused,
            PromotionError::Catalog(CatalogError::Quarantined { .. })
        ),
        "{refused}"
    );
    let id = quarantine.unwrap().id;
    let lifted = story.promotion.lift_quarantine(story.ann, &id, "was fine");
    assert!(lifted.await.unwrap().lifted_at.is_some());
    let to_three = story.roll_back("prod", Some(3), false).await.unwrap();
    assert!(matches!(to_three, RolledBack::Done { .. }));
    let never = story.roll_back("staging", None, true).await.unwrap_err();
    assert!(matches!(never, PromotionError::NothingBefore(_)), "{never}");
    let moves = story
        .f
        .catalog
        .moves(story.ann, "prompt", &name(NAME), None, &page())
        .await
        .unwrap();
    let actions: Vec<_> = moves.items.iter().map(|line| line.action.name()).collect();
    assert_eq!(
        actions,
        ["rollback", "rollback", "rollback", "move", "move", "move"]
    );
    story.end().await;
}

async fn a_second_click_rolls_back_nothing(f: Fixture) {
    let story = begin(f).await;
    for to in [1, 2, 3] {
        story.move_to("prod", to).await;
    }
    let click = || async {
        let request = RollbackRequest {
            kind: "prompt",
            name: &name(NAME),
            label: &label("prod"),
            to: None,
            expected: Some(3),
            reason: "",
            quarantine: true,
        };
        story.promotion.roll_back(story.bob, request).await.unwrap()
    };
    let (a, b) = tokio::join!(click(), click());
    let done = |rolled: &RolledBack| matches!(rolled, RolledBack::Done { .. });
    assert!(done(&a) != done(&b), "{a:?} {b:?}");
    assert_eq!(story.at("prod").await, Some(2));
    story.end().await;
}

async fn quarantined_content_is_refused_everywhere(f: Fixture) {
    let story = begin(f).await;
    for to in [1, 2] {
        story.move_to("prod", to).await;
    }
    story.protect("staging", rules(1, &[])).await;
    let elsewhere = story.propose(story.ann, "staging", 2).await;
    story.roll_back("prod", None, true).await.unwrap();
    assert_eq!(story.state(&elsewhere).await, ProposalState::Cancelled);
    for at in ["dev", "anything"] {
        let refused = move_directly(&story, at, 2).await.unwrap_err();
        assert!(
            matches!(refused, CatalogError::Quarantined { .. }),
            "{at}: {refused}"
        );
    }
    assert!(story.ask(story.ann, "staging", 2).await.is_err());
    let active = async || {
        let found = story
            .promotion
            .quarantines(story.ann, None, true, &page())
            .await;
        found.unwrap().items
    };
    let [quarantine] = &active().await[..] else {
        panic!("one quarantine")
    };
    assert_eq!((quarantine.number, &*quarantine.reason), (2, "worse"));
    let lift = story
        .promotion
        .lift_quarantine(story.ann, &quarantine.id, "tested again");
    lift.await.unwrap();
    assert!(active().await.is_empty());
    move_directly(&story, "dev", 2).await.unwrap();
    story.end().await;
}

fn auto(approvals: u32, gates: &[&str]) -> Rules {
    Rules {
        delivery: Delivery::Auto,
        ..rules(approvals, gates)
    }
}

async fn content_moves_on_by_itself_and_never_against_a_person(f: Fixture) {
    let story = begin(f).await;
    story.protect("staging", auto(0, &[])).await;
    story.protect("prod", auto(0, &["eval"])).await;
    story.evidence("one", "eval", Outcome::Pass).await;
    // One move goes the whole way, in one transaction.
    story.move_to("dev", 1).await;
    assert_eq!(story.at("staging").await, Some(1));
    assert_eq!(story.at("prod").await, Some(1));
    story.f.clock.advance_us(1);
    story.move_to("dev", 2).await;
    assert_eq!(
        (story.at("staging").await, story.at("prod").await),
        (Some(2), Some(1))
    );
    story.f.clock.advance_us(1);
    story.evidence("two", "eval", Outcome::Pass).await;
    assert_eq!(story.at("prod").await, Some(2));
    // Going back stays, with and without a quarantine, whatever the sweep does.
    story.f.clock.advance_us(1);
    story.roll_back("prod", None, false).await.unwrap();
    assert_eq!(story.promotion.sweep().await.unwrap(), 0);
    assert_eq!(story.at("prod").await, Some(1));
    // A rollback does not travel on either.
    story.f.clock.advance_us(1);
    story.move_to("dev", 3).await;
    story.f.clock.advance_us(1);
    story.roll_back("staging", None, true).await.unwrap();
    story.promotion.sweep().await.unwrap();
    assert_eq!(
        (story.at("staging").await, story.at("prod").await),
        (Some(2), Some(1))
    );
    // Switched on later, the sweep finds what is there.
    story.f.clock.advance_us(1);
    story.protect("prod", auto(0, &[])).await;
    story.f.clock.advance_us(1);
    story.save(story.ann, NAME, "four").await;
    story.protect("staging", rules(0, &[])).await;
    story.move_to("staging", 4).await;
    assert_eq!(story.at("prod").await, Some(4));
    story.end().await;
}

async fn automatic_delivery_asks_once_where_approvals_are_needed(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", auto(1, &["eval"])).await;
    story.move_to("staging", 2).await;
    assert!(story.waiting().await.is_empty());
    story.evidence("two", "eval", Outcome::Pass).await;
    let [asked] = &story.waiting().await[..] else {
        panic!("one proposal")
    };
    assert_eq!(asked.author, "system");
    // Who wrote it and who moved it to staging are behind this.
    let refused = story.approve(story.ann, asked).await.unwrap_err();
    assert!(matches!(refused, PromotionError::OwnChange), "{refused}");
    let verdict = Verdict::Reject;
    story
        .promotion
        .decide(story.bob, "admin", &asked.id, verdict, "not now")
        .await
        .unwrap();
    story.f.clock.advance_us(10_000_000);
    assert_eq!(story.promotion.sweep().await.unwrap(), 0);
    assert!(story.waiting().await.is_empty(), "a no is not asked again");
    story.end().await;
}

async fn the_board_says_what_runs_where(f: Fixture) {
    let story = begin(f).await;
    story.save(story.ann, "other", "x").await;
    story.move_to("dev", 3).await;
    story.move_to("staging", 2).await;
    story.move_to("prod", 1).await;
    story.protect("prod", rules(1, &["eval"])).await;
    story.evidence("two", "eval", Outcome::Fail).await;
    let proposal = story.propose(story.bob, "prod", 2).await;
    let board = story.promotion.board(story.ann, "prompt", &page()).await;
    let board = board.unwrap();
    let names: Vec<_> = board.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["dev", "staging", "prod"]);
    let [other, row] = &board.rows.items[..] else {
        panic!("two names")
    };
    assert_eq!((other.name.as_str(), row.name.as_str()), ("other", NAME));
    assert!(other.cells[0].differs && other.cells[0].next.is_some());
    assert!(
        !other.cells[1].differs,
        "nothing in dev, nothing in staging"
    );
    let numbers: Vec<_> = row
        .cells
        .iter()
        .map(|cell| cell.pointer.as_ref().unwrap().number)
        .collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert!(!row.cells[0].differs, "dev has the newest");
    let prod = &row.cells[2];
    let next = prod.next.as_ref().unwrap();
    assert_eq!((next.number, next.report.passes), (2, false));
    assert_eq!(next.report.gates[0].outcome, GateOutcome::Fail);
    assert_eq!(prod.proposals[0].id, proposal.id);
    story.end().await;
}

async fn projects_keep_to_themselves(f: Fixture) {
    let story = begin(f).await;
    story.protect("prod", rules(1, &[])).await;
    let proposal = story.propose(story.ann, "prod", 2).await;
    let other = Scope {
        actor: story.bob.actor,
        ..story.f.other
    };
    let found = story.promotion.proposal(other, &proposal.id).await.unwrap();
    assert_eq!(found, None);
    let refused = story.approve(other, &proposal).await.unwrap_err();
    assert!(matches!(refused, PromotionError::NotFound(_)), "{refused}");
    let all = story
        .promotion
        .proposals(other, &ProposalFilter::default(), &page())
        .await
        .unwrap();
    assert!(all.items.is_empty());
    let environments = story.promotion.environments(other).await.unwrap();
    assert!(environments.environments.is_empty() && environments.labels.is_empty());
    story.end().await;
}
