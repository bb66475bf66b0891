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
    spent            INT        NOT NULL DEFAULT 0,         -- attempts charged to the budget of this cycle
    cycle_started_at BIGINT     NOT NULL,
    expires_at       BIGINT,
    partial          BOOLEAN    NOT NULL DEFAULT FALSE,     -- postrider_recipients has rows of this delivery
    KEY queue_due (priority, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Deliveries that ended in another way than by the attempt that sent them.
CREATE TABLE IF NOT EXISTS postrider_ended (
    delivery_id BINARY(16)  NOT NULL PRIMARY KEY,
    state       VARCHAR(16) NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      LONGTEXT,
    ended_at    BIGINT      NOT NULL,
    token       BIGINT      NOT NULL,                       -- the last one: a resend continues it
    attempts    INT         NOT NULL,
    cycle       INT         NOT NULL,
    KEY ended_state (state, delivery_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The attempts: all calls of a transport.
CREATE TABLE IF NOT EXISTS postrider_attempts (
    delivery_id     BINARY(16)  NOT NULL,
    number          INT         NOT NULL,                   -- from 1 on, over the life of the delivery
    cycle           INT         NOT NULL,
    token           BIGINT      NOT NULL,
    started_at      BIGINT      NOT NULL,
    finished_at     BIGINT      NOT NULL,
    outcome         VARCHAR(16) NOT NULL CHECK (outcome IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost')),
    scope           VARCHAR(16) CHECK (scope IN ('message', 'sender', 'transport')), -- whose condition the failure is
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

-- The recipients after the first of deliveries that have several, and every recipient whose outcome differs from the delivery's.
--
-- An address is found by its end, which is its domain: it is indexed in reverse, in lower case.
CREATE TABLE IF NOT EXISTS postrider_recipients (
    delivery_id BINARY(16)   NOT NULL,
    address     VARCHAR(700) NOT NULL,
    outcome     VARCHAR(16)  CHECK (outcome IN ('sent', 'refused', 'in_doubt', 'dead')), -- NULL: as the delivery's
    reply       LONGTEXT,
    reversed    VARCHAR(700) GENERATED ALWAYS AS (LEFT(REVERSE(LOWER(address)), 700)) VIRTUAL,
    PRIMARY KEY (delivery_id, address),
    KEY recipients_reversed (reversed)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Large attachments, each once, whichever messages carry it.
CREATE TABLE IF NOT EXISTS postrider_contents (
    hash    BINARY(32) NOT NULL PRIMARY KEY,                -- SHA-256
    content LONGBLOB   NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which messages carry which contents. The foreign key locks a content against its deletion until the enqueueing transaction ends.
CREATE TABLE IF NOT EXISTS postrider_body_contents (
    delivery_id BINARY(16) NOT NULL,
    hash        BINARY(32) NOT NULL,
    PRIMARY KEY (delivery_id, hash),
    KEY body_contents_hash (hash),
    CONSTRAINT postrider_content_exists FOREIGN KEY (hash) REFERENCES postrider_contents (hash)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The reports of running relays.
CREATE TABLE IF NOT EXISTS postrider_relays (
    id        VARCHAR(36) NOT NULL PRIMARY KEY,
    seen_at   BIGINT      NOT NULL,
    in_flight BIGINT      NOT NULL,
    paused    LONGTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each delivery. It is written once; later only its message may be deleted. An insert into this table enqueues a mail; the
-- triggers below do the rest. docs/sql.md defines what other programs may rely on.
--
-- The default id is a UUID of version 7: the milliseconds since 1970 and then a digest of unique values. The table gets its final name
-- after its triggers exist: a row that is inserted without them is in no queue, and no relay finds it.
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
    forgotten_at  BIGINT,                                   -- deleted then, and kept for its key alone; NULL: not deleted
    priority      TINYINT     NOT NULL DEFAULT 5,           -- 0 to 9
    when_in_doubt VARCHAR(16) NOT NULL DEFAULT 'resend',    -- or 'hold'
    recipients    LONGTEXT    NOT NULL,                     -- a JSON array of 1 to 10,000 addresses of at most 700 characters
    template_id   LONGTEXT,                                 -- at most 255 characters
    `key`         VARBINARY(1020),                          -- the caller's idempotency key: 1 to 255 characters
    format        VARCHAR(64) NOT NULL,                     -- 'email/1'
    `body`        LONGTEXT,                                 -- the message, in that format; NULL: deleted
    `text`        LONGTEXT,                                 -- the plain text and the HTML, if they are not in the body
    html          LONGTEXT,
    -- Octets of the rows of postrider_contents that belong to it. The default of a row without a body is a value that the table refuses.
    contents_size BIGINT      NOT NULL DEFAULT (IF(`body` IS NULL, -1, 0)),
    -- The subject, and the tags as a JSON array of texts; NULL: none. The defaults are those of the body.
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
    CONSTRAINT postrider_recipients_no_array CHECK (JSON_VALID(recipients) AND JSON_TYPE(recipients) = 'ARRAY'),
    CONSTRAINT postrider_recipients_count CHECK (JSON_LENGTH(recipients) BETWEEN 1 AND 10000),
    CONSTRAINT postrider_template_id_length CHECK (CHAR_LENGTH(template_id) <= 255),
    CONSTRAINT postrider_key_empty CHECK (LENGTH(`key`) > 0),
    CONSTRAINT postrider_priority_range CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT postrider_when_in_doubt_word CHECK (when_in_doubt IN ('resend', 'hold')),
    CONSTRAINT postrider_body_no_json CHECK (subject IS NOT NULL OR format <> 'email/1' OR JSON_VALID(`body`)),
    CONSTRAINT postrider_body_size
        CHECK (COALESCE(OCTET_LENGTH(`body`), 0) + COALESCE(OCTET_LENGTH(`text`), 0) + COALESCE(OCTET_LENGTH(html), 0) <= 67108864),
    CONSTRAINT postrider_body_missing CHECK (contents_size >= 0)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Each trigger is one statement, because a client cannot send several in one trigger without a special delimiter.
CREATE TRIGGER postrider_enqueue_delivery AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (NEW.id, NEW.priority,
            LEAST(OCTET_LENGTH(NEW.`body`) + COALESCE(OCTET_LENGTH(NEW.`text`), 0) + COALESCE(OCTET_LENGTH(NEW.html), 0)
                  + NEW.contents_size, 2147483647),
            COALESCE(NEW.send_at, NEW.created_at), GREATEST(COALESCE(NEW.send_at, NEW.created_at), NEW.created_at), NEW.expires_at);

CREATE TRIGGER postrider_enqueue_recipients AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_recipients (delivery_id, address)
    SELECT NEW.id, r.address
    FROM JSON_TABLE(IF(JSON_LENGTH(NEW.recipients) > 1, NEW.recipients, '[]'), '$[*]' COLUMNS (
        place FOR ORDINALITY, address VARCHAR(701) CHARACTER SET utf8mb4 PATH '$')) r
    WHERE r.place > 1
    ON DUPLICATE KEY UPDATE reply = NULL;

-- Deleting a delivery deletes all its other rows. (Foreign keys would do the same, but lock a row for each mail that is enqueued.)
CREATE TRIGGER postrider_forget_queue AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_queue WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_ended AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_ended WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_attempts AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_attempts WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_recipients AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_recipients WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_forget_body_contents AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_body_contents WHERE delivery_id = OLD.id;

RENAME TABLE postrider_deliveries_unready TO postrider_deliveries;
