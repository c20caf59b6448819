use db::audit::{self, Filter, Head, Line};
use db::{Actor, Db, PageRequest, Scope, sqlx};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Fixture, on_both};

on_both!(
    lines_form_a_chain_that_verifies,
    every_kind_of_tampering_is_found,
    a_cut_tail_is_found_with_a_head_that_was_kept,
    lines_written_at_once_have_no_gap_and_no_twin,
    lines_are_filtered_and_exported_in_order,
    rows_from_before_the_chain_are_sealed,
    odd_details_verify,
);

async fn write(db: &Db, scope: Scope, action: &str, object: &str) {
    let mut tx = db.begin_write().await.unwrap();
    Line::new(scope, action, object)
        .detail(json!({"n": 1.5, "text": "日本"}))
        .reason("why")
        .write(&mut tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn story(f: &Fixture) -> Head {
    for n in 0..8 {
        write(&f.db, f.scope, "note.save", &format!("note-{n}")).await;
    }
    write(&f.db, f.other, "note.save", "elsewhere").await;
    let verified = audit::verify(&f.db, Some(f.scope.project), None).await;
    verified.unwrap().unwrap().head
}

async fn lines_form_a_chain_that_verifies(f: Fixture) {
    let head = story(&f).await;
    assert_eq!(head.seq, 8);
    assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
    assert_eq!(
        audit::head(&f.db, Some(f.scope.project)).await.unwrap(),
        head
    );
    let empty = audit::verify(&f.db, None, None).await.unwrap().unwrap();
    assert_eq!((empty.rows, empty.head.to_string().as_str()), (0, "0:"));
    let lines = audit::after(&f.db, Some(f.scope.project), &Filter::default(), 0)
        .await
        .unwrap();
    assert_eq!(lines[0].prev, "");
    assert!(lines.windows(2).all(|two| two[1].prev == two[0].hash));
    // What the API prints is what the hash is over, so that others can check it.
    let mut fields = serde_json::to_value(&lines[3]).unwrap();
    fields.as_object_mut().unwrap().remove("hash");
    assert_eq!(base::Digest::of_json(&fields).unwrap().hex(), lines[3].hash);
    let mut tx = f.db.begin_write().await.unwrap();
    let with_id = audit::with_request("the-request".to_owned(), async {
        Line::of_installation(Actor::System, "setup.link", "setup")
            .write(&mut tx)
            .await
            .unwrap();
    });
    with_id.await;
    tx.commit().await.unwrap();
    let lines = audit::after(&f.db, None, &Filter::default(), 0)
        .await
        .unwrap();
    assert_eq!(lines[0].request_id, "the-request");
    assert_eq!(lines[0].project, None);
}

async fn every_kind_of_tampering_is_found(f: Fixture) {
    story(&f).await;
    let project = f.scope.project.to_string();
    let other = f.other.project.to_string();
    let attacks: &[(&str, i64, &str)] = &[
        (
            "UPDATE audit SET actor = 'operator2' WHERE chain = $1 AND seq = 3",
            3,
            "changed",
        ),
        (
            "UPDATE audit SET detail = '{}' WHERE chain = $1 AND seq = 1",
            1,
            "changed",
        ),
        (
            "UPDATE audit SET detail = 'no json' WHERE chain = $1 AND seq = 1",
            1,
            "changed",
        ),
        (
            "UPDATE audit SET at = at + 1 WHERE chain = $1 AND seq = 8",
            8,
            "changed",
        ),
        (
            "UPDATE audit SET reason = '' WHERE chain = $1 AND seq = 2",
            2,
            "changed",
        ),
        (
            "DELETE FROM audit WHERE chain = $1 AND seq = 4",
            4,
            "removed",
        ),
        (
            "DELETE FROM audit WHERE chain = $1 AND seq = 1",
            1,
            "removed",
        ),
        (
            "DELETE FROM audit WHERE chain = $1 AND seq > 6",
            7,
            "removed",
        ),
        ("DELETE FROM audit WHERE chain = $1", 1, "removed"),
        (
            "UPDATE audit SET seq = CASE seq WHEN 2 THEN 1002 ELSE 1003 END WHERE chain = $1 AND seq IN (2, 3)",
            2,
            "removed",
        ),
        (
            "INSERT INTO audit (id, project, actor, action, object, detail, at, chain)
             VALUES ('x', $1, 'operator', 'note.save', 'x', '{}', 0, $1)",
            0,
            "inserted",
        ),
        (
            "INSERT INTO audit (id, project, actor, action, object, detail, at, chain, seq)
             VALUES ('x', $1, 'operator', 'note.save', 'x', '{}', 0, $1, 9)",
            9,
            "inserted",
        ),
        (
            "UPDATE audit SET project = NULL WHERE chain = $1 AND seq = 5",
            5,
            "changed",
        ),
        (
            "UPDATE audit SET chain = '' WHERE chain = $1 AND seq = 5",
            5,
            "removed",
        ),
        ("DELETE FROM audit_heads WHERE chain = $1", 1, "inserted"),
    ];
    for (attack, at, word) in attacks {
        let mut tx = f.db.begin_write().await.unwrap();
        let saved = snapshot(&f.db).await;
        let attacked = sqlx::query(*attack).bind(&project).execute(tx.conn()).await;
        attacked.unwrap();
        tx.commit().await.unwrap();
        let found = audit::verify(&f.db, Some(f.scope.project), None).await;
        let broken = found.unwrap().expect_err(attack);
        assert_eq!(broken.seq, *at, "{attack}: {broken:?}");
        assert!(broken.why.contains(word), "{attack}: {broken:?}");
        restore(&f.db, &saved).await;
        let good = audit::verify(&f.db, Some(f.scope.project), None).await;
        good.unwrap().unwrap();
    }
    // Two lines that changed places.
    let mut tx = f.db.begin_write().await.unwrap();
    for (from, to) in [(2, 1000), (3, 2), (1000, 3)] {
        sqlx::query("UPDATE audit SET seq = $3 WHERE chain = $1 AND seq = $2")
            .bind(&project)
            .bind(from)
            .bind(to)
            .execute(tx.conn())
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let found = audit::verify(&f.db, Some(f.scope.project), None).await;
    assert_eq!(found.unwrap().unwrap_err().seq, 2);
    // The other project's chain knows nothing of all this.
    assert_ne!(project, other);
    let fine = audit::verify(&f.db, Some(f.other.project), None).await;
    fine.unwrap().unwrap();
}

type Saved = (Vec<Vec<Option<String>>>, Vec<(String, i64, String)>);

/// Both tables, as text.
async fn snapshot(db: &Db) -> Saved {
    use sqlx::Row as _;
    let rows = sqlx::query(
        "SELECT id, project, actor, action, object, detail, CAST(at AS TEXT), chain, CAST(seq AS TEXT), request_id,
                reason, before_digest, after_digest, prev_hash, hash FROM audit",
    )
    .fetch_all(db.read())
    .await
    .unwrap();
    let lines = rows
        .iter()
        .map(|row| (0..15).map(|column| row.get(column)).collect());
    let heads = sqlx::query("SELECT chain, seq, hash FROM audit_heads")
        .fetch_all(db.read())
        .await
        .unwrap();
    let heads = heads.iter().map(|row| (row.get(0), row.get(1), row.get(2)));
    (lines.collect(), heads.collect())
}

async fn restore(db: &Db, saved: &Saved) {
    let mut tx = db.begin_write().await.unwrap();
    for table in ["DELETE FROM audit", "DELETE FROM audit_heads"] {
        sqlx::query(table).execute(tx.conn()).await.unwrap();
    }
    for line in &saved.0 {
        let insert = "INSERT INTO audit (id, project, actor, action, object, detail, at, chain, seq, request_id,
                             reason, before_digest, after_digest, prev_hash, hash)
             VALUES ($1, $2, $3, $4, $5, $6, CAST($7 AS BIGINT), $8, CAST($9 AS BIGINT), $10, $11, $12, $13, $14, $15)";
        let mut query = sqlx::query(insert);
        for value in line {
            query = query.bind(value.clone());
        }
        query.execute(tx.conn()).await.unwrap();
    }
    for (chain, seq, hash) in &saved.1 {
        sqlx::query("INSERT INTO audit_heads (chain, seq, hash) VALUES ($1, $2, $3)")
            .bind(chain)
            .bind(seq)
            .bind(hash)
            .execute(tx.conn())
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn a_cut_tail_is_found_with_a_head_that_was_kept(f: Fixture) {
    let kept = story(&f).await;
    write(&f.db, f.scope, "note.save", "later").await;
    let project = Some(f.scope.project);
    let later = audit::verify(&f.db, project, Some(&kept)).await;
    assert_eq!(later.unwrap().unwrap().rows, 9);
    // Somebody who owns the database cuts the end and the head with it.
    let lines = audit::after(&f.db, project, &Filter::default(), 0)
        .await
        .unwrap();
    let mut tx = f.db.begin_write().await.unwrap();
    for statement in [
        "DELETE FROM audit WHERE chain = $1 AND seq > $2",
        "UPDATE audit_heads SET seq = $2, hash = $3 WHERE chain = $1",
    ] {
        let query = sqlx::query(statement).bind(f.scope.project.to_string());
        let query = query.bind(5_i64);
        let query = if statement.contains("$3") {
            query.bind(lines[4].hash.clone())
        } else {
            query
        };
        query.execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let without = audit::verify(&f.db, project, None).await.unwrap();
    assert_eq!(without.unwrap().rows, 5, "nothing in the database tells");
    let broken = audit::verify(&f.db, project, Some(&kept)).await.unwrap();
    let broken = broken.unwrap_err();
    assert_eq!(broken.seq, 6);
    assert!(broken.why.contains("cut"), "{broken:?}");
    // A chain that was written anew over the cut does not go through the head that was kept.
    for n in 0..4 {
        write(&f.db, f.scope, "note.save", &format!("forged-{n}")).await;
    }
    assert!(audit::verify(&f.db, project, None).await.unwrap().is_ok());
    let forged = audit::verify(&f.db, project, Some(&kept)).await.unwrap();
    assert_eq!(forged.unwrap_err().seq, 8);
}

async fn lines_written_at_once_have_no_gap_and_no_twin(f: Fixture) {
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let db = f.second().await;
        let scope = f.scope;
        tasks.spawn(async move {
            for n in 0..10 {
                write(&db, scope, "note.save", &format!("{task}-{n}")).await;
            }
        });
    }
    let walker = async {
        for _ in 0..5 {
            let found = audit::verify(&f.db, Some(f.scope.project), None).await;
            found.unwrap().unwrap();
        }
    };
    walker.await;
    tasks.join_all().await;
    let found = audit::verify(&f.db, Some(f.scope.project), None).await;
    assert_eq!(found.unwrap().unwrap().rows, 40);
}

async fn lines_are_filtered_and_exported_in_order(f: Fixture) {
    story(&f).await;
    let start = f.db.now_us();
    f.clock.advance_us(10);
    let system = Scope {
        actor: Actor::System,
        ..f.scope
    };
    write(&f.db, system, "prompt.move", "support/answer").await;
    write(&f.db, f.scope, "prompt.save", "support/answer").await;
    let objects = async |filter: Filter| -> Vec<(i64, String)> {
        let page = PageRequest::default();
        let found = audit::list(&f.db, Some(f.scope.project), &filter, &page).await;
        let items = found.unwrap().items.into_iter();
        items.map(|line| (line.seq, line.action)).collect()
    };
    let filter = Filter::default;
    let action = |text: &str| Filter {
        action: text.to_owned(),
        ..filter()
    };
    assert_eq!(
        objects(action("prompt.save")).await,
        [(10, "prompt.save".to_owned())]
    );
    assert_eq!(objects(action("prompt.*")).await.len(), 2);
    assert_eq!(objects(action("prompt")).await.len(), 0);
    let by_system = Filter {
        actor: "system".to_owned(),
        ..filter()
    };
    assert_eq!(objects(by_system).await, [(9, "prompt.move".to_owned())]);
    let early = Filter {
        to: Some(start + 10),
        object: "note-*".to_owned(),
        ..filter()
    };
    assert_eq!(objects(early).await.len(), 8);
    let late = Filter {
        from: Some(start + 10),
        ..filter()
    };
    assert_eq!(objects(late).await.len(), 2);
    let exported = audit::after(&f.db, Some(f.scope.project), &filter(), 7)
        .await
        .unwrap();
    assert_eq!(
        exported.iter().map(|line| line.seq).collect::<Vec<_>>(),
        [8, 9, 10]
    );
}

async fn rows_from_before_the_chain_are_sealed(f: Fixture) {
    // As the first release wrote them: no place, and details that are no canonical JSON.
    let mut tx = f.db.begin_write().await.unwrap();
    for (id, project, at) in [("b", true, 2), ("a", true, 1), ("c", false, 3)] {
        sqlx::query(
            "INSERT INTO audit (id, project, actor, action, object, detail, at, chain)
             VALUES ($1, $2, 'system', 'note.save', $1, '{ \"b\": 1, \"a\": 2.0 }', $3, $4)",
        )
        .bind(id)
        .bind(project.then(|| f.scope.project.to_string()))
        .bind(at)
        .bind(if project {
            f.scope.project.to_string()
        } else {
            String::new()
        })
        .execute(tx.conn())
        .await
        .unwrap();
    }
    // The migration did not happen yet.
    for statement in [
        "DELETE FROM migrations WHERE number = 3",
        "DROP TABLE protections",
        "DROP TABLE approvals",
        "DROP TABLE proposals",
        "DROP TABLE evidence",
        "DROP TABLE quarantines",
        "DROP TABLE audit_heads",
        "DROP INDEX audit_chain",
    ] {
        sqlx::query(statement).execute(tx.conn()).await.unwrap();
    }
    for column in [
        "ALTER TABLE audit DROP COLUMN chain",
        "ALTER TABLE audit DROP COLUMN seq",
        "ALTER TABLE audit DROP COLUMN request_id",
        "ALTER TABLE audit DROP COLUMN reason",
        "ALTER TABLE audit DROP COLUMN before_digest",
        "ALTER TABLE audit DROP COLUMN after_digest",
        "ALTER TABLE audit DROP COLUMN prev_hash",
        "ALTER TABLE audit DROP COLUMN hash",
    ] {
        sqlx::query(column).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let db = f.second().await;
    let verified = audit::verify(&db, Some(f.scope.project), None).await;
    assert_eq!(verified.unwrap().unwrap().rows, 2);
    let lines = audit::after(&db, Some(f.scope.project), &Filter::default(), 0)
        .await
        .unwrap();
    assert_eq!([&*lines[0].id, &*lines[1].id], ["a", "b"]);
    assert_eq!(lines[0].detail, json!({"a": 2, "b": 1}));
    let installation = audit::verify(&db, None, None).await;
    assert_eq!(installation.unwrap().unwrap().rows, 1);
    write(&db, f.scope, "note.save", "after").await;
    let verified = audit::verify(&db, Some(f.scope.project), None).await;
    assert_eq!(verified.unwrap().unwrap().rows, 3);
}

async fn odd_details_verify(f: Fixture) {
    let details = [
        json!({"big": u64::MAX, "deep": [{"n": 9_007_199_254_740_993_i64}]}),
        json!({"nul": "a\u{0}b", "float": 0.1 + 0.2, "tiny": 5e-324}),
        json!([1, null, true, "\u{1F600}"]),
        json!("plain"),
    ];
    for detail in details {
        let mut tx = f.db.begin_write().await.unwrap();
        audit::write(
            &mut tx,
            Some(f.scope.project),
            f.scope.actor,
            "note.save",
            "a\u{0}b",
            &detail,
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
    let verified = audit::verify(&f.db, Some(f.scope.project), None).await;
    assert_eq!(verified.unwrap().unwrap().rows, 4);
}
