use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use db::jobs::{self, Job, JobError, JobState, Lease, LeaseCheck, NewJob, Worker, WorkerSettings};
use db::{Db, PageRequest};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{Fixture, on_both, open_with_real_time};

on_both!(
    four_workers_and_sixty_jobs_make_no_duplicate_claim,
    a_key_makes_a_job_once,
    a_job_waits_for_its_time,
    a_lost_workers_job_is_taken_over_and_its_fence_is_stale,
    failures_back_off_and_end_dead,
    a_job_that_kills_its_workers_ends_dead,
    a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_next_looks,
    a_jobs_result_and_its_end_are_one_transaction,
    jobs_are_listed_per_project_and_pruned,
    a_worker_runs_what_is_put_in,
    a_worker_that_stops_gives_its_jobs_back,
    a_worker_drops_what_was_cancelled,
    slow_a_killed_workers_job_is_done_by_another,
);

const SECOND: i64 = 1_000_000;
const TTL: i64 = 30 * SECOND;

async fn put(db: &Db, new: NewJob<'_>) -> base::JobId {
    let mut tx = db.begin_write().await.unwrap();
    let id = jobs::enqueue(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn take(db: &Db, owner: &str) -> Option<Lease> {
    jobs::lease(db, "k", owner, TTL).await.unwrap()
}

async fn get(db: &Db, id: base::JobId) -> Job {
    jobs::get(db, None, id).await.unwrap().unwrap()
}

/// Asks until it is so; the deadline only ends a test that has failed.
async fn until<F: Future<Output = bool>>(mut so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(
            Instant::now() < deadline,
            "did not happen within 30 seconds"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn four_workers_and_sixty_jobs_make_no_duplicate_claim(f: Fixture) {
    let mut tx = f.db.begin_write().await.unwrap();
    for n in 0..60 {
        jobs::enqueue(&mut tx, NewJob::new("k", json!(n)))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let mut workers = JoinSet::new();
    for worker in 0..4 {
        let db = if worker % 2 == 0 {
            f.db.clone()
        } else {
            f.second().await
        };
        workers.spawn(async move { work_until_empty(&db, &format!("w{worker}")).await });
    }
    let claims = workers.join_all().await.concat();
    let mut counted: HashMap<i64, usize> = HashMap::new();
    for claim in &claims {
        *counted.entry(*claim).or_default() += 1;
    }
    assert_eq!(counted.len(), 60);
    assert!(counted.values().all(|times| *times == 1), "{counted:?}");
}

async fn work_until_empty(db: &Db, owner: &str) -> Vec<i64> {
    let mut claimed = Vec::new();
    let mut empty = 0;
    // An empty answer may mean lost races only: ask a few times.
    while empty < 5 {
        match take(db, owner).await {
            Some(lease) => {
                claimed.push(lease.job.payload.as_i64().unwrap());
                assert!(jobs::complete(db, &lease).await.unwrap());
                empty = 0;
            }
            None => empty += 1,
        }
    }
    claimed
}

async fn a_key_makes_a_job_once(f: Fixture) {
    let keyed = |n: i64| NewJob {
        idempotency_key: Some("day 1"),
        ..NewJob::new("k", json!(n))
    };
    let first = put(&f.db, keyed(1)).await;
    assert_eq!(put(&f.db, keyed(2)).await, first);
    let other_kind = NewJob {
        idempotency_key: Some("day 1"),
        ..NewJob::new("other", json!(3))
    };
    assert_ne!(put(&f.db, other_kind).await, first);
    assert_ne!(
        put(&f.db, NewJob::new("k", json!(4))).await,
        put(&f.db, NewJob::new("k", json!(4))).await
    );

    let lease = take(&f.db, "w").await.unwrap();
    assert!(jobs::complete(&f.db, &lease).await.unwrap());
    assert_eq!(put(&f.db, keyed(5)).await, first, "also after it is done");
}

async fn a_job_waits_for_its_time(f: Fixture) {
    let run_at = Some(f.db.now_us() + 10 * SECOND);
    put(
        &f.db,
        NewJob {
            run_at,
            ..NewJob::new("k", Value::Null)
        },
    )
    .await;
    assert_eq!(take(&f.db, "w").await, None);
    f.clock.advance_us(10 * SECOND);
    assert!(take(&f.db, "w").await.is_some());
}

async fn a_lost_workers_job_is_taken_over_and_its_fence_is_stale(f: Fixture) {
    let id = put(&f.db, NewJob::new("k", json!(1))).await;
    let mut dead = take(&f.db, "killed").await.unwrap();
    f.clock.advance_us(TTL);
    assert_eq!(
        take(&f.db, "second").await,
        None,
        "not before the clocks' skew is over"
    );
    f.clock.advance_us(3 * SECOND);
    let taken = take(&f.db, "second").await.unwrap();
    assert_eq!(
        (taken.job.id, taken.fence, taken.job.attempts),
        (id, dead.fence + 1, 2)
    );

    // The first worker was only slow. Nothing that it does counts any more.
    assert_eq!(
        jobs::extend(&f.db, &mut dead, TTL).await.unwrap(),
        LeaseCheck::Lost
    );
    assert!(!jobs::complete(&f.db, &dead).await.unwrap());
    assert!(!jobs::fail(&f.db, &dead, "late", true).await.unwrap());
    assert!(!jobs::release(&f.db, &dead).await.unwrap());
    assert_eq!(get(&f.db, id).await.state, JobState::Leased);
    assert!(jobs::complete(&f.db, &taken).await.unwrap());
    assert!(
        !jobs::complete(&f.db, &taken).await.unwrap(),
        "done is done"
    );
    assert_eq!(get(&f.db, id).await.state, JobState::Done);
}

async fn failures_back_off_and_end_dead(f: Fixture) {
    let id = put(
        &f.db,
        NewJob {
            max_attempts: 3,
            ..NewJob::new("k", json!(1))
        },
    )
    .await;
    for least_seconds in [1, 2] {
        let lease = take(&f.db, "w").await.unwrap();
        assert!(jobs::fail(&f.db, &lease, "no\0 luck", true).await.unwrap());
        let job = get(&f.db, id).await;
        assert_eq!(
            (job.state, job.error.as_deref()),
            (JobState::Ready, Some("no\u{fffd} luck"))
        );
        let wait = job.run_at - f.db.now_us();
        assert!(
            (least_seconds * SECOND..=least_seconds * SECOND * 5 / 4).contains(&wait),
            "{wait}"
        );
        assert_eq!(take(&f.db, "w").await, None);
        f.clock.advance_us(wait);
    }
    let lease = take(&f.db, "w").await.unwrap();
    assert!(jobs::fail(&f.db, &lease, "no luck", true).await.unwrap());
    let job = get(&f.db, id).await;
    assert_eq!(
        (job.state, job.attempts, job.finished_at),
        (JobState::Dead, 3, Some(f.db.now_us()))
    );
    f.clock.advance_us(1000 * SECOND);
    assert_eq!(take(&f.db, "w").await, None);

    let id = put(&f.db, NewJob::new("k", json!(2))).await;
    let lease = take(&f.db, "w").await.unwrap();
    assert!(jobs::fail(&f.db, &lease, "never", false).await.unwrap());
    assert_eq!(get(&f.db, id).await.state, JobState::Dead);
}

async fn a_job_that_kills_its_workers_ends_dead(f: Fixture) {
    let id = put(
        &f.db,
        NewJob {
            max_attempts: 2,
            ..NewJob::new("k", json!(1))
        },
    )
    .await;
    for _ in 0..2 {
        take(&f.db, "killed").await.unwrap();
        f.clock.advance_us(TTL + 3 * SECOND);
    }
    assert_eq!(take(&f.db, "careful").await, None);
    let job = get(&f.db, id).await;
    assert_eq!(job.state, JobState::Dead);
    assert_eq!(
        job.error.as_deref(),
        Some("its worker was lost on every attempt")
    );
}

async fn cancel(db: &Db, id: base::JobId) -> bool {
    let mut tx = db.begin_write().await.unwrap();
    let found = jobs::cancel(&mut tx, None, id).await.unwrap();
    tx.commit().await.unwrap();
    found
}

async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_next_looks(f: Fixture) {
    let waiting = put(&f.db, NewJob::new("k", json!(1))).await;
    assert!(cancel(&f.db, waiting).await);
    assert_eq!(get(&f.db, waiting).await.state, JobState::Cancelled);
    assert!(!cancel(&f.db, waiting).await);
    assert_eq!(take(&f.db, "w").await, None);

    let running = put(&f.db, NewJob::new("k", json!(2))).await;
    let mut lease = take(&f.db, "w").await.unwrap();
    assert_eq!(
        jobs::extend(&f.db, &mut lease, TTL).await.unwrap(),
        LeaseCheck::Held
    );
    assert!(cancel(&f.db, running).await);
    assert_eq!(
        jobs::extend(&f.db, &mut lease, TTL).await.unwrap(),
        LeaseCheck::CancelRequested
    );
    // Its worker dies before it could stop: nobody runs it again.
    f.clock.advance_us(TTL + 3 * SECOND);
    assert_eq!(take(&f.db, "w2").await, None);
    assert_eq!(get(&f.db, running).await.state, JobState::Cancelled);

    let mut tx = f.db.begin_write().await.unwrap();
    let theirs = NewJob {
        project: Some(f.other.project),
        ..NewJob::new("k", json!(3))
    };
    let theirs = jobs::enqueue(&mut tx, theirs).await.unwrap();
    assert!(
        !jobs::cancel(&mut tx, Some(f.scope.project), theirs)
            .await
            .unwrap()
    );
    assert!(!jobs::cancel(&mut tx, None, theirs).await.unwrap());
    assert!(
        jobs::cancel(&mut tx, Some(f.other.project), theirs)
            .await
            .unwrap()
    );
}

async fn a_jobs_result_and_its_end_are_one_transaction(f: Fixture) {
    let id = put(&f.db, NewJob::new("k", json!(1))).await;
    let lease = take(&f.db, "w").await.unwrap();
    let mut tx = f.db.begin_write().await.unwrap();
    assert!(jobs::complete_in(&mut tx, &lease).await.unwrap());
    jobs::enqueue(&mut tx, NewJob::new("next", json!(1)))
        .await
        .unwrap();
    drop(tx);
    assert_eq!(get(&f.db, id).await.state, JobState::Leased);
    assert_eq!(jobs::lease(&f.db, "next", "w", TTL).await.unwrap(), None);
}

async fn jobs_are_listed_per_project_and_pruned(f: Fixture) {
    for n in 0..5 {
        f.clock.advance_us(1);
        put(
            &f.db,
            NewJob {
                project: Some(f.scope.project),
                ..NewJob::new("k", json!(n))
            },
        )
        .await;
    }
    put(&f.db, NewJob::new("k", json!("installation"))).await;
    let mut request = PageRequest {
        cursor: None,
        limit: 2,
    };
    let mut payloads = Vec::new();
    loop {
        let got = jobs::list(&f.db, Some(f.scope.project), &request)
            .await
            .unwrap();
        payloads.push(
            got.items
                .iter()
                .map(|job| job.payload.as_i64().unwrap())
                .collect::<Vec<_>>(),
        );
        let Some(next) = got.next else { break };
        request.cursor = Some(next);
    }
    assert_eq!(payloads, [vec![4, 3], vec![2, 1], vec![0]]);
    assert_eq!(
        jobs::list(&f.db, None, &PageRequest::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert!(
        jobs::list(&f.db, Some(f.other.project), &PageRequest::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let lease = take(&f.db, "w").await.unwrap();
    jobs::complete(&f.db, &lease).await.unwrap();
    let mut tx = f.db.begin_write().await.unwrap();
    assert_eq!(jobs::prune(&mut tx, f.db.now_us()).await.unwrap(), 0);
    assert_eq!(jobs::prune(&mut tx, f.db.now_us() + 1).await.unwrap(), 1);
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        stop_grace: Duration::ZERO,
        poll: Duration::from_millis(50),
        ..WorkerSettings::new("w")
    }
}

async fn a_worker_runs_what_is_put_in(f: Fixture) {
    let (seen, mut ran) = mpsc::channel(100);
    // Only a commit can wake it: it would not look again by itself within the test.
    let settings = WorkerSettings {
        poll: Duration::from_secs(600),
        concurrency: 3,
        ..settings()
    };
    let mut worker = Worker::new(f.db.clone(), settings);
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counting, highest) = (Arc::clone(&at_once), Arc::clone(&most));
    worker.register("k", move |context| {
        let (seen, at_once, most) = (seen.clone(), Arc::clone(&counting), Arc::clone(&highest));
        async move {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            at_once.fetch_sub(1, Ordering::SeqCst);
            seen.send(context.lease.job.payload.clone()).await.unwrap();
            match context.lease.job.payload.as_str() {
                Some("panic") => panic!("a handler's bug"),
                Some("fatal") => Err(JobError::Fatal("hopeless".to_owned())),
                _ => Ok(()),
            }
        }
    });
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(worker.run(stopped));

    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(put(&f.db, NewJob::new("k", json!(n))).await);
    }
    let panics = put(
        &f.db,
        NewJob {
            max_attempts: 1,
            ..NewJob::new("k", json!("panic"))
        },
    )
    .await;
    let fatal = put(&f.db, NewJob::new("k", json!("fatal"))).await;
    for _ in 0..12 {
        timeout(Duration::from_secs(30), ran.recv())
            .await
            .unwrap()
            .unwrap();
    }
    let db = &f.db;
    for id in ids {
        until(async || get(db, id).await.state == JobState::Done).await;
    }
    until(async || get(db, fatal).await.state == JobState::Dead).await;
    until(async || get(db, panics).await.state == JobState::Dead).await;
    assert!(get(db, panics).await.error.unwrap().contains("panicked"));
    assert!(most.load(Ordering::SeqCst) <= 3);
    stop.send(true).unwrap();
    timeout(Duration::from_secs(30), running.join_all())
        .await
        .unwrap();
}

async fn a_worker_that_stops_gives_its_jobs_back(f: Fixture) {
    let (seen, mut ran) = mpsc::channel(10);
    let mut worker = Worker::new(f.db.clone(), settings());
    worker.register("k", move |_| {
        let seen = seen.clone();
        async move {
            seen.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(worker.run(stopped));
    let id = put(&f.db, NewJob::new("k", json!(1))).await;
    timeout(Duration::from_secs(30), ran.recv())
        .await
        .unwrap()
        .unwrap();
    stop.send(true).unwrap();
    timeout(Duration::from_secs(30), running.join_all())
        .await
        .unwrap();
    let job = get(&f.db, id).await;
    assert_eq!(
        (job.state, job.attempts),
        (JobState::Ready, 0),
        "the attempt does not count"
    );
}

async fn a_worker_drops_what_was_cancelled(f: Fixture) {
    let (seen, mut ran) = mpsc::channel::<()>(10);
    let settings = WorkerSettings {
        lease_ttl: Duration::from_millis(300),
        ..settings()
    };
    let mut worker = Worker::new(f.db.clone(), settings);
    worker.register("k", move |_| {
        let seen = seen.clone();
        async move {
            seen.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let (_stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(worker.run(stopped));
    let id = put(&f.db, NewJob::new("k", json!(1))).await;
    timeout(Duration::from_secs(30), ran.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(cancel(&f.db, id).await);
    let db = &f.db;
    until(async || get(db, id).await.state == JobState::Cancelled).await;
}

/// Names the database to the child process that [`hold_a_job_until_killed`] becomes.
const CHILD: &str = "DB_TEST_WORK_UNTIL_KILLED";

async fn slow_a_killed_workers_job_is_done_by_another(f: Fixture) {
    let id = put(
        &f.db,
        NewJob {
            run_at: Some(0),
            ..NewJob::new("k", json!(1))
        },
    )
    .await;
    let mut child = worker_process(&f.url_text);
    let db = open_with_real_time(&f.url).await;
    until(async || get(&db, id).await.state == JobState::Leased).await;
    let held = get(&db, id).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((held.state, held.attempts), (JobState::Leased, 1));

    let mut worker = Worker::new(db.clone(), settings());
    worker.register("k", |_| async { Ok(()) });
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(worker.run(stopped));
    until(async || get(&db, id).await.state == JobState::Done).await;
    assert_eq!(get(&db, id).await.attempts, 2);
    stop.send(true).unwrap();
    running.join_all().await;
}

fn worker_process(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobs::hold_a_job_until_killed"])
        .env(CHILD, url)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The child's side of the story above; by itself it has nothing to do.
#[tokio::test]
async fn hold_a_job_until_killed() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let db = open_with_real_time(&url.parse().unwrap()).await;
    let settings = WorkerSettings {
        lease_ttl: Duration::from_millis(600),
        ..settings()
    };
    let mut worker = Worker::new(db, settings);
    worker.register("k", |_| std::future::pending());
    let (_stop, stopped) = watch::channel(false);
    worker.run(stopped).await;
}
