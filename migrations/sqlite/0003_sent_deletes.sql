-- Whether a delete was sent for an operation and not definitely refused: 0 or 1.
ALTER TABLE operations ADD COLUMN delete_sent BIGINT NOT NULL DEFAULT 0;
UPDATE operations SET delete_sent = 1 WHERE outcome = 'deleted';
