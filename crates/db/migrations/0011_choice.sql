-- Choices of a model: durable work that starts evaluations, round after round. Its result is a document of the catalog.

CREATE TABLE choices (
    id               TEXT PRIMARY KEY,
    project          TEXT NOT NULL REFERENCES projects (id),
    -- The name that the result is saved under, and evidence is given under.
    name             TEXT NOT NULL,
    -- JSON: the task, its references at the versions that they stood for when it began.
    task             TEXT NOT NULL,
    -- JSON: what was left out at the start, and the rounds so far.
    progress         TEXT NOT NULL,
    -- queued, running, paused, stopped, done, failed.
    state            TEXT NOT NULL,
    -- Why it is paused, stopped or failed, for people.
    reason           TEXT NOT NULL,
    -- The job that works on it; NULL when nobody does.
    holder           TEXT,
    -- Rises with every worker that takes the choice over. Whoever writes shows its own.
    fence            BIGINT NOT NULL,
    -- What all rounds together may spend in nano-dollars; NULL without a budget.
    budget           BIGINT,
    -- The version of the result, once it is saved.
    version          BIGINT,
    started_by       TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    ended_at         BIGINT
);
CREATE INDEX choices_by_time ON choices (project, created_at);
