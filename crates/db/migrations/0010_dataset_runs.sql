-- Runs over datasets that were made elsewhere: a client called its own application, judged the
-- answers itself and sent both here. Evaluations that this server makes are in other tables.

CREATE TABLE dataset_runs (
    project          TEXT NOT NULL REFERENCES projects (id),
    -- The client's name for it; clients make the same one for the same dataset and run name.
    id               TEXT NOT NULL,
    name             TEXT NOT NULL,
    -- The dataset's name; NULL for a run over examples that are in none.
    dataset          TEXT,
    description      TEXT NOT NULL,
    -- JSON, or empty.
    metadata         TEXT NOT NULL,
    author           TEXT NOT NULL,
    -- From the start of the first item to the end of the last.
    started_at       BIGINT NOT NULL,
    ended_at         BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX dataset_runs_by_dataset ON dataset_runs (project, dataset, ended_at);
CREATE INDEX dataset_runs_by_time ON dataset_runs (project, ended_at);

CREATE TABLE dataset_run_items (
    project          TEXT NOT NULL,
    run              TEXT NOT NULL,
    -- The example's id, or the client's name for one that is in no dataset.
    item             TEXT NOT NULL,
    trace            TEXT NOT NULL,
    -- The span that answered; empty when the whole trace did.
    span             TEXT NOT NULL,
    started_at       BIGINT NOT NULL,
    ended_at         BIGINT NOT NULL,
    -- 1 when there is no answer because something went wrong.
    failed           BIGINT NOT NULL,
    environment      TEXT NOT NULL,
    -- The time of the dataset's version that the client asked for.
    item_version     TEXT,
    -- JSON each, or empty.
    input            TEXT NOT NULL,
    output           TEXT NOT NULL,
    expected         TEXT NOT NULL,
    metadata         TEXT NOT NULL,
    item_metadata    TEXT NOT NULL,
    PRIMARY KEY (project, run, item, trace)
);

-- Scores as a foreign client sent them. Those of a trace or span are in telemetry, too, where
-- traces and figures read them; here are their client's ids, and the scores of whole runs.
CREATE TABLE client_scores (
    project          TEXT NOT NULL,
    id               TEXT NOT NULL,
    -- The score in telemetry; empty for one of a run.
    score            TEXT NOT NULL,
    trace            TEXT NOT NULL,
    span             TEXT NOT NULL,
    run              TEXT NOT NULL,
    name             TEXT NOT NULL,
    -- NUMERIC, BOOLEAN, CATEGORICAL, TEXT, CORRECTION.
    type             TEXT NOT NULL,
    value            DOUBLE PRECISION,
    label            TEXT,
    comment          TEXT,
    -- JSON, or empty.
    metadata         TEXT NOT NULL,
    environment      TEXT NOT NULL,
    -- API or ANNOTATION.
    source           TEXT NOT NULL,
    author           TEXT NOT NULL,
    at               BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX client_scores_by_trace ON client_scores (project, trace);
CREATE INDEX client_scores_by_run ON client_scores (project, run);
CREATE INDEX client_scores_by_time ON client_scores (project, at, id);
