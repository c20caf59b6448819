use db::catalog::{Document, Label};
use db::{
    Catalog, CatalogError, MoveOutcome, MoveRequest, Name, NameFilter, NewVersion, PageRequest,
    SavedVersion, Scope, Selector, audit,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Fixture, on_both, prompt};

on_both!(
    saving_numbers_versions_and_knows_what_it_has,
    a_version_is_found_by_number_label_digest_and_as_latest,
    projects_do_not_see_each_other,
    wrong_content_is_refused_with_every_problem,
    names_are_listed_by_folder_in_pages,
    versions_are_listed_newest_first_in_pages,
    a_pointer_remembers_every_move,
    a_move_on_an_old_revision_is_a_conflict,
    of_eight_movers_one_wins_each_revision,
    savers_at_once_leave_no_gap_and_no_twin,
    every_change_counts_the_plan_once_and_is_audited,
    a_rolled_back_save_never_was,
    what_is_pointed_to_can_be_read_at_once,
    nul_in_a_message_is_replaced,
);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn page(limit: u32) -> PageRequest {
    PageRequest {
        cursor: None,
        limit,
    }
}

async fn save(catalog: &Catalog, scope: Scope, at: &str, content: &Value) -> SavedVersion {
    let new = NewVersion {
        kind: "prompt",
        name: &name(at),
        content,
        message: "why",
    };
    catalog.save_version(scope, new).await.unwrap()
}

async fn find(fixture: &Fixture, at: &str, selector: &str) -> Option<Document> {
    let selector: Selector = selector.parse().unwrap();
    fixture
        .catalog
        .version(fixture.scope, "prompt", &name(at), &selector)
        .await
        .unwrap()
}

async fn move_to(fixture: &Fixture, at: &str, to: i64, expected: Option<i64>) -> MoveOutcome {
    let name = name(at);
    let label = label("production");
    let request = MoveRequest {
        kind: "prompt",
        name: &name,
        label: &label,
        to,
        expected,
        reason: "better",
    };
    fixture
        .catalog
        .move_pointer(fixture.scope, request)
        .await
        .unwrap()
}

async fn saving_numbers_versions_and_knows_what_it_has(f: Fixture) {
    let first = save(
        &f.catalog,
        f.scope,
        "support/answer",
        &json!({ "text": "hi", "n": 1.0 }),
    )
    .await;
    assert_eq!((first.version.number, first.already_existed), (1, false));
    assert_eq!(
        (
            first.version.message.as_str(),
            first.version.author.as_str()
        ),
        ("why", "operator")
    );

    let second = save(&f.catalog, f.scope, "support/answer", &prompt("hello")).await;
    assert_eq!(second.version.number, 2);

    // The same document in another spelling: keys in another order, 1 for 1.0.
    let again = save(
        &f.catalog,
        f.scope,
        "support/answer",
        &json!({ "n": 1, "text": "hi" }),
    )
    .await;
    assert_eq!(
        (again.version, again.already_existed),
        (first.version, true)
    );

    let elsewhere = save(&f.catalog, f.scope, "sales/answer", &prompt("hello")).await;
    assert_eq!(
        (elsewhere.version.number, elsewhere.already_existed),
        (1, false)
    );
    assert_eq!(elsewhere.same_content, [(name("support/answer"), 2)]);
}

async fn a_version_is_found_by_number_label_digest_and_as_latest(f: Fixture) {
    let first = save(&f.catalog, f.scope, "a", &prompt("one")).await.version;
    let second = save(&f.catalog, f.scope, "a", &prompt("two")).await.version;
    move_to(&f, "a", 1, None).await;

    let found = |document: Option<Document>| document.map(|d| (d.version.number, d.content));
    assert_eq!(found(find(&f, "a", "1").await), Some((1, prompt("one"))));
    assert_eq!(
        found(find(&f, "a", "latest").await),
        Some((2, prompt("two")))
    );
    assert_eq!(
        found(find(&f, "a", "production").await),
        Some((1, prompt("one")))
    );
    assert_eq!(
        found(find(&f, "a", &second.digest.to_string()).await),
        Some((2, prompt("two")))
    );
    assert_eq!(find(&f, "a", "1").await.map(|d| d.version), Some(first));
    for absent in [
        "3",
        "staging",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        assert_eq!(find(&f, "a", absent).await, None, "{absent}");
    }
    assert_eq!(find(&f, "b", "latest").await, None);
}

