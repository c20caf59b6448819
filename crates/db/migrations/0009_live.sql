-- Live evaluations: what became of which trace. What a live evaluation is, is a document of the catalog.

CREATE TABLE live_evaluations (
    project          TEXT NOT NULL REFERENCES projects (id),
    name             TEXT NOT NULL,
    -- 1 while somebody holds it.
    paused           BIGINT NOT NULL,
    reason           TEXT NOT NULL,
    -- The version that counts, because it was saved again after the newest one; 0 for the newest.
    version          BIGINT NOT NULL,
    -- The newest version when that was said: a newer one counts before it.
    newest           BIGINT NOT NULL,
    changed_by       TEXT NOT NULL,
    changed_at       BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE live_workers (
    -- The telemetry that is followed: each data directory has its own.
    store            TEXT PRIMARY KEY,
    holder           TEXT NOT NULL,
    lease_until      BIGINT NOT NULL,
    -- Rises with every worker that takes over. Whoever writes shows its own.
    fence            BIGINT NOT NULL
);

CREATE TABLE live_positions (
    project          TEXT NOT NULL REFERENCES projects (id),
    name             TEXT NOT NULL,
    store            TEXT NOT NULL,
    -- The number of the last span that was dealt with.
    position         BIGINT NOT NULL,
    -- Traces are drawn by a hash under it, in hex.
    sample_key       TEXT NOT NULL,
    PRIMARY KEY (project, name, store)
);

CREATE TABLE live_scores (
    project          TEXT NOT NULL,
    trace            TEXT NOT NULL,
    -- The digest of the evaluator's document.
    evaluator        TEXT NOT NULL,
    -- The live evaluation's name.
    live             TEXT NOT NULL,
    -- The telemetry that holds the trace.
    store            TEXT NOT NULL,
    -- The span that was judged.
    span             TEXT NOT NULL,
    -- The score's name.
    score            TEXT NOT NULL,
    -- asked (a call may be under way), waiting (none is), scored, error or unscored.
    state            TEXT NOT NULL,
    -- Finite, and there if and only if it is scored.
    value            DOUBLE PRECISION,
    label            TEXT,
    -- The evaluator's reason, or why there is no score.
    reason           TEXT NOT NULL,
    -- The evaluator's first call.
    judge            TEXT,
    -- Nano-dollars.
    cost             BIGINT NOT NULL,
    -- Calls whose price nobody knows.
    unpriced         BIGINT NOT NULL,
    taken_at         BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    PRIMARY KEY (project, trace, evaluator)
);
CREATE INDEX live_scores_by_time ON live_scores (project, live, taken_at);

CREATE TABLE live_counts (
    project          TEXT NOT NULL,
    live             TEXT NOT NULL,
    -- The beginning of the hour.
    hour             BIGINT NOT NULL,
    -- Traces that the filter let through.
    seen             BIGINT NOT NULL,
    -- Of them, drawn by the sample.
    drawn            BIGINT NOT NULL,
    -- Of those, left out for the limit of an hour, for the budget, and because the same
    -- evaluator had judged them already.
    over_rate        BIGINT NOT NULL,
    over_budget      BIGINT NOT NULL,
    known            BIGINT NOT NULL,
    PRIMARY KEY (project, live, hour)
);
