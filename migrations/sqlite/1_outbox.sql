-- The outbox, version 1.
--
-- Times are milliseconds since 1970-01-01 00:00:00 UTC. Data that is written once is separate from data that changes: a claim or a
-- settlement updates the narrow row of the queue and never rewrites a mail.

-- One row for each delivery. Only a deletion or an erasure updates it. An insert into this table enqueues a mail; the trigger below does
-- the rest. docs/sql.md defines what other programs may rely on. The default id is a UUID of version 7: the milliseconds since 1970 and
-- then random digits, so that ids sort by age.
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
    body          TEXT             CHECK (length(CAST(body AS BLOB)) <= 67108864), -- the message, in that format; NULL: deleted
    text          TEXT,                                     -- the plain text and the HTML, if they are not in the body
    html          TEXT,
    blobs         TEXT,                                     -- a JSON array of the hashes in postrider_blobs; NULL: none
    recipients    TEXT    NOT NULL CHECK (json_array_length(recipients) BETWEEN 1 AND 10000), -- a JSON array of addresses
    subject       TEXT,
    tags          TEXT,                                     -- a JSON array of texts; NULL: none
    template_id   TEXT             CHECK (length(template_id) <= 255),
    key           TEXT    UNIQUE CHECK (length(key) BETWEEN 1 AND 255), -- the caller's idempotency key
    priority      INTEGER NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    when_in_doubt TEXT    NOT NULL DEFAULT 'resend' CHECK (when_in_doubt IN ('resend', 'hold')),
    send_at       INTEGER,                                  -- not sent before this time; NULL: at once
    expires_at    INTEGER,                                  -- not sent after this time; NULL: the relay's policy decides
    key_until     INTEGER                                   -- deleted, and its key stays taken until then; NULL: not deleted
) STRICT;

-- The deliveries that are kept for their keys alone.
CREATE INDEX postrider_deliveries_key_until ON postrider_deliveries (key_until) WHERE key_until IS NOT NULL;

-- Finds a delivery by its first recipient.
CREATE INDEX postrider_deliveries_recipient ON postrider_deliveries (lower(json_extract(recipients, '$[0]')));

-- Large attachments, each once, whichever messages carry it.
CREATE TABLE postrider_blobs (
    hash          TEXT    NOT NULL PRIMARY KEY,             -- SHA-256, in lower-case hexadecimal digits
    content       BLOB    NOT NULL
) STRICT;

-- Which messages carry which blobs.
CREATE TABLE postrider_body_blobs (
    hash          TEXT    NOT NULL,
    delivery_id   TEXT    NOT NULL,
    PRIMARY KEY (hash, delivery_id)
) STRICT, WITHOUT ROWID;

