-- 1 for an operation whose beginning stands in the audit log and whose end does not yet.
ALTER TABLE operations ADD COLUMN owes_end BIGINT NOT NULL DEFAULT 0;

CREATE INDEX operations_owing_end ON operations (finished_at) WHERE owes_end = 1 AND status <> 'running';
