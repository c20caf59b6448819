-- The tables of the first release. One text for SQLite and PostgreSQL:
-- only TEXT, BIGINT, DOUBLE PRECISION and BYTEA. Times (`_at`) are microseconds
-- since the epoch, flags are 0 or 1, ids are UUIDv7 text made by the program,
-- JSON is TEXT and never looked into by SQL.

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE environments (
    project    TEXT NOT NULL REFERENCES projects (id),
    name       TEXT NOT NULL,
    position   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    -- Folded to lower case by the program: the two databases fold differently.
    email         TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    password_hash TEXT,
    created_at    BIGINT NOT NULL,
    disabled      BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE members (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL REFERENCES projects (id),
    user_id    TEXT NOT NULL REFERENCES users (id),
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, user_id)
);
CREATE INDEX members_user ON members (user_id);

-- One-time links: the first administrator's setup, invitations, password resets.
CREATE TABLE setup_links (
    token_hash TEXT PRIMARY KEY,
    purpose    TEXT NOT NULL,
    project    TEXT REFERENCES projects (id),
    role       TEXT,
    email      TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);

-- A signed-in browser. `id_hash` is the hash of the cookie's value.
CREATE TABLE sessions (
    id_hash      TEXT PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    user_id      TEXT NOT NULL REFERENCES users (id),
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    user_agent   TEXT NOT NULL,
    revoked_at   BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id, expires_at);

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    project      TEXT NOT NULL REFERENCES projects (id),
    environment  TEXT NOT NULL,
    name         TEXT NOT NULL,
    -- The first characters of the secret, so that people can tell keys apart.
    prefix       TEXT NOT NULL,
    secret_hash  TEXT NOT NULL UNIQUE,
    role         TEXT NOT NULL,
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,
    revoked_at   BIGINT,
    FOREIGN KEY (project, environment) REFERENCES environments (project, name)
);
CREATE INDEX api_keys_project ON api_keys (project, created_at);

CREATE TABLE providers (
    id             TEXT PRIMARY KEY,
    project        TEXT NOT NULL REFERENCES projects (id),
    name           TEXT NOT NULL,
    protocol       TEXT NOT NULL,
    base_url       TEXT NOT NULL,
    -- `env:NAME`, `file:PATH` or `enc:KEYID:BASE64`; NULL where none is needed. Never the secret itself.
    credential_ref TEXT,
    allow_private  BIGINT NOT NULL DEFAULT 0,
    options        TEXT NOT NULL DEFAULT '{}',
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    UNIQUE (project, name)
);

-- Local models: files of this installation, shared by every project.
CREATE TABLE models (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    source     TEXT NOT NULL,
    path       TEXT,
    digest     TEXT,
    kind       TEXT NOT NULL,
    state      TEXT NOT NULL,
    size_bytes BIGINT,
    facts      TEXT NOT NULL DEFAULT '{}',
    error      TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Append-only: an edit is a row with the next version, so that a call's cost can be explained later.
-- Prices are nano-dollars per million tokens. The project is '' for the table shipped with the program.
CREATE TABLE prices (
    id          TEXT PRIMARY KEY,
    project     TEXT NOT NULL,
    provider    TEXT NOT NULL,
    model       TEXT NOT NULL,
    input       BIGINT NOT NULL,
    output      BIGINT NOT NULL,
    cache_read  BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    valid_from  BIGINT NOT NULL,
    created_by  TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    UNIQUE (project, provider, model, version)
);

-- The catalog: immutable documents, versions of them under a name, and pointers with every move kept.
CREATE TABLE documents (
    project    TEXT NOT NULL REFERENCES projects (id),
    digest     TEXT NOT NULL,
    content    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, digest)
);

CREATE TABLE versions (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    number     BIGINT NOT NULL,
    digest     TEXT NOT NULL,
    message    TEXT NOT NULL,
    author     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, kind, name, number),
    UNIQUE (project, kind, name, digest),
    FOREIGN KEY (project, digest) REFERENCES documents (project, digest)
);
CREATE INDEX versions_digest ON versions (project, kind, digest);

CREATE TABLE pointers (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL REFERENCES projects (id),
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    label      TEXT NOT NULL,
    version_id TEXT NOT NULL REFERENCES versions (id),
    -- Counts the moves; compare-and-swap compares it.
    revision   BIGINT NOT NULL,
    moved_by   TEXT NOT NULL,
    moved_at   BIGINT NOT NULL,
    UNIQUE (project, kind, name, label)
);

CREATE TABLE moves (
    id           TEXT PRIMARY KEY,
    pointer_id   TEXT NOT NULL REFERENCES pointers (id),
    revision     BIGINT NOT NULL,
    from_version TEXT REFERENCES versions (id),
    to_version   TEXT NOT NULL REFERENCES versions (id),
    actor        TEXT NOT NULL,
    reason       TEXT NOT NULL,
    moved_at     BIGINT NOT NULL,
    UNIQUE (pointer_id, revision)
);

-- One row: counts the changes that make gateways rebuild their plan.
CREATE TABLE plan_revision (
    id       BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL
);
INSERT INTO plan_revision (id, revision) VALUES (1, 1);

CREATE TABLE jobs (
    id               TEXT PRIMARY KEY,
    project          TEXT REFERENCES projects (id),
    kind             TEXT NOT NULL,
    payload          TEXT NOT NULL,
    state            TEXT NOT NULL,
    idempotency_key  TEXT,
    attempts         BIGINT NOT NULL DEFAULT 0,
    max_attempts     BIGINT NOT NULL,
    run_at           BIGINT NOT NULL,
    -- Rises with every lease: what an earlier holder still writes is refused.
    fence            BIGINT NOT NULL DEFAULT 0,
    lease_owner      TEXT,
    lease_until      BIGINT,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    error            TEXT,
    created_at       BIGINT NOT NULL,
    finished_at      BIGINT,
    UNIQUE (kind, idempotency_key)
);
CREATE INDEX jobs_due ON jobs (kind, state, run_at);
CREATE INDEX jobs_created ON jobs (created_at);

CREATE TABLE blobs (
    digest     TEXT PRIMARY KEY,
    size_bytes BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE settings (
    name       TEXT PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE audit (
    id      TEXT PRIMARY KEY,
    project TEXT REFERENCES projects (id),
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    at      BIGINT NOT NULL
);
CREATE INDEX audit_project ON audit (project, at, id);
CREATE INDEX audit_at ON audit (at, id);
