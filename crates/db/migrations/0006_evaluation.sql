-- Evaluations: durable runs of suites. What a suite or an evaluator is, is a document of the catalog.

CREATE TABLE evaluations (
    id               TEXT PRIMARY KEY,
    project          TEXT NOT NULL REFERENCES projects (id),
    -- The suite's name; empty for one that was written out.
    suite            TEXT NOT NULL,
    -- The suite's version; NULL for one that was written out.
    suite_version    BIGINT,
    -- JSON: the suite's document.
    document         TEXT NOT NULL,
    -- JSON: what its references stood for when the evaluation began.
    pinned           TEXT NOT NULL,
    -- queued, running, paused, stopped, done, failed.
    state            TEXT NOT NULL,
    -- Why it is paused, stopped or failed, for people.
    reason           TEXT NOT NULL,
    -- The job that works on it; NULL when nobody does.
    holder           TEXT,
    -- Rises with every worker that takes the evaluation over. Whoever writes shows its own.
    fence            BIGINT NOT NULL,
    started_by       TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    started_at       BIGINT,
    ended_at         BIGINT,
    -- Microseconds that workers have worked on it.
    worked_us        BIGINT NOT NULL,
    examples         BIGINT NOT NULL,
    answers_total    BIGINT NOT NULL,
    answers_ok       BIGINT NOT NULL,
    answers_failed   BIGINT NOT NULL,
    answers_cached   BIGINT NOT NULL,
    scores_total     BIGINT NOT NULL,
    scores_ok        BIGINT NOT NULL,
    scores_error     BIGINT NOT NULL,
    scores_unscored  BIGINT NOT NULL,
    -- Nano-dollars that its calls have cost.
    spent            BIGINT NOT NULL,
    -- Calls whose price nobody knows.
    unpriced         BIGINT NOT NULL,
    -- JSON: the gates, once it is done.
    gates            TEXT
);
CREATE INDEX evaluations_by_time ON evaluations (project, created_at);
CREATE INDEX evaluations_by_suite ON evaluations (project, suite, created_at);

CREATE TABLE evaluation_answers (
    evaluation       TEXT NOT NULL REFERENCES evaluations (id),
    project          TEXT NOT NULL,
    -- The number of the example in the dataset's order.
    place            BIGINT NOT NULL,
    -- The number of the candidate in the suite.
    candidate        BIGINT NOT NULL,
    repetition       BIGINT NOT NULL,
    example          TEXT NOT NULL,
    -- ok or error.
    state            TEXT NOT NULL,
    text             TEXT NOT NULL,
    -- What went wrong: a short word, and for people.
    error            TEXT,
    message          TEXT,
    trace            TEXT NOT NULL,
    input_tokens     BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    -- Nano-dollars; NULL when nobody knows the price.
    cost             BIGINT,
    latency_us       BIGINT NOT NULL,
    -- 1 when it was taken over from an earlier evaluation and paid there.
    cached           BIGINT NOT NULL,
    attempts         BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    PRIMARY KEY (evaluation, place, candidate, repetition)
);

CREATE TABLE evaluation_scores (
    evaluation       TEXT NOT NULL REFERENCES evaluations (id),
    project          TEXT NOT NULL,
    place            BIGINT NOT NULL,
    candidate        BIGINT NOT NULL,
    repetition       BIGINT NOT NULL,
    -- The number of the evaluator in the suite.
    evaluator        BIGINT NOT NULL,
    -- scored, error or unscored.
    state            TEXT NOT NULL,
    -- Finite, and there if and only if it is scored.
    value            DOUBLE PRECISION,
    label            TEXT,
    -- The judge's reason, or why there is no score.
    reason           TEXT NOT NULL,
    -- JSON: raw replies, distributions, the parts of the metric.
    detail           TEXT NOT NULL,
    -- The judge's first call.
    trace            TEXT,
    cost             BIGINT NOT NULL,
    cached           BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    PRIMARY KEY (evaluation, place, candidate, repetition, evaluator)
);

CREATE TABLE evaluation_cache (
    project          TEXT NOT NULL,
    key              TEXT NOT NULL,
    content          TEXT NOT NULL,
    at               BIGINT NOT NULL,
    PRIMARY KEY (project, key)
);
