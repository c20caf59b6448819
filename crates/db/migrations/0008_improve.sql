-- Improvements: durable searches for a better text of a prompt. What was found is a version of the
-- prompt in the catalog.

CREATE TABLE improvements (
    id               TEXT PRIMARY KEY,
    project          TEXT NOT NULL REFERENCES projects (id),
    -- The prompt's name.
    prompt           TEXT NOT NULL,
    -- JSON: what was asked for.
    document         TEXT NOT NULL,
    -- JSON: what its references stood for when it began, and which examples are for what.
    pinned           TEXT NOT NULL,
    -- Of the examples that are held out: an earlier improvement with the same ones has looked at them.
    held_out         TEXT NOT NULL,
    -- queued, running, paused, stopped, done, failed.
    state            TEXT NOT NULL,
    -- Why it is paused, stopped or failed, for people.
    reason           TEXT NOT NULL,
    -- What the search is at: start, search, final; over when it ended.
    phase            TEXT NOT NULL,
    -- Why the search ended: budget, patience, perfect; empty before.
    ended_by         TEXT NOT NULL,
    -- The job that works on it; NULL when nobody does.
    holder           TEXT,
    -- Rises with every worker that takes it over. Whoever writes shows its own.
    fence            BIGINT NOT NULL,
    started_by       TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    started_at       BIGINT,
    ended_at         BIGINT,
    -- Microseconds that workers have worked on it.
    worked_us        BIGINT NOT NULL,
    -- Calls that providers took, and what they cost in nano-dollars.
    calls            BIGINT NOT NULL,
    spent            BIGINT NOT NULL,
    -- Calls whose price nobody knows.
    unpriced         BIGINT NOT NULL,
    -- How often the reflecting model could not be asked: part of the next call's name.
    failures         BIGINT NOT NULL,
    -- JSON: the start and the best on the examples that were held out, once they were compared.
    verdict          TEXT
);
CREATE INDEX improvements_by_time ON improvements (project, created_at);
CREATE INDEX improvements_by_held_out ON improvements (project, held_out);

-- One try to improve; number 0 is the prompt that it began with.
CREATE TABLE improvement_steps (
    improvement      TEXT NOT NULL REFERENCES improvements (id),
    project          TEXT NOT NULL,
    number           BIGINT NOT NULL,
    -- start, reflect, merge.
    kind             TEXT NOT NULL,
    -- trying, accepted, or why not: not_better, refused, same, known, perfect.
    state            TEXT NOT NULL,
    parent           BIGINT,
    -- The second parent of a merge.
    other            BIGINT,
    -- JSON: the prompt's document; NULL where there is none to try.
    content          TEXT,
    digest           TEXT,
    -- The version in the catalog, of one that was accepted.
    version          BIGINT,
    -- What the reflecting model thought, or why there is nothing to try.
    reason           TEXT NOT NULL,
    -- JSON: the places of the examples that it was tried on first.
    places           TEXT NOT NULL,
    -- The sums of scores on these, of the parent and of this one.
    before           DOUBLE PRECISION,
    after            DOUBLE PRECISION,
    -- The call of the reflecting model, and the beginning of what it said where that was of no use.
    trace            TEXT,
    reply            TEXT,
    at               BIGINT NOT NULL,
    PRIMARY KEY (improvement, number)
);

CREATE TABLE improvement_results (
    improvement      TEXT NOT NULL REFERENCES improvements (id),
    project          TEXT NOT NULL,
    -- Whose answer, by the number of its step.
    number           BIGINT NOT NULL,
    -- The number of the example in the dataset's order.
    place            BIGINT NOT NULL,
    example          TEXT NOT NULL,
    -- ok, error; again when an error is to be asked anew.
    state            TEXT NOT NULL,
    -- The answer, or what went wrong.
    text             TEXT NOT NULL,
    -- From 0 to 1 where every evaluator has a range; NULL when there is none.
    objective        DOUBLE PRECISION,
    -- JSON: what each evaluator said.
    scores           TEXT NOT NULL,
    trace            TEXT NOT NULL,
    cost             BIGINT,
    input_tokens     BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    latency_us       BIGINT NOT NULL,
    -- How often it went wrong before.
    failures         BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    PRIMARY KEY (improvement, number, place)
);

-- Every call that was made, so that none counts twice, whoever finds it.
CREATE TABLE improvement_calls (
    improvement      TEXT NOT NULL REFERENCES improvements (id),
    project          TEXT NOT NULL,
    trace            TEXT NOT NULL,
    -- answer, judge, reflect.
    payer            TEXT NOT NULL,
    -- 1 when a provider took it.
    counts           BIGINT NOT NULL,
    spent            BIGINT NOT NULL,
    unpriced         BIGINT NOT NULL,
    input_tokens     BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    PRIMARY KEY (improvement, trace)
);
