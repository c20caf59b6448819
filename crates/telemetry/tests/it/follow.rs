//! Spans in the order of writing: none missed, none twice, over segments and restarts.

use telemetry::{Filter, FollowQuery, Options, Scope, Telemetry};

use crate::support::{DAY, DAY_ONE, HandClock, call, open, open_with, project, write};

fn query(after: u64) -> FollowQuery {
    FollowQuery {
        project: project(1),
        after,
        filter: Filter::default(),
        scope: Scope::Roots,
        limit: 100,
    }
}

/// The numbers of the calls after a position, and the position after them.
fn numbers(telemetry: &Telemetry, query: &FollowQuery) -> (Vec<u64>, u64) {
    let found = telemetry.follow(query).unwrap();
    let numbers = found.spans.iter().map(|stored| stored.span.usage.input);
    (numbers.collect(), found.position)
}

#[test]
fn spans_come_as_they_were_written_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    assert_eq!(telemetry.end(project(1)).unwrap(), 0);
    assert_eq!(numbers(&telemetry, &query(0)), (Vec::new(), 0));
    // Written in another order than they began.
    for n in [5, 3, 9] {
        write(&telemetry, call(n));
    }
    let (first, position) = numbers(&telemetry, &query(0));
    assert_eq!(first, [5, 3, 9]);
    assert_eq!(telemetry.end(project(1)).unwrap(), position);
    assert!(numbers(&telemetry, &query(position)).0.is_empty());
    let identity = telemetry.identity().to_owned();
    telemetry.shutdown();
    drop(telemetry);
    // A day later there is another segment.
    clock.set(DAY_ONE + DAY + 1);
    let telemetry = open(dir.path(), &clock);
    assert_eq!(telemetry.identity(), identity);
    write(&telemetry, call(1));
    assert_eq!(numbers(&telemetry, &query(position)).0, [1]);
    assert_eq!(numbers(&telemetry, &query(0)).0, [5, 3, 9, 1]);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path(), &clock).identity(), identity);
}

#[test]
fn a_page_ends_where_the_next_one_begins() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open_with(dir.path(), &clock, Options::default());
    for n in 1..=25 {
        write(&telemetry, call(n));
    }
    // Another project's, and a step of a trace: neither is shown, both are passed.
    let mut foreign = call(26);
    foreign.project = project(2);
    write(&telemetry, foreign);
    let mut step = call(27);
    step.parent = Some(crate::support::span_id(1));
    write(&telemetry, step);
    let mut page = query(0);
    page.limit = 4;
    page.filter = Filter::parse("model = \"even\"").unwrap();
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let found = telemetry.follow(&page).unwrap();
        assert!(found.position >= page.after);
        seen.extend(found.spans.iter().map(|stored| stored.span.usage.input));
        page.after = found.position;
        pages += 1;
        if !found.more {
            break;
        }
    }
    assert_eq!(seen, (1..=12).map(|n| 2 * n).collect::<Vec<u64>>());
    assert!(pages <= 4, "{pages}");
    assert_eq!(page.after, telemetry.end(project(1)).unwrap());
}

#[test]
fn a_span_that_is_written_again_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    for n in [1, 2] {
        write(&telemetry, call(n));
    }
    let (_, position) = numbers(&telemetry, &query(0));
    // The last one and an earlier one: the row of the last is taken anew.
    for n in [2, 1, 3] {
        let mut again = call(n);
        again.name = "again".to_owned();
        write(&telemetry, again);
    }
    assert_eq!(numbers(&telemetry, &query(position)).0, [2, 1, 3]);
    assert_eq!(numbers(&telemetry, &query(0)).0, [2, 1, 3]);
}

#[test]
fn a_position_can_be_asked_for_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = HandClock::at(DAY_ONE);
    let telemetry = open(dir.path(), &clock);
    let hour = DAY / 24;
    let after = |time: i64| {
        let position = telemetry.position_at(project(1), time).unwrap();
        numbers(&telemetry, &query(position)).0
    };
    assert!(after(DAY_ONE).is_empty());
    for n in 1..=3 {
        clock.set(DAY_ONE + i64::try_from(n).unwrap() * hour);
        write(&telemetry, call(n));
    }
    clock.set(DAY_ONE + DAY + hour);
    write(&telemetry, call(4));
    assert_eq!(after(DAY_ONE), [1, 2, 3, 4]);
    assert_eq!(after(DAY_ONE + hour), [1, 2, 3, 4]);
    assert_eq!(after(DAY_ONE + hour + 1), [2, 3, 4]);
    assert_eq!(after(DAY_ONE + DAY), [4]);
    assert!(after(DAY_ONE + 2 * DAY).is_empty());
}
