-- Review: items that people judge, who holds them, what they said. What a queue asks is a document of the catalog.

CREATE TABLE review_items (
    id            TEXT PRIMARY KEY,
    project       TEXT NOT NULL REFERENCES projects (id),
    -- The queue's name.
    queue         TEXT NOT NULL,
    -- Higher ones are given out first, then those that came in first.
    priority      BIGINT NOT NULL,
    seq           BIGINT NOT NULL,
    -- trace, example or pair.
    kind          TEXT NOT NULL,
    -- What it is about; a queue has it once.
    subject       TEXT NOT NULL,
    -- JSON: what every rater sees.
    snapshot      TEXT NOT NULL,
    -- JSON: what raters of a blind queue do not see, and where it comes from.
    facts         TEXT NOT NULL,
    -- open, done, adjudicate or closed.
    state         TEXT NOT NULL,
    -- How many raters it is for.
    wanted        BIGINT NOT NULL,
    -- 1 when it was drawn at random from everything that the fill found.
    drawn         BIGINT NOT NULL,
    -- How likely each one was to be drawn; NULL for those that were chosen.
    chance        DOUBLE PRECISION,
    created_at    BIGINT NOT NULL,
    closed_at     BIGINT,
    UNIQUE (project, queue, subject)
);
CREATE INDEX review_items_by_state ON review_items (project, queue, state, priority DESC, seq);

-- One place for one rater of one item.
CREATE TABLE review_slots (
    item          TEXT NOT NULL REFERENCES review_items (id),
    project       TEXT NOT NULL,
    queue         TEXT NOT NULL,
    slot          BIGINT NOT NULL,
    -- free, held or done.
    state         TEXT NOT NULL,
    -- Who holds or filled it: user:ID, key:ID or guest:ID.
    rater         TEXT,
    -- Rises whenever somebody takes it. Whoever labels shows the one they were given.
    fence         BIGINT NOT NULL,
    held_at       BIGINT,
    -- From then on others may take it.
    until         BIGINT,
    PRIMARY KEY (item, slot)
);
CREATE INDEX review_slots_by_rater ON review_slots (project, queue, rater, state);

-- What raters said. Rows are added; what was said is never changed.
CREATE TABLE review_labels (
    id            TEXT PRIMARY KEY,
    item          TEXT NOT NULL REFERENCES review_items (id),
    project       TEXT NOT NULL,
    queue         TEXT NOT NULL,
    -- The queue's document that was answered.
    digest        TEXT NOT NULL,
    -- label, skip or adjudication.
    kind          TEXT NOT NULL,
    rater         TEXT NOT NULL,
    -- JSON: by question.
    answers       TEXT NOT NULL,
    comment       TEXT NOT NULL,
    -- Microseconds from being given the item to this.
    took_us       BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    -- 1 until it is taken back or replaced.
    current       BIGINT NOT NULL,
    -- When that was.
    ended_at      BIGINT,
    -- The label that this one replaces.
    replaces      TEXT,
    -- 1 when its scores are with the traces.
    sent          BIGINT NOT NULL
);
CREATE INDEX review_labels_by_item ON review_labels (item);
CREATE INDEX review_labels_by_rater ON review_labels (project, queue, rater, at);
CREATE INDEX review_labels_unsent ON review_labels (sent);

-- People without an account, each with a link to one queue.
CREATE TABLE review_guests (
    id            TEXT PRIMARY KEY,
    project       TEXT NOT NULL REFERENCES projects (id),
    queue         TEXT NOT NULL,
    name          TEXT NOT NULL,
    -- SHA-256 of the token in the link.
    token_hash    TEXT NOT NULL UNIQUE,
    created_by    TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    revoked_at    BIGINT
);
CREATE INDEX review_guests_by_queue ON review_guests (project, queue, created_at);

-- How items came in.
CREATE TABLE review_fills (
    id            TEXT PRIMARY KEY,
    project       TEXT NOT NULL REFERENCES projects (id),
    queue         TEXT NOT NULL,
    -- JSON: what was asked for.
    request       TEXT NOT NULL,
    -- How many there were to choose from.
    population    BIGINT NOT NULL,
    added         BIGINT NOT NULL,
    drawn         BIGINT NOT NULL,
    filled_by     TEXT NOT NULL,
    at            BIGINT NOT NULL
);
CREATE INDEX review_fills_by_queue ON review_fills (project, queue, at);
