-- The process that has the keys of a start, which are in its memory only. Others leave the operation to it as long as it
-- comes for it.
ALTER TABLE operations ADD COLUMN kept_for TEXT;
