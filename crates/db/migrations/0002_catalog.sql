-- What is mutable about a name (its tags, whether it is deleted), what documents refer to,
-- and moves that remove a pointer.

CREATE TABLE names (
    project    TEXT NOT NULL REFERENCES projects (id),
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    -- A JSON list of texts, sorted.
    tags       TEXT NOT NULL DEFAULT '[]',
    -- The newest version, so that a list needs no grouping.
    latest     BIGINT NOT NULL,
    deleted_at BIGINT,
    PRIMARY KEY (project, kind, name)
);
INSERT INTO names (project, kind, name, latest)
    SELECT project, kind, name, MAX(number) FROM versions GROUP BY project, kind, name;

-- One row per reference in a document; `selector` as people write it: `latest`, `3`, a label, `sha256:…`.
CREATE TABLE document_references (
    project  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    digest   TEXT NOT NULL,
    path     TEXT NOT NULL,
    to_kind  TEXT NOT NULL,
    to_name  TEXT NOT NULL,
    selector TEXT NOT NULL,
    PRIMARY KEY (project, kind, digest, path, to_kind, to_name, selector)
);
-- All columns, or SQLite reads every reference of the project through the primary key instead.
CREATE INDEX document_references_to
    ON document_references (project, to_kind, to_name, kind, digest, path, selector);

-- A removed pointer keeps its row (its revision must go on counting) with removed = 1.
ALTER TABLE pointers ADD COLUMN removed BIGINT NOT NULL DEFAULT 0;
-- `move`, `rollback` or `remove`; a removal repeats from_version as to_version.
ALTER TABLE moves ADD COLUMN action TEXT NOT NULL DEFAULT 'move';
-- The approved proposal that this move carried out.
ALTER TABLE moves ADD COLUMN proposal TEXT;
CREATE INDEX pointers_version ON pointers (version_id);

-- By what documents with nearly the same text are found: a signature for each document,
-- and the buckets that alike ones share.
CREATE TABLE sketches (
    project   TEXT NOT NULL,
    kind      TEXT NOT NULL,
    digest    TEXT NOT NULL,
    -- Stands for the three above in the buckets.
    id        BIGINT NOT NULL UNIQUE,
    signature TEXT NOT NULL,
    PRIMARY KEY (project, kind, digest)
);
CREATE TABLE sketch_buckets (
    bucket BIGINT NOT NULL,
    sketch BIGINT NOT NULL REFERENCES sketches (id),
    PRIMARY KEY (bucket, sketch)
);
