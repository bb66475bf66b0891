-- The outbox, version 1.
--
-- Times are milliseconds since 1970-01-01 00:00:00 UTC. What is written once lies apart from what changes: a claim or a
-- settlement touches the narrow row of the queue and never rewrites a mail.

-- One row for each delivery, written once. To enqueue is to insert a row here; the trigger below does the rest. docs/sql.md says what
-- other programs may rely on. An id of version 7 is the milliseconds since 1970 and then chance, so that ids sort by age.
CREATE TABLE postrider_deliveries (
    id            TEXT    NOT NULL PRIMARY KEY              -- UUID, version 7, in lower case
                  DEFAULT (lower(
                      printf('%08x-%04x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) >> 16,
                             CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) & 65535)
                      || '-7' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2)
                      || '-' || hex(randomblob(6))))
                  CHECK (id GLOB '????????-????-????-????-????????????' AND id NOT GLOB '*[^0-9a-f-]*'
                         AND length(replace(id, '-', '')) = 32 AND length(CAST(id AS BLOB)) = 36),
    created_at    INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    format        TEXT    NOT NULL CHECK (length(format) <= 64), -- 'email/1'
    body          TEXT    NOT NULL CHECK (length(CAST(body AS BLOB)) <= 67108864), -- the message, in that format: at most 64 MiB
    recipients    TEXT    NOT NULL CHECK (json_array_length(recipients) BETWEEN 1 AND 10000), -- a JSON array of addresses
    template_id   TEXT             CHECK (length(template_id) <= 255),
    key           TEXT    UNIQUE CHECK (length(key) BETWEEN 1 AND 255), -- the caller's idempotency key
    priority      INTEGER NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    when_in_doubt TEXT    NOT NULL DEFAULT 'resend' CHECK (when_in_doubt IN ('resend', 'hold')),
    send_at       INTEGER,                                  -- not before; NULL: at once
    expires_at    INTEGER                                   -- not after; NULL: as long as the relay's policy says
) STRICT;

-- What is pending or leased. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE postrider_queue (
    delivery_id      TEXT    NOT NULL PRIMARY KEY,
    priority         INTEGER NOT NULL,
    size             INTEGER NOT NULL DEFAULT 0,            -- octets of the mail's body, by which claims are bounded
    due_at           INTEGER NOT NULL,                      -- when it can next be claimed; of a leased one, the end of the lease
    leased_at        INTEGER,                               -- set while a relay holds it
    leased_by        INTEGER,                               -- the claim that did it
    token            INTEGER NOT NULL DEFAULT 0,            -- grows with each claim
    attempts         INTEGER NOT NULL DEFAULT 0,            -- made over its life
    cycle            INTEGER NOT NULL DEFAULT 1,
    spent            INTEGER NOT NULL DEFAULT 0,            -- of this cycle's budget
    cycle_started_at INTEGER NOT NULL,
    expires_at       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TRIGGER postrider_enqueue AFTER INSERT ON postrider_deliveries BEGIN
    SELECT RAISE(ABORT, 'recipients: not all are addresses of at most 700 characters') FROM json_each(new.recipients)
    WHERE type <> 'text' OR length(value) > 700 OR (new.format = 'email/1' AND value NOT LIKE '_%@_%') LIMIT 1;
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (new.id, new.priority, length(CAST(new.body AS BLOB)), coalesce(new.send_at, new.created_at),
            max(coalesce(new.send_at, new.created_at), new.created_at), new.expires_at);
END;

-- A delivery that is deleted takes all that is known of it along.
CREATE TRIGGER postrider_delete AFTER DELETE ON postrider_deliveries BEGIN
    DELETE FROM postrider_queue WHERE delivery_id = old.id;
    DELETE FROM postrider_ended WHERE delivery_id = old.id;
    DELETE FROM postrider_attempts WHERE delivery_id = old.id;
    DELETE FROM postrider_recipients WHERE delivery_id = old.id;
END;

CREATE INDEX postrider_queue_due ON postrider_queue (priority, due_at);

-- Deliveries that ended otherwise than with the attempt that sent them.
CREATE TABLE postrider_ended (
    delivery_id TEXT    NOT NULL PRIMARY KEY,
    state       TEXT    NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      TEXT,
    ended_at    INTEGER NOT NULL,
    token       INTEGER NOT NULL,                           -- the last one, so that a resend goes on counting
    attempts    INTEGER NOT NULL,
    cycle       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX postrider_ended_state ON postrider_ended (state);

-- Every call of a transport.
CREATE TABLE postrider_attempts (
    delivery_id     TEXT    NOT NULL,
    number          INTEGER NOT NULL,                       -- over the delivery's life, from 1
    cycle           INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER NOT NULL,
    outcome         TEXT    NOT NULL CHECK (outcome IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost')),
    scope           TEXT    CHECK (scope IN ('message', 'sender', 'transport')), -- whose condition it failed for
    sure            INTEGER NOT NULL DEFAULT 1,             -- a rule or an author stands behind outcome and scope
    charged         INTEGER NOT NULL DEFAULT 1,             -- counts against the budget
    note            TEXT,                                   -- why the relay decided as it did
    error           TEXT,
    reply           TEXT,
    provider_id     TEXT,
    transport       TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- Recipients whose outcome differs from the delivery's.
CREATE TABLE postrider_recipients (
    delivery_id TEXT NOT NULL,
    address     TEXT NOT NULL,
    outcome     TEXT NOT NULL CHECK (outcome IN ('sent', 'refused', 'in_doubt', 'dead')),
    reply       TEXT,
    PRIMARY KEY (delivery_id, address)
) STRICT, WITHOUT ROWID;

-- What running relays tell of themselves.
CREATE TABLE postrider_relays (
    id        TEXT    NOT NULL PRIMARY KEY,
    seen_at   INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    paused    TEXT
) STRICT, WITHOUT ROWID;