async fn projects_do_not_see_each_other(f: Fixture) {
    let mine = save(&f.catalog, f.scope, "a", &prompt("mine"))
        .await
        .version;
    move_to(&f, "a", 1, None).await;
    let at = name("a");
    let by_digest = Selector::Digest(mine.digest);
    for selector in [
        Selector::Latest,
        Selector::Number(1),
        Selector::Label(label("production")),
        by_digest,
    ] {
        assert_eq!(
            f.catalog
                .version(f.other, "prompt", &at, &selector)
                .await
                .unwrap(),
            None
        );
    }
    assert!(
        f.catalog
            .list_names(f.other, "prompt", &NameFilter::default(), &page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        f.catalog
            .list_versions(f.other, "prompt", &at, &page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        f.catalog
            .pointers(f.other, "prompt", &at)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        f.catalog
            .moves(f.other, "prompt", &at, None, &page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        f.catalog
            .pointed_documents(f.other.project, "prompt")
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        audit::list(
            &f.db,
            Some(f.other.project),
            &audit::Filter::default(),
            &page(10)
        )
        .await
        .unwrap()
        .items
        .is_empty()
    );

    // The same name and content there is that project's own first version.
    let theirs = save(&f.catalog, f.other, "a", &prompt("mine")).await;
    assert_eq!(
        (
            theirs.version.number,
            theirs.already_existed,
            theirs.same_content.len()
        ),
        (1, false, 0)
    );
    let production = label("production");
    let request = MoveRequest {
        kind: "prompt",
        name: &at,
        label: &production,
        to: 2,
        expected: None,
        reason: "",
    };
    save(&f.catalog, f.scope, "a", &prompt("mine 2")).await;
    let refused = f.catalog.move_pointer(f.other, request).await;
    assert!(
        matches!(refused, Err(CatalogError::NoVersion { number: 2, .. })),
        "{refused:?}"
    );
}

async fn wrong_content_is_refused_with_every_problem(f: Fixture) {
    let at = name("a");
    let try_save = async |kind: &str, content: Value, message: &str| {
        f.catalog
            .save_version(
                f.scope,
                NewVersion {
                    kind,
                    name: &at,
                    content: &content,
                    message,
                },
            )
            .await
    };
    let refused = try_save("prompt", json!({ "surprise": 1 }), "")
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/text: must be a text; /surprise: is not a field of a prompt"
    );
    let refused = try_save("note", json!({ "id": 9_007_199_254_740_993_u64 }), "")
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("9007199254740993"),
        "{refused}"
    );
    let refused = try_save("note", json!("x".repeat(5 * 1024 * 1024)), "")
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("4 MiB"), "{refused}");
    let refused = try_save("prompt", prompt("a"), &"x".repeat(2001))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("message: longer than 2000"),
        "{refused}"
    );
    let refused = try_save("poem", json!({}), "").await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no document kind \"poem\"");
    assert_eq!(f.db.plan_revision().await.unwrap(), 1);
}

