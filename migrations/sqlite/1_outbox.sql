-- The outbox, version 1.
--
-- Times are milliseconds since 1970-01-01 00:00:00 UTC. Data that is written once is separate from data that changes: a claim or a
-- settlement updates the narrow row of the queue and never rewrites a mail.

-- One row for each delivery, written once. An insert into this table enqueues a mail; the trigger below does the rest. docs/sql.md defines
-- what other programs may rely on. The default id is a UUID of version 7: the milliseconds since 1970 and then random digits, so that ids
-- sort by age.
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
    send_at       INTEGER,                                  -- not sent before this time; NULL: at once
    expires_at    INTEGER                                   -- not sent after this time; NULL: the relay's policy decides
) STRICT;

-- The pending and leased deliveries. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE postrider_queue (
    delivery_id      TEXT    NOT NULL PRIMARY KEY,
    priority         INTEGER NOT NULL,
    size             INTEGER NOT NULL DEFAULT 0,            -- size of the mail's body in octets, for the byte limit of claims
    due_at           INTEGER NOT NULL,                      -- when it can next be claimed; if leased, the end of the lease
    leased_at        INTEGER,                               -- set while a relay holds it
    leased_by        INTEGER,                               -- the id of the claim
    token            INTEGER NOT NULL DEFAULT 0,            -- grows with each claim
    attempts         INTEGER NOT NULL DEFAULT 0,            -- number of attempts over the life of the delivery
    cycle            INTEGER NOT NULL DEFAULT 1,
    spent            INTEGER NOT NULL DEFAULT 0,            -- attempts charged to the budget of this cycle
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

-- Deleting a delivery deletes all its other rows.
CREATE TRIGGER postrider_delete AFTER DELETE ON postrider_deliveries BEGIN
    DELETE FROM postrider_queue WHERE delivery_id = old.id;
    DELETE FROM postrider_ended WHERE delivery_id = old.id;
    DELETE FROM postrider_attempts WHERE delivery_id = old.id;
    DELETE FROM postrider_recipients WHERE delivery_id = old.id;
END;

CREATE INDEX postrider_queue_due ON postrider_queue (priority, due_at);

-- Deliveries that ended in another way than by the attempt that sent them.
CREATE TABLE postrider_ended (
    delivery_id TEXT    NOT NULL PRIMARY KEY,
    state       TEXT    NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      TEXT,
    ended_at    INTEGER NOT NULL,
    token       INTEGER NOT NULL,                           -- the last one: a resend continues it
    attempts    INTEGER NOT NULL,
    cycle       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX postrider_ended_state ON postrider_ended (state);

-- The attempts: all calls of a transport.
CREATE TABLE postrider_attempts (
    delivery_id     TEXT    NOT NULL,
    number          INTEGER NOT NULL,                       -- from 1 on, over the life of the delivery
    cycle           INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER NOT NULL,
    outcome         TEXT    NOT NULL CHECK (outcome IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost')),
    scope           TEXT    CHECK (scope IN ('message', 'sender', 'transport')), -- whose condition the failure is
    sure            INTEGER NOT NULL DEFAULT 1,             -- a rule or the transport's author supports outcome and scope
    charged         INTEGER NOT NULL DEFAULT 1,             -- counts against the budget
    note            TEXT,                                   -- the reason for the relay's decision
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

-- The reports of running relays.
CREATE TABLE postrider_relays (
    id        TEXT    NOT NULL PRIMARY KEY,
    seen_at   INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    paused    TEXT
) STRICT, WITHOUT ROWID;
