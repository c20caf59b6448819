-- The runs of experiments. What an experiment is, is a document of the catalog.

CREATE TABLE experiment_runs (
    id             TEXT PRIMARY KEY,
    project        TEXT NOT NULL REFERENCES projects (id),
    experiment     TEXT NOT NULL,
    -- The version of the experiment's document that runs.
    version        BIGINT NOT NULL,
    digest         TEXT NOT NULL,
    -- `prompt:NAME@LABEL` or `app:NAME@ENVIRONMENT`.
    target         TEXT NOT NULL,
    -- The same while it runs, NULL afterwards: one running experiment per target.
    running_target TEXT,
    state          TEXT NOT NULL,
    -- 32 random bytes in hex: who gets which arm depends on them.
    split_key      TEXT NOT NULL,
    -- JSON: the arms with their versions and present weights.
    arms           TEXT NOT NULL,
    -- The step of a canary's ramp and when it began.
    step           BIGINT NOT NULL,
    step_at        BIGINT NOT NULL,
    -- Counts the changes of this row; two workers cannot both make one.
    revision       BIGINT NOT NULL,
    started_by     TEXT NOT NULL,
    started_at     BIGINT NOT NULL,
    ended_by       TEXT,
    ended_at       BIGINT,
    reason         TEXT NOT NULL,
    -- The arm that was promoted.
    winner         TEXT,
    -- JSON: the last figures and verdict, written when the run ends and whenever the verdict becomes final.
    outcome        TEXT,
    UNIQUE (project, running_target)
);
CREATE INDEX experiment_runs_name ON experiment_runs (project, experiment, started_at);
