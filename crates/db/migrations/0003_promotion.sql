-- Protected labels, proposals with their approvals, evidence for gates, quarantined
-- digests, and the hash chain of the audit log.

-- What protects a label, for every kind: environments are labels with an order.
CREATE TABLE protections (
    project    TEXT NOT NULL REFERENCES projects (id),
    label      TEXT NOT NULL,
    -- JSON: approvals, approver roles, gates, delivery, expiry.
    rules      TEXT NOT NULL,
    revision   BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, label)
);

-- A move that waits: for approvals (`open`) or for its gates (`approved`). The other
-- states are ends: `applied`, `rejected`, `withdrawn`, `superseded`, `expired`, `cancelled`.
CREATE TABLE proposals (
    id               TEXT PRIMARY KEY,
    project          TEXT NOT NULL REFERENCES projects (id),
    kind             TEXT NOT NULL,
    name             TEXT NOT NULL,
    label            TEXT NOT NULL,
    number           BIGINT NOT NULL,
    digest           TEXT NOT NULL,
    -- Where the pointer was: NULL and 0 where there was none.
    from_number      BIGINT,
    pointer_revision BIGINT NOT NULL,
    -- The protection's rules at the time; the stricter of these and today's count.
    rules            TEXT NOT NULL,
    author           TEXT NOT NULL,
    -- JSON list of the actors who may not approve it: the author and those behind.
    excluded         TEXT NOT NULL,
    reason           TEXT NOT NULL,
    state            TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT,
    closed_by        TEXT,
    closed_at        BIGINT,
    close_reason     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX proposals_created ON proposals (project, created_at, id);
CREATE INDEX proposals_pointer ON proposals (project, kind, name, label, state);

CREATE TABLE approvals (
    proposal TEXT NOT NULL REFERENCES proposals (id),
    actor    TEXT NOT NULL,
    -- `approve` or `reject`.
    verdict  TEXT NOT NULL,
    role     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (proposal, actor)
);

-- Append-only: the newest row of a gate and digest counts.
CREATE TABLE evidence (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id),
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    digest  TEXT NOT NULL,
    gate    TEXT NOT NULL,
    -- `pass`, `fail` or `inconclusive`.
    outcome TEXT NOT NULL,
    detail  TEXT NOT NULL,
    link    TEXT NOT NULL,
    actor   TEXT NOT NULL,
    at      BIGINT NOT NULL
);
CREATE INDEX evidence_digest ON evidence (project, kind, name, digest, gate, at);

CREATE TABLE quarantines (
    id          TEXT PRIMARY KEY,
    project     TEXT NOT NULL REFERENCES projects (id),
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    number      BIGINT NOT NULL,
    digest      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    at          BIGINT NOT NULL,
    lifted_by   TEXT,
    lifted_at   BIGINT,
    lift_reason TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX quarantines_active ON quarantines (project, kind, name, digest) WHERE lifted_at IS NULL;
CREATE INDEX quarantines_at ON quarantines (project, at, id);

-- The audit log becomes one chain per project; `chain` is '' for what concerns the whole
-- installation, where `project` is NULL. Rows from before get their places when this
-- migration is applied (db/src/audit/chain.rs).
ALTER TABLE audit ADD COLUMN chain TEXT NOT NULL DEFAULT '';
UPDATE audit SET chain = project WHERE project IS NOT NULL;
-- 1, 2, 3 … in the chain. NULL only until the migration ends.
ALTER TABLE audit ADD COLUMN seq BIGINT;
ALTER TABLE audit ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN before_digest TEXT;
ALTER TABLE audit ADD COLUMN after_digest TEXT;
ALTER TABLE audit ADD COLUMN prev_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX audit_chain ON audit (chain, seq);
-- The end of each chain, so that a cut tail is noticed and the next row is found at once.
CREATE TABLE audit_heads (
    chain TEXT PRIMARY KEY,
    seq   BIGINT NOT NULL,
    hash  TEXT NOT NULL
);