async fn names_are_listed_by_folder_in_pages(f: Fixture) {
    let all = [
        "support/answer",
        "support/Answer",
        "support",
        "supporters/a",
        "SUPPORT/x",
        "サポート/回答",
        "サポート/挨拶",
    ];
    for at in all {
        save(&f.catalog, f.scope, at, &prompt("v1")).await;
        save(&f.catalog, f.scope, at, &prompt("v2")).await;
    }
    move_to(&f, "support/answer", 1, None).await;

    let list = async |folder: Option<&str>, limit: u32| {
        let filter = NameFilter {
            folder: folder.map(name),
            ..NameFilter::default()
        };
        let mut listed = Vec::new();
        let mut request = page(limit);
        loop {
            let got = f
                .catalog
                .list_names(f.scope, "prompt", &filter, &request)
                .await
                .unwrap();
            assert!(got.items.len() <= limit as usize);
            listed.extend(got.items);
            let Some(next) = got.next else { return listed };
            request.cursor = Some(next);
        }
    };
    for limit in [1, 2, 3, 100] {
        let mut names: Vec<_> = list(None, limit)
            .await
            .into_iter()
            .map(|item| item.latest.name.to_string())
            .collect();
        names.sort();
        let mut expected = all.map(str::to_owned);
        expected.sort();
        assert_eq!(names, expected, "limit {limit}");
    }
    let mut folder: Vec<_> = list(Some("support"), 2).await;
    folder.sort_by(|a, b| a.latest.name.cmp(&b.latest.name));
    let shown: Vec<_> = folder
        .iter()
        .map(|item| {
            (
                item.latest.name.as_str(),
                item.latest.number,
                item.labels.clone(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("support/Answer", 2, vec![]),
            ("support/answer", 2, vec![("production".to_owned(), 1)])
        ]
    );
    assert_eq!(list(Some("サポート"), 10).await.len(), 2);
    let invented = PageRequest {
        cursor: Some(base::Cursor::from_client("x")),
        limit: 1,
    };
    let refused = f
        .catalog
        .list_names(f.scope, "prompt", &NameFilter::default(), &invented)
        .await;
    assert!(matches!(refused, Err(CatalogError::Cursor(_))));
}

async fn versions_are_listed_newest_first_in_pages(f: Fixture) {
    for n in 1..=5 {
        save(&f.catalog, f.scope, "a", &prompt(&n.to_string())).await;
    }
    let at = name("a");
    let mut request = page(2);
    let mut numbers = Vec::new();
    loop {
        let got = f
            .catalog
            .list_versions(f.scope, "prompt", &at, &request)
            .await
            .unwrap();
        numbers.push(
            got.items
                .iter()
                .map(|version| version.number)
                .collect::<Vec<_>>(),
        );
        let Some(next) = got.next else { break };
        request.cursor = Some(next);
    }
    assert_eq!(numbers, [vec![5, 4], vec![3, 2], vec![1]]);
}

async fn a_pointer_remembers_every_move(f: Fixture) {
    for n in 1..=3 {
        save(&f.catalog, f.scope, "a", &prompt(&n.to_string())).await;
    }
    for to in [1, 3, 3, 2] {
        f.clock.advance_us(1);
        move_to(&f, "a", to, None).await;
    }
    let at = name("a");
    let pointers = f.catalog.pointers(f.scope, "prompt", &at).await.unwrap();
    assert_eq!(pointers.len(), 1);
    assert_eq!((pointers[0].number, pointers[0].revision), (2, 3));

    let mut request = page(2);
    let mut moves = Vec::new();
    loop {
        let got = f
            .catalog
            .moves(f.scope, "prompt", &at, Some(&label("production")), &request)
            .await
            .unwrap();
        moves.extend(got.items);
        let Some(next) = got.next else { break };
        request.cursor = Some(next);
    }
    let shown: Vec<_> = moves
        .iter()
        .map(|m| {
            (
                m.revision,
                m.from,
                m.to,
                m.reason.as_str(),
                m.actor.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (3, Some(3), 2, "better", "operator"),
            (2, Some(1), 3, "better", "operator"),
            (1, None, 1, "better", "operator"),
        ]
    );
    assert_eq!(
        f.catalog
            .moves(f.scope, "prompt", &at, None, &page(9))
            .await
            .unwrap()
            .items,
        moves
    );
    let other = f
        .catalog
        .moves(f.scope, "prompt", &at, Some(&label("staging")), &page(9))
        .await
        .unwrap();
    assert!(other.items.is_empty());
}

async fn a_move_on_an_old_revision_is_a_conflict(f: Fixture) {
    save(&f.catalog, f.scope, "a", &prompt("1")).await;
    save(&f.catalog, f.scope, "a", &prompt("2")).await;
    assert_eq!(
        move_to(&f, "a", 1, Some(1)).await,
        MoveOutcome::Conflict(None)
    );
    assert!(matches!(move_to(&f, "a", 1, Some(0)).await, MoveOutcome::Moved(p) if p.revision == 1));
    assert!(
        matches!(move_to(&f, "a", 2, Some(0)).await, MoveOutcome::Conflict(Some(p)) if p.revision == 1)
    );
    assert!(
        matches!(move_to(&f, "a", 2, Some(1)).await, MoveOutcome::Moved(p) if p.revision == 2 && p.number == 2)
    );
    assert!(
        matches!(move_to(&f, "a", 2, Some(2)).await, MoveOutcome::Unchanged(p) if p.revision == 2)
    );

    let (at, production) = (name("a"), label("production"));
    let request = MoveRequest {
        kind: "prompt",
        name: &at,
        label: &production,
        to: 9,
        expected: None,
        reason: "",
    };
    let refused = f.catalog.move_pointer(f.scope, request).await.unwrap_err();
    assert_eq!(refused.to_string(), "prompt a has no version 9");
}

/// Each mover reads the revision and moves on it, until it has won five times.
async fn of_eight_movers_one_wins_each_revision(f: Fixture) {
    const MOVERS: i64 = 8;
    const WINS: usize = 5;
    for n in 0..MOVERS {
        save(&f.catalog, f.scope, "a", &prompt(&n.to_string())).await;
    }
    let second = Catalog::new(f.second().await, f.catalog.kinds().clone());
    let mut movers = JoinSet::new();
    for mover in 0..MOVERS {
        let catalog = if mover % 2 == 0 {
            f.catalog.clone()
        } else {
            second.clone()
        };
        movers.spawn(win(catalog, f.scope, mover + 1, WINS));
    }
    let mut won = movers.join_all().await.concat();
    won.sort_unstable();
    let all = MOVERS * WINS as i64;
    assert_eq!(
        won,
        (1..=all).collect::<Vec<_>>(),
        "every revision was won by exactly one"
    );
    let moves = f
        .catalog
        .moves(f.scope, "prompt", &name("a"), None, &page(200))
        .await
        .unwrap()
        .items;
    let mut chain: Vec<_> = moves.iter().map(|m| (m.revision, m.from, m.to)).collect();
    chain.sort_unstable();
    assert_eq!(chain.len() as i64, all);
    assert!(
        chain.windows(2).all(|pair| pair[1].1 == Some(pair[0].2)),
        "{chain:?}"
    );
}

async fn win(catalog: Catalog, scope: Scope, mover: i64, wins: usize) -> Vec<i64> {
    let (at, production) = (name("a"), label("production"));
    let mut won = Vec::new();
    let mut to = mover;
    while won.len() < wins {
        let seen = catalog.pointers(scope, "prompt", &at).await.unwrap();
        let expected = Some(seen.first().map_or(0, |pointer| pointer.revision));
        let request = MoveRequest {
            kind: "prompt",
            name: &at,
            label: &production,
            to,
            expected,
            reason: "race",
        };
        match catalog.move_pointer(scope, request).await.unwrap() {
            MoveOutcome::Moved(pointer) => won.push(pointer.revision),
            // It points to this mover's version already: aim at another one.
            MoveOutcome::Unchanged(_) => to = to % 8 + 1,
            MoveOutcome::Conflict(_) => {}
        }
    }
    won
}

async fn savers_at_once_leave_no_gap_and_no_twin(f: Fixture) {
    let second = Catalog::new(f.second().await, f.catalog.kinds().clone());
    let mut savers = JoinSet::new();
    for saver in 0..8 {
        let catalog = if saver % 2 == 0 {
            f.catalog.clone()
        } else {
            second.clone()
        };
        let scope = f.scope;
        savers.spawn(async move {
            let mut numbers = Vec::new();
            for n in 0..4 {
                numbers.push(
                    save(&catalog, scope, "a", &prompt(&format!("{saver}/{n}")))
                        .await
                        .version
                        .number,
                );
                // And everybody saves this one: it is new exactly once.
                save(&catalog, scope, "a", &prompt("shared")).await;
            }
            numbers
        });
    }
    let own = savers.join_all().await.concat();
    let listed = f
        .catalog
        .list_versions(f.scope, "prompt", &name("a"), &page(100))
        .await
        .unwrap()
        .items;
    let numbers: Vec<_> = listed.iter().rev().map(|version| version.number).collect();
    assert_eq!(numbers, (1..=33).collect::<Vec<_>>());
    assert_eq!(own.len(), 32);
}

async fn every_change_counts_the_plan_once_and_is_audited(f: Fixture) {
    save(&f.catalog, f.scope, "a", &prompt("1")).await;
    assert_eq!(f.db.plan_revision().await.unwrap(), 2);
    save(&f.catalog, f.scope, "a", &prompt("1")).await;
    assert_eq!(f.db.plan_revision().await.unwrap(), 2, "nothing changed");
    f.clock.advance_us(1);
    move_to(&f, "a", 1, None).await;
    assert_eq!(f.db.plan_revision().await.unwrap(), 3);
    assert_eq!(f.second().await.plan_revision().await.unwrap(), 3);

    let first = audit::list(
        &f.db,
        Some(f.scope.project),
        &audit::Filter::default(),
        &page(1),
    )
    .await
    .unwrap();
    let rest = PageRequest {
        cursor: first.next.clone(),
        limit: 9,
    };
    let rest = audit::list(
        &f.db,
        Some(f.scope.project),
        &audit::Filter::default(),
        &rest,
    )
    .await
    .unwrap();
    assert_eq!(rest.next, None);
    let lines: Vec<_> = first
        .items
        .iter()
        .chain(&rest.items)
        .map(|e| (e.action.as_str(), e.object.as_str()))
        .collect();
    assert_eq!(lines, [("prompt.move", "a"), ("prompt.save", "a")]);
    assert_eq!(
        first.items[0].detail,
        json!({ "label": "production", "from": null, "to": 1, "reason": "better" })
    );
}

async fn a_rolled_back_save_never_was(f: Fixture) {
    let (at, content) = (name("a"), prompt("1"));
    let new = NewVersion {
        kind: "prompt",
        name: &at,
        content: &content,
        message: "",
    };
    let mut tx = f.db.begin_write().await.unwrap();
    f.catalog
        .save_version_in(&mut tx, f.scope, new)
        .await
        .unwrap();
    let inside = f
        .catalog
        .version_in(&mut tx, f.scope, "prompt", &at, &Selector::Latest)
        .await
        .unwrap();
    assert_eq!(inside.unwrap().content, content);
    assert_eq!(
        find(&f, "a", "latest").await,
        None,
        "not visible before the commit"
    );
    drop(tx);
    assert_eq!(find(&f, "a", "latest").await, None);
    assert_eq!(f.db.plan_revision().await.unwrap(), 1);
    assert_eq!(
        save(&f.catalog, f.scope, "a", &content)
            .await
            .version
            .number,
        1,
        "the writer is free again"
    );
}

async fn what_is_pointed_to_can_be_read_at_once(f: Fixture) {
    for at in ["a", "b"] {
        save(&f.catalog, f.scope, at, &prompt("1")).await;
        save(&f.catalog, f.scope, at, &prompt(&format!("{at} 2"))).await;
    }
    move_to(&f, "a", 1, None).await;
    move_to(&f, "b", 2, None).await;
    let pointed = f
        .catalog
        .pointed_documents(f.scope.project, "prompt")
        .await
        .unwrap();
    let shown: Vec<_> = pointed
        .into_iter()
        .map(|(p, content)| (p.name.to_string(), p.number, content))
        .collect();
    assert_eq!(
        shown,
        [
            ("a".to_owned(), 1, prompt("1")),
            ("b".to_owned(), 2, prompt("b 2"))
        ]
    );
    let all = f
        .catalog
        .all_documents(f.scope.project, "prompt")
        .await
        .unwrap();
    let shown: Vec<_> = all
        .into_iter()
        .map(|d| (d.version.name.to_string(), d.version.number, d.content))
        .collect();
    assert_eq!(
        shown,
        [
            ("a".to_owned(), 1, prompt("1")),
            ("a".to_owned(), 2, prompt("a 2")),
            ("b".to_owned(), 1, prompt("1")),
            ("b".to_owned(), 2, prompt("b 2")),
        ]
    );
    assert!(
        f.catalog
            .all_documents(f.other.project, "prompt")
            .await
            .unwrap()
            .is_empty()
    );
}

async fn nul_in_a_message_is_replaced(f: Fixture) {
    let (at, content) = (name("a"), prompt("nul \0 in the content"));
    let new = NewVersion {
        kind: "prompt",
        name: &at,
        content: &content,
        message: "a\0b",
    };
    let saved = f.catalog.save_version(f.scope, new).await.unwrap();
    assert_eq!(saved.version.message, "a\u{fffd}b");
    assert_eq!(
        find(&f, "a", "latest").await.unwrap().content,
        content,
        "JSON escapes it"
    );
}
