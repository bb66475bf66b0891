-- The outbox, version 1. The names of all tables begin with a prefix. To use another prefix, replace "postrider_".
--
-- Times are microseconds since 1970-01-01 00:00:00 UTC, independent of the time zone of a session. Ids are UUIDs of version 7 as 16 octets,
-- which sort by age. Data that is written once is separate from data that changes: a claim or a settlement updates the narrow row of the
-- queue and never rewrites a mail.

-- The pending and leased deliveries. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE IF NOT EXISTS postrider_queue (
    delivery_id      BINARY(16) NOT NULL PRIMARY KEY,
    priority         TINYINT    NOT NULL,
    size             INT        NOT NULL DEFAULT 0,         -- size of the message in octets, for the byte limit of claims
    due_at           BIGINT     NOT NULL,                   -- when it can next be claimed; if leased, the end of the lease
    leased_at        BIGINT     NOT NULL DEFAULT 0,         -- 0 while no relay holds it: a row of constant length is updated in place
    leased_by        BIGINT     NOT NULL DEFAULT 0,         -- the id of the claim
    token            BIGINT     NOT NULL DEFAULT 0,         -- grows with each claim
    attempts         INT        NOT NULL DEFAULT 0,         -- number of attempts over the life of the delivery
    cycle            INT        NOT NULL DEFAULT 1,
    charged_attempts INT        NOT NULL DEFAULT 0,         -- attempts charged to the budget of this cycle
    cycle_started_at BIGINT     NOT NULL,
    expires_at       BIGINT,
    has_outcomes     BOOLEAN    NOT NULL DEFAULT FALSE,     -- postrider_recipients has outcomes of this delivery
    KEY queue_due (priority, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How a delivery ended. A delivery that its last attempt sent has no row here.
CREATE TABLE IF NOT EXISTS postrider_ended (
    delivery_id BINARY(16)  NOT NULL PRIMARY KEY,
    state       VARCHAR(16) NOT NULL,                       -- 'sent', 'dead', 'in_doubt' or 'cancelled'
    reason      LONGTEXT,
    ended_at    BIGINT      NOT NULL,
    token       BIGINT      NOT NULL,                       -- the last one: a resend continues it
    attempts    INT         NOT NULL,
    cycle       INT         NOT NULL,
    KEY ended_state (state, delivery_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each attempt: a call of the transport, one that was lost with its relay, or one that ended before the call because the
-- message could not be read.
CREATE TABLE IF NOT EXISTS postrider_attempts (
    delivery_id     BINARY(16)  NOT NULL,
    number          INT         NOT NULL,                   -- from 1 on, over the life of the delivery
    cycle           INT         NOT NULL,
    token           BIGINT      NOT NULL,
    started_at      BIGINT      NOT NULL,
    finished_at     BIGINT      NOT NULL,
    outcome         VARCHAR(16) NOT NULL,                   -- 'sent', 'transient', 'permanent', 'in_doubt' or 'lost'
    scope           VARCHAR(16),                            -- whose condition the failure is: 'message', 'sender' or 'transport'
    sure            BOOLEAN     NOT NULL DEFAULT TRUE,      -- a rule or the transport's author supports outcome and scope
    charged         BOOLEAN     NOT NULL DEFAULT TRUE,      -- counts against the budget
    note            LONGTEXT,                               -- the reason for the relay's decision
    error           LONGTEXT,
    reply           LONGTEXT,
    provider_id     LONGTEXT,
    transport       LONGTEXT,
    PRIMARY KEY (delivery_id, number),
    KEY attempts_provider_id (provider_id(100))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each recipient after the first, and for each recipient whose outcome differs from the delivery's.
--
-- The index has the reversed address in lower case, so that it finds the addresses of a domain by a prefix.
CREATE TABLE IF NOT EXISTS postrider_recipients (
    delivery_id BINARY(16)   NOT NULL,
    address     VARCHAR(700) NOT NULL,
    outcome     VARCHAR(16),                              -- 'sent', 'refused', 'in_doubt' or 'dead'; NULL: as the delivery's
    reply       LONGTEXT,
    reversed    VARCHAR(700) GENERATED ALWAYS AS (LEFT(REVERSE(LOWER(address)), 700)) VIRTUAL,
    PRIMARY KEY (delivery_id, address),
    KEY recipients_reversed (reversed)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Large attachments, each once, whichever messages carry it.
CREATE TABLE IF NOT EXISTS postrider_blobs (
    hash    BINARY(32) NOT NULL PRIMARY KEY,                -- SHA-256
    content LONGBLOB   NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which messages carry which blobs. The foreign key locks a blob against its deletion until the enqueueing transaction ends.
CREATE TABLE IF NOT EXISTS postrider_body_blobs (
    delivery_id BINARY(16) NOT NULL,
    hash        BINARY(32) NOT NULL,
    PRIMARY KEY (delivery_id, hash),
    KEY body_blobs_hash (hash),
    CONSTRAINT postrider_content_exists FOREIGN KEY (hash) REFERENCES postrider_blobs (hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The number of deliveries in each final state, since counting the deliveries would read all of them. It is the sum over 32 slots. Each
-- connection of a relay adds to one of the first 16, so that relays seldom wait for each other. Operators and deletions use the others.
CREATE TABLE IF NOT EXISTS postrider_totals (
    state VARCHAR(16) NOT NULL,
    slot  TINYINT     NOT NULL,
    `count` BIGINT    NOT NULL,
    PRIMARY KEY (state, slot)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How often each event happened in each hour: the outcomes of attempts, and the ends of deliveries other than sent.
CREATE TABLE IF NOT EXISTS postrider_hourly (
    hour      BIGINT       NOT NULL,                        -- its beginning
    event     VARCHAR(16)  NOT NULL,
    transport VARCHAR(255) NOT NULL,                        -- '': none was called
    slot      TINYINT      NOT NULL,
    `count`   BIGINT       NOT NULL,
    PRIMARY KEY (hour, event, transport, slot)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The reports of running relays.
CREATE TABLE IF NOT EXISTS postrider_relays (
    id        VARCHAR(36) NOT NULL PRIMARY KEY,
    seen_at   BIGINT      NOT NULL,
    in_flight BIGINT      NOT NULL,
    paused    LONGTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The leader of each task that one relay does at a time, and the end of its term.
CREATE TABLE IF NOT EXISTS postrider_leaders (
    task  VARCHAR(64) NOT NULL PRIMARY KEY,
    relay VARCHAR(36) NOT NULL,
    until BIGINT      NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each delivery. Only a deletion or an erasure updates it. An insert into this table enqueues a mail; the triggers below do the
-- rest. docs/sql.md defines what other programs may rely on.
--
-- The default id is a UUID of version 7: the milliseconds since 1970 and then a digest of unique values. The table gets its final name
-- after its triggers exist: a row that is inserted before that would not get into the queue, and no relay would find it.
--
-- The key is stored as octets, because utf8mb4_bin treats "a" and "a " as equal. The names of the constraints begin with a column, since
-- the server's error shows them.
CREATE TABLE IF NOT EXISTS postrider_deliveries_unready (
    id            BINARY(16)  NOT NULL PRIMARY KEY DEFAULT (UNHEX(CONCAT(
        LPAD(HEX(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000), 12, '0'),
        '7', LEFT(SHA2(CONCAT(UUID(), RAND()), 256), 3), '8', LEFT(SHA2(CONCAT(UUID(), RAND()), 256), 15)))),
    created_at    BIGINT      NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))),
    send_at       BIGINT,                                   -- not sent before this time; NULL: at once
    expires_at    BIGINT,                                   -- not sent after this time; NULL: the relay's policy decides
    key_until     BIGINT,                                   -- deleted, and its key stays taken until then; NULL: not deleted
    priority      TINYINT     NOT NULL DEFAULT 5,           -- 0 to 9
    when_in_doubt VARCHAR(16) NOT NULL DEFAULT 'resend',    -- or 'hold'
    recipients    LONGTEXT    NOT NULL,                     -- a JSON array of 1 to 10,000 addresses of at most 700 characters
    template_id   LONGTEXT,                                 -- at most 255 characters
    `key`         VARBINARY(1020),                          -- the caller's idempotency key: 1 to 255 characters
    format        VARCHAR(64) NOT NULL,                     -- 'email/1'
    `body`        LONGTEXT,                                 -- the message, in that format; NULL: deleted
    `text`        LONGTEXT,                                 -- the plain text and the HTML, if they are not in the body
    html          LONGTEXT,
    -- Octets of the rows of postrider_blobs that belong to it. Without a body the default is -1, which the table refuses.
    blobs_size    BIGINT      NOT NULL DEFAULT (IF(`body` IS NULL, -1, 0)),
    -- The subject, and the tags as a JSON array of texts; NULL: none. By default they come from the body.
    subject       VARCHAR(1000) DEFAULT (IF(format = 'email/1' AND JSON_VALID(`body`),
        IF(JSON_TYPE(JSON_EXTRACT(`body`, '$.subject')) = 'STRING',
           NULLIF(LEFT(JSON_UNQUOTE(JSON_EXTRACT(`body`, '$.subject')), 1000), ''), NULL), NULL)),
    tags          LONGTEXT    DEFAULT (IF(format = 'email/1' AND JSON_VALID(`body`),
        IF(JSON_TYPE(JSON_EXTRACT(`body`, '$.tags')) = 'ARRAY' AND JSON_LENGTH(`body`, '$.tags') > 0,
           JSON_EXTRACT(`body`, '$.tags'), NULL), NULL)),
    reversed      VARCHAR(700) GENERATED ALWAYS AS (        -- the first recipient, as in postrider_recipients
        IF(JSON_VALID(recipients), LEFT(REVERSE(LOWER(JSON_UNQUOTE(JSON_EXTRACT(recipients, '$[0]')))), 700), NULL)) VIRTUAL,
    UNIQUE KEY deliveries_key (`key`),
    KEY deliveries_reversed (reversed),
    CONSTRAINT postrider_recipients_not_array CHECK (JSON_VALID(recipients) AND JSON_TYPE(recipients) = 'ARRAY'),
    CONSTRAINT postrider_recipients_count CHECK (JSON_LENGTH(recipients) BETWEEN 1 AND 10000),
    CONSTRAINT postrider_template_id_length CHECK (CHAR_LENGTH(template_id) <= 255),
    CONSTRAINT postrider_key_empty CHECK (LENGTH(`key`) > 0),
    CONSTRAINT postrider_priority_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT postrider_when_in_doubt_value CHECK (when_in_doubt IN ('resend', 'hold')),
    -- Up to the year 9999: a later time comes from a program that counts in another unit.
    CONSTRAINT postrider_created_at_range CHECK (created_at < 253402300800000000),
    CONSTRAINT postrider_send_at_range CHECK (send_at < 253402300800000000),
    CONSTRAINT postrider_body_not_json CHECK (subject IS NOT NULL OR format <> 'email/1' OR JSON_VALID(`body`)),
    CONSTRAINT postrider_body_size
        CHECK (COALESCE(OCTET_LENGTH(`body`), 0) + COALESCE(OCTET_LENGTH(`text`), 0) + COALESCE(OCTET_LENGTH(html), 0) <= 67108864),
    CONSTRAINT postrider_body_missing CHECK (blobs_size >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Each trigger is one statement, because a client cannot send several in one trigger without a special delimiter.
CREATE TRIGGER postrider_enqueue_delivery AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (NEW.id, NEW.priority,
            LEAST(OCTET_LENGTH(NEW.`body`) + COALESCE(OCTET_LENGTH(NEW.`text`), 0) + COALESCE(OCTET_LENGTH(NEW.html), 0)
                  + NEW.blobs_size, 2147483647),
            COALESCE(NEW.send_at, NEW.created_at), GREATEST(COALESCE(NEW.send_at, NEW.created_at), NEW.created_at), NEW.expires_at);

-- The condition on the length spares the server from reading a list of one recipient, which is a fifth of the time of an insert.
CREATE TRIGGER postrider_enqueue_recipients AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_recipients (delivery_id, address)
    SELECT NEW.id, r.address
    FROM JSON_TABLE(IF(JSON_LENGTH(NEW.recipients) > 1, NEW.recipients, '[]'), '$[*]' COLUMNS (
        place FOR ORDINALITY, address VARCHAR(701) CHARACTER SET utf8mb4 PATH '$')) r
    WHERE r.place > 1 AND JSON_LENGTH(NEW.recipients) > 1
    ON DUPLICATE KEY UPDATE reply = NULL;

-- Deleting a delivery deletes all its other rows. (Foreign keys would do the same, but lock a row for each mail that is enqueued.)
--
-- The first of these triggers reads what the next ones delete. A deletion adds to slots that no relay uses: a deletion locks a counter
-- first and then the rest of its deliveries, a relay locks them in the opposite order, and the two could deadlock.
CREATE TRIGGER postrider_forget_total AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_totals (state, slot, `count`)
    SELECT COALESCE((SELECT e.state FROM postrider_ended e WHERE e.delivery_id = OLD.id), 'sent'), MOD(CONNECTION_ID(), 16) + 16, -1
    FROM DUAL
    WHERE OLD.key_until IS NULL AND NOT EXISTS (SELECT 1 FROM postrider_queue q WHERE q.delivery_id = OLD.id)
    ON DUPLICATE KEY UPDATE `count` = postrider_totals.`count` - 1;

CREATE TRIGGER postrider_forget_queue AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_queue WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_ended AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_ended WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_attempts AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_attempts WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_recipients AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_recipients WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_body_blobs AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_body_blobs WHERE delivery_id = OLD.id;

RENAME TABLE postrider_deliveries_unready TO postrider_deliveries;

-- One readable row for each delivery, with the id and the key as the table has them: an index finds a row by these. The server would build
-- the whole view for each query if its list had a subquery. FORCE INDEX: as long as a table is empty or its statistics say so, MySQL would
-- choose a hash join, which reads and sorts every delivery.
CREATE VIEW postrider_mail_lookup AS
    SELECT INSERT(INSERT(INSERT(INSERT(LOWER(HEX(d.id)), 21, 0, '-'), 17, 0, '-'), 13, 0, '-'), 9, 0, '-') AS id,
           CASE WHEN q.leased_at <> 0 THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE COALESCE(e.state, 'sent') END AS state,
           COALESCE(last.number, q.attempts, e.attempts, 0) AS attempts,
           JSON_UNQUOTE(JSON_EXTRACT(d.recipients, '$[0]')) AS recipient, JSON_LENGTH(d.recipients) AS recipients, d.subject,
           COALESCE(e.reason, last.error) AS last_error,
           CASE WHEN q.leased_at = 0 THEN TIMESTAMP '1970-01-01 00:00:00' + INTERVAL q.due_at DIV 1000000 SECOND END AS next_attempt_at,
           -- The upper 24 bits of a claim's id are the last 24 bits of its relay's id.
           CASE WHEN q.leased_at <> 0 THEN LPAD(LOWER(HEX(q.leased_by >> 39)), 6, '0') END AS leased_by,
           CASE WHEN q.leased_at <> 0 THEN TIMESTAMP '1970-01-01 00:00:00' + INTERVAL q.due_at DIV 1000000 SECOND END AS leased_until,
           TIMESTAMP '1970-01-01 00:00:00' + INTERVAL d.created_at DIV 1000000 SECOND AS enqueued_at,
           CASE WHEN q.delivery_id IS NULL
                THEN TIMESTAMP '1970-01-01 00:00:00' + INTERVAL COALESCE(e.ended_at, last.finished_at) DIV 1000000 SECOND END AS finished_at,
           last.transport, last.provider_id, last.reply AS last_reply, d.template_id, d.tags, CONVERT(d.`key` USING utf8mb4) AS `key`,
           d.priority, TIMESTAMP '1970-01-01 00:00:00' + INTERVAL d.expires_at DIV 1000000 SECOND AS expires_at,
           d.id AS delivery_id, d.`key` AS delivery_key
    FROM postrider_deliveries d
    LEFT JOIN postrider_queue q FORCE INDEX (PRIMARY) ON q.delivery_id = d.id
    LEFT JOIN postrider_ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id
    LEFT JOIN postrider_attempts last FORCE INDEX (PRIMARY) ON last.delivery_id = d.id
        AND last.number = (SELECT MAX(a.number) FROM postrider_attempts a FORCE INDEX (PRIMARY) WHERE a.delivery_id = d.id)
    WHERE d.key_until IS NULL;

-- One readable row for each delivery, the newest first, for people with the server's client: the view above without the last two columns.
-- Times are in UTC. docs/sql.md describes the columns.
CREATE VIEW postrider_mail AS
    SELECT id, state, attempts, recipient, recipients, subject, last_error, next_attempt_at, leased_by, leased_until, enqueued_at, finished_at,
           transport, provider_id, last_reply, template_id, tags, `key`, priority, expires_at
    FROM postrider_mail_lookup
    ORDER BY delivery_id DESC;

-- The number of deliveries in each state, with the earliest due time of the pending ones and the earliest claim of the leased ones.
CREATE VIEW postrider_overview AS
    SELECT 'pending' AS state, COUNT(*) AS deliveries, TIMESTAMP '1970-01-01 00:00:00' + INTERVAL MIN(due_at) DIV 1000000 SECOND AS oldest
    FROM postrider_queue WHERE leased_at = 0
    UNION ALL
    SELECT 'leased', COUNT(*), TIMESTAMP '1970-01-01 00:00:00' + INTERVAL MIN(leased_at) DIV 1000000 SECOND
    FROM postrider_queue WHERE leased_at <> 0
    UNION ALL
    SELECT 'sent', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'sent'
    UNION ALL
    SELECT 'dead', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'dead'
    UNION ALL
    SELECT 'in_doubt', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'in_doubt'
    UNION ALL
    SELECT 'cancelled', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'cancelled';
