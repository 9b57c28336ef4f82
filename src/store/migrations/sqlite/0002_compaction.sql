-- STORAGE.md sections 2 and 7. Expands only: what version 1 wrote is read as it is.

-- The bytes of a snapshot before packing; codec 1 needs them. 0 for the verbatim codec 0.
ALTER TABLE snapshots ADD COLUMN n_bytes INTEGER NOT NULL DEFAULT 0;
-- A digest of the content, which is not read here.
ALTER TABLE snapshots ADD COLUMN digest BLOB NOT NULL DEFAULT x'';

-- Rows that left the log. A rowid table with the large column last: a listing reads none of it.
CREATE TABLE segments (
    org          TEXT    NOT NULL,
    document     INTEGER NOT NULL,
    -- Ascending in the order of compaction.
    number       INTEGER NOT NULL CHECK (number > 0),
    n_rows       INTEGER NOT NULL,
    update_bytes INTEGER NOT NULL,
    from_ms      INTEGER NOT NULL,
    to_ms        INTEGER NOT NULL,
    -- A JSON array of user ids.
    authors      TEXT    NOT NULL,
    -- For each origin 8 bytes, then first sequence, last sequence and count, 8 bytes each, big-endian.
    ranges       BLOB    NOT NULL CHECK (length(ranges) % 32 = 0),
    bytes        BLOB    NOT NULL,
    PRIMARY KEY (org, document, number),
    FOREIGN KEY (org, document) REFERENCES documents (org, id)
) STRICT;
