-- Of an operation that a program could not read, the version of that program, until one can. Nothing else of it is changed. It is
-- passed over, so that any number of them cost the others nothing.
-- Whoever works with the table waits for this behind whoever works with it already, say a backup.
SET LOCAL lock_timeout = '10s';
ALTER TABLE operations ADD COLUMN unreadable_by BIGINT;

DROP INDEX operations_due;
CREATE INDEX operations_due ON operations (next_look_at, id) WHERE status = 'running' AND unreadable_by IS NULL;
DROP INDEX operations_owing_end;
CREATE INDEX operations_owing_end ON operations (finished_at)
    WHERE owes_end = 1 AND status <> 'running' AND unreadable_by IS NULL;
CREATE INDEX operations_unreadable ON operations (unreadable_by, id) WHERE unreadable_by IS NOT NULL;
