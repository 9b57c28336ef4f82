-- STORAGE.md sections 1 and 2. Organisation and document come first in every key, and no query joins two organisations.

CREATE TABLE documents (
    id    INTEGER PRIMARY KEY,
    org   TEXT    NOT NULL,
    name  TEXT    NOT NULL,
    epoch BLOB    NOT NULL CHECK (length(epoch) = 16),
    -- DocumentState::number: 1 live, 2 read-only, 3 deleted, 4 quarantined.
    state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
    UNIQUE (org, name),
    UNIQUE (org, id)
) STRICT;

-- Clustered by its key: a load reads one stretch, and a commit touches one page a document.
CREATE TABLE log (
    org         TEXT    NOT NULL,
    document    INTEGER NOT NULL,
    origin      BLOB    NOT NULL CHECK (length(origin) = 8),
    sequence    INTEGER NOT NULL CHECK (sequence > 0),
    epoch       BLOB    NOT NULL,
    author      TEXT    NOT NULL,
    time_ms     INTEGER NOT NULL,
    update_data BLOB    NOT NULL,
    PRIMARY KEY (org, document, origin, sequence),
    FOREIGN KEY (org, document) REFERENCES documents (org, id)
) STRICT, WITHOUT ROWID;

-- The merged state of a document. `version` is what a compaction compares and sets.
CREATE TABLE snapshots (
    org      TEXT    NOT NULL,
    document INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    -- How the chunks are encoded: 0 verbatim.
    codec    INTEGER NOT NULL,
    n_chunks INTEGER NOT NULL,
    -- What is folded in: for each origin 8 bytes, then its sequence, 8 bytes big-endian.
    folded   BLOB    NOT NULL CHECK (length(folded) % 16 = 0),
    time_ms  INTEGER NOT NULL,
    PRIMARY KEY (org, document),
    FOREIGN KEY (org, document) REFERENCES documents (org, id)
) STRICT, WITHOUT ROWID;

-- Chunks of 1 MiB; a rowid table, because large rows do not belong in a clustered index.
CREATE TABLE snapshot_chunks (
    org      TEXT    NOT NULL,
    document INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    chunk    INTEGER NOT NULL,
    bytes    BLOB    NOT NULL,
    PRIMARY KEY (org, document, version, chunk),
    FOREIGN KEY (org, document) REFERENCES documents (org, id)
) STRICT;