-- The pending and leased deliveries. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE postrider_queue (
    delivery_id      TEXT    NOT NULL PRIMARY KEY,
    priority         INTEGER NOT NULL,
    size             INTEGER NOT NULL DEFAULT 0,            -- size of the message in octets, for the byte limit of claims
    due_at           INTEGER NOT NULL,                      -- when it can next be claimed; if leased, the end of the lease
    leased_at        INTEGER,                               -- set while a relay holds it
    leased_by        INTEGER,                               -- the id of the claim
    token            INTEGER NOT NULL DEFAULT 0,            -- grows with each claim
    attempts         INTEGER NOT NULL DEFAULT 0,            -- number of attempts over the life of the delivery
    cycle            INTEGER NOT NULL DEFAULT 1,
    charged_attempts INTEGER NOT NULL DEFAULT 0,            -- attempts charged to the budget of this cycle
    cycle_started_at INTEGER NOT NULL,
    expires_at       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TRIGGER postrider_enqueue AFTER INSERT ON postrider_deliveries BEGIN
    SELECT RAISE(ABORT, 'body: missing') WHERE new.body IS NULL;
    SELECT RAISE(ABORT, 'body: more than 64 MiB with text and HTML')
    WHERE length(CAST(new.body AS BLOB)) + coalesce(length(CAST(new.text AS BLOB)), 0) + coalesce(length(CAST(new.html AS BLOB)), 0) > 67108864;
    -- A later time comes from a program that counts in another unit.
    SELECT RAISE(ABORT, 'created_at or send_at: later than the year 9999')
    WHERE max(new.created_at, coalesce(new.send_at, 0)) >= 253402300800000;
    SELECT RAISE(ABORT, 'body: not a JSON object')
    WHERE new.format = 'email/1' AND CASE WHEN json_valid(new.body) THEN json_type(new.body) END IS NOT 'object';
    SELECT RAISE(ABORT, 'blobs: not all of them are stored')
    WHERE EXISTS (SELECT value FROM json_each(new.blobs) EXCEPT SELECT hash FROM postrider_blobs);
    -- GLOB reads half of a surrogate pair as U+FFFD. A text with one is not UTF-8, and many programs could not read the row.
    SELECT RAISE(ABORT, 'recipients: not all are addresses of at most 700 characters') FROM json_each(new.recipients)
    WHERE type <> 'text' OR length(value) > 700 OR (new.format = 'email/1' AND value NOT LIKE '_%@_%')
        OR instr(value, char(0)) > 0 OR value GLOB '*' || char(65533) || '*' LIMIT 1;
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (new.id, new.priority,
            coalesce(length(CAST(new.body AS BLOB)), 0) + coalesce(length(CAST(new.text AS BLOB)), 0)
            + coalesce(length(CAST(new.html AS BLOB)), 0)
            + (SELECT coalesce(sum(length(content)), 0) FROM json_each(new.blobs) JOIN postrider_blobs ON hash = value),
            coalesce(new.send_at, new.created_at), max(coalesce(new.send_at, new.created_at), new.created_at), new.expires_at);
    INSERT INTO postrider_body_blobs (hash, delivery_id) SELECT DISTINCT value, new.id FROM json_each(new.blobs);
    INSERT INTO postrider_recipients (delivery_id, address)
    SELECT new.id, value FROM json_each(new.recipients) WHERE key > 0
    ON CONFLICT DO NOTHING;
    -- The library gives subject and tags. For other programs they come from the body.
    UPDATE postrider_deliveries
    SET subject = CASE WHEN json_type(new.body, '$.subject') = 'text'
                            AND json_extract(new.body, '$.subject') NOT GLOB '*' || char(65533) || '*'
                       THEN nullif(json_extract(new.body, '$.subject'), '') END,
        tags = CASE WHEN json_array_length(new.body, '$.tags') > 0 THEN json_extract(new.body, '$.tags') END
    WHERE id = new.id AND new.format = 'email/1' AND new.subject IS NULL AND new.tags IS NULL
      AND (json_type(new.body, '$.subject') = 'text' OR json_array_length(new.body, '$.tags') > 0);
END;

-- Deleting a delivery deletes all its other rows.
CREATE TRIGGER postrider_delete AFTER DELETE ON postrider_deliveries BEGIN
    UPDATE postrider_totals SET count = count - 1
    WHERE state = coalesce((SELECT state FROM postrider_ended WHERE delivery_id = old.id), 'sent')
      AND old.key_until IS NULL AND NOT EXISTS (SELECT 1 FROM postrider_queue WHERE delivery_id = old.id);
    DELETE FROM postrider_queue WHERE delivery_id = old.id;
    DELETE FROM postrider_ended WHERE delivery_id = old.id;
    DELETE FROM postrider_attempts WHERE delivery_id = old.id;
    DELETE FROM postrider_recipients WHERE delivery_id = old.id;
    DELETE FROM postrider_body_blobs WHERE delivery_id = old.id AND hash IN (SELECT value FROM json_each(old.blobs));
END;

CREATE INDEX postrider_queue_due ON postrider_queue (priority, due_at);

-- How a delivery ended. A delivery that its last attempt sent has no row here.
CREATE TABLE postrider_ended (
    delivery_id TEXT    NOT NULL PRIMARY KEY,
    state       TEXT    NOT NULL, -- 'sent', 'dead', 'in_doubt' or 'cancelled'
    reason      TEXT,
    ended_at    INTEGER NOT NULL,
    token       INTEGER NOT NULL,                           -- the last one: a resend continues it
    attempts    INTEGER NOT NULL,
    cycle       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX postrider_ended_state ON postrider_ended (state);

-- One row for each attempt: a call of the transport, one that was lost with its relay, or one that ended before the call because the
-- message could not be read.
CREATE TABLE postrider_attempts (
    delivery_id     TEXT    NOT NULL,
    number          INTEGER NOT NULL,                       -- from 1 on, over the life of the delivery
    cycle           INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER NOT NULL,
    outcome         TEXT    NOT NULL, -- 'sent', 'transient', 'permanent', 'in_doubt' or 'lost'
    scope           TEXT, -- whose condition the failure is: 'message', 'sender' or 'transport'
    sure            INTEGER NOT NULL DEFAULT 1,             -- a rule or the transport's author supports outcome and scope
    charged         INTEGER NOT NULL DEFAULT 1,             -- counts against the budget
    note            TEXT,                                   -- the reason for the relay's decision
    error           TEXT,
    reply           TEXT,
    provider_id     TEXT,
    transport       TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX postrider_attempts_provider_id ON postrider_attempts (provider_id) WHERE provider_id IS NOT NULL;

-- One row for each recipient after the first, and for each recipient whose outcome differs from the delivery's.
CREATE TABLE postrider_recipients (
    delivery_id TEXT NOT NULL,
    address     TEXT NOT NULL,
    outcome     TEXT, -- 'sent', 'refused', 'in_doubt' or 'dead'; NULL: as the delivery's
    reply       TEXT,
    PRIMARY KEY (delivery_id, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX postrider_recipients_address ON postrider_recipients (lower(address));

-- The number of deliveries in each final state, since counting the deliveries would read all of them.
CREATE TABLE postrider_totals (
    state TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How often each event happened in each hour: the outcomes of attempts, and the ends of deliveries other than sent.
CREATE TABLE postrider_hourly (
    hour      INTEGER NOT NULL,                             -- its beginning
    event     TEXT    NOT NULL,
    transport TEXT    NOT NULL,                             -- '': none was called
    count     INTEGER NOT NULL,
    PRIMARY KEY (hour, event, transport)
) STRICT, WITHOUT ROWID;

-- One readable row for each delivery, the newest first, for people with sqlite3. Times are in UTC. docs/sql.md describes the columns.
CREATE VIEW postrider_mail AS
    SELECT d.id,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state,
           coalesce(last.number, q.attempts, e.attempts, 0) AS attempts,
           json_extract(d.recipients, '$[0]') AS recipient, json_array_length(d.recipients) AS recipients, d.subject,
           coalesce(e.reason, last.error) AS last_error,
           CASE WHEN q.leased_at IS NULL THEN datetime(q.due_at / 1000, 'unixepoch') END AS next_attempt_at,
           -- The upper 24 bits of a claim's id are the last 24 bits of its relay's id.
           CASE WHEN q.leased_at IS NOT NULL THEN printf('%06x', q.leased_by >> 39) END AS leased_by,
           CASE WHEN q.leased_at IS NOT NULL THEN datetime(q.due_at / 1000, 'unixepoch') END AS leased_until,
           datetime(d.created_at / 1000, 'unixepoch') AS enqueued_at,
           CASE WHEN q.delivery_id IS NULL THEN datetime(coalesce(e.ended_at, last.finished_at) / 1000, 'unixepoch') END AS finished_at,
           last.transport, last.provider_id, last.reply AS last_reply, d.template_id, d.tags, d.key, d.priority,
           datetime(d.expires_at / 1000, 'unixepoch') AS expires_at
    FROM postrider_deliveries d
    LEFT JOIN postrider_queue q ON q.delivery_id = d.id
    LEFT JOIN postrider_ended e ON e.delivery_id = d.id
    LEFT JOIN postrider_attempts last ON last.delivery_id = d.id
        AND last.number = (SELECT max(number) FROM postrider_attempts WHERE delivery_id = d.id)
    WHERE d.key_until IS NULL
    ORDER BY d.id DESC;

-- The number of deliveries in each state, with the earliest due time of the pending ones and the earliest claim of the leased ones.
CREATE VIEW postrider_overview AS
    SELECT 'pending' AS state, count(*) AS deliveries, datetime(min(due_at) / 1000, 'unixepoch') AS oldest
    FROM postrider_queue WHERE leased_at IS NULL
    UNION ALL
    SELECT 'leased', count(*), datetime(min(leased_at) / 1000, 'unixepoch') FROM postrider_queue WHERE leased_at IS NOT NULL
    UNION ALL
    SELECT s.column1, coalesce((SELECT t.count FROM postrider_totals t WHERE t.state = s.column1), 0), NULL
    FROM (VALUES ('sent'), ('dead'), ('in_doubt'), ('cancelled')) s;

-- The reports of running relays.
CREATE TABLE postrider_relays (
    id        TEXT    NOT NULL PRIMARY KEY,
    seen_at   INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    paused    TEXT
) STRICT, WITHOUT ROWID;

-- The leader of each task that one relay does at a time, and the end of its term.
CREATE TABLE postrider_leaders (
    task  TEXT    NOT NULL PRIMARY KEY,
    relay TEXT    NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
