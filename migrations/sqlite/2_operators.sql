-- Version 2: what operators order and what they did.

-- What operators ordered the relays to do. A relay reads it before a claim, at most once a second.
CREATE TABLE postrider_controls (
    control  TEXT    NOT NULL,                              -- 'pause', or 'probe': set_at is when it was last asked for
    kind     TEXT    NOT NULL,                              -- of a pause: 'outbox', 'transport', 'sender' or 'template'; '': a probe
    name     TEXT    NOT NULL,                              -- of the transport, the sender or the template; '': none
    set_at   INTEGER NOT NULL,
    operator TEXT    NOT NULL,
    note     TEXT,
    PRIMARY KEY (control, kind, name)
) STRICT, WITHOUT ROWID;

-- The audit trail: a row for each act of an operator, and for each delivery that a bulk act changed.
CREATE TABLE postrider_audit (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    operator    TEXT    NOT NULL,
    action      TEXT    NOT NULL,                           -- 'resend', 'cancel', 'dismiss', 'pause', 'resume', 'probe', 'erase', 'prune'
    delivery_id TEXT,                                       -- NULL: it concerns no single delivery
    target      TEXT,                                       -- what else it concerns
    note        TEXT
) STRICT;

CREATE INDEX postrider_audit_delivery ON postrider_audit (delivery_id, number) WHERE delivery_id IS NOT NULL;

-- As in version 1, with the state 'dismissed'.
DROP VIEW postrider_overview;
CREATE VIEW postrider_overview AS
    SELECT 'pending' AS state, count(*) AS deliveries, datetime(min(due_at) / 1000, 'unixepoch') AS oldest
    FROM postrider_queue WHERE leased_at IS NULL
    UNION ALL
    SELECT 'leased', count(*), datetime(min(leased_at) / 1000, 'unixepoch') FROM postrider_queue WHERE leased_at IS NOT NULL
    UNION ALL
    SELECT s.column1, coalesce((SELECT t.count FROM postrider_totals t WHERE t.state = s.column1), 0), NULL
    FROM (VALUES ('sent'), ('dead'), ('in_doubt'), ('cancelled'), ('dismissed')) s;
