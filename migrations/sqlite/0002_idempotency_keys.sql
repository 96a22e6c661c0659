-- Which operation a caller's own key stands for, and which request it came with. Kept as long as the operation.
CREATE TABLE idempotency_keys (
    caller       TEXT NOT NULL,
    key          TEXT NOT NULL,
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (caller, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_keys_of_operation ON idempotency_keys (operation_id);
CREATE INDEX operations_ended ON operations (finished_at) WHERE status <> 'running';
