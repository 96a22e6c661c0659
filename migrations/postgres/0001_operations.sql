-- The tables of migrations/sqlite, in the state that they have there. What is compared by size is compared byte by byte, whatever
-- the language of the database.

CREATE TABLE operations (
    id                     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    project                TEXT   NOT NULL,
    service                TEXT   NOT NULL,
    task                   TEXT   NOT NULL,
    -- What the project was bound to when the operation was accepted.
    project_id             TEXT   NOT NULL,
    region                 TEXT   NOT NULL,
    endpoint               TEXT   NOT NULL,
    kind                   TEXT   NOT NULL,
    force                  TEXT,
    -- Of storage credentials there are names here, never keys. Flags are 0 or 1.
    source_credential      TEXT,
    destination_credential TEXT,
    inline_credentials     BIGINT NOT NULL,
    migrate_failed_objects BIGINT NOT NULL,
    status                 TEXT   NOT NULL,
    phase                  TEXT,
    outcome                TEXT,
    failure                TEXT,
    superseded_by          TEXT,
    requested_by           TEXT   NOT NULL,
    -- Times are microseconds since 1970.
    created_at             BIGINT NOT NULL,
    updated_at             BIGINT NOT NULL,
    deadline_at            BIGINT NOT NULL,
    finished_at            BIGINT,
    next_look_at           BIGINT NOT NULL,
    history                TEXT   NOT NULL,
    last_seen              TEXT,
    version                BIGINT NOT NULL,
    -- Both are null while nobody drives the operation.
    lease_owner            TEXT,
    -- By the clock of the database.
    lease_until            BIGINT,
    -- Whether a delete was sent for an operation and not definitely refused.
    delete_sent            BIGINT NOT NULL DEFAULT 0,
    -- 1 for an operation whose beginning stands in the audit log and whose end does not yet.
    owes_end               BIGINT NOT NULL DEFAULT 0,
    -- The process that has the keys of a start, which are in its memory only. Others leave the operation to it as long as it
    -- comes for it.
    kept_for               TEXT
);

-- At most one running operation on a task.
CREATE UNIQUE INDEX operations_running ON operations (project, service, task) WHERE status = 'running';
CREATE INDEX operations_due ON operations (next_look_at, id) WHERE status = 'running';
CREATE INDEX operations_running_by ON operations (requested_by) WHERE status = 'running';
CREATE INDEX operations_of_task ON operations (task, service, project, id);
CREATE INDEX operations_by_status ON operations (status, id);
CREATE INDEX operations_ended ON operations (finished_at) WHERE status <> 'running';
CREATE INDEX operations_owing_end ON operations (finished_at) WHERE owes_end = 1 AND status <> 'running';

CREATE TABLE operation_callers (
    operation_id TEXT   COLLATE "C" NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    caller       TEXT   NOT NULL,
    -- The first who asked has number 1.
    number       BIGINT NOT NULL,
    PRIMARY KEY (operation_id, caller)
);

CREATE INDEX operation_callers_by_caller ON operation_callers (caller, operation_id);

CREATE TABLE operation_events (
    operation_id TEXT   COLLATE "C" NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    number       BIGINT NOT NULL,
    happened_at  BIGINT NOT NULL,
    kind         TEXT   NOT NULL,
    -- A state, a code or an id of a request: what it is depends on the kind.
    detail       TEXT,
    PRIMARY KEY (operation_id, number)
);

-- Which operation a caller's own key stands for, and which request it came with. Kept as long as the operation.
CREATE TABLE idempotency_keys (
    caller       TEXT NOT NULL,
    key          TEXT NOT NULL,
    operation_id TEXT COLLATE "C" NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (caller, key)
);

CREATE INDEX idempotency_keys_of_operation ON idempotency_keys (operation_id);

-- One row that is written to find out whether anything can be.
CREATE TABLE write_probe (
    id     BIGINT NOT NULL PRIMARY KEY,
    writes BIGINT NOT NULL
);

INSERT INTO write_probe (id, writes) VALUES (1, 0);
