-- What clients of foreign prompt registries attach to prompts (number 0) and their versions.

CREATE TABLE registry_tags (
    project    TEXT NOT NULL REFERENCES projects (id),
    name       TEXT NOT NULL,
    number     BIGINT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (project, name, number, key)
);
