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
