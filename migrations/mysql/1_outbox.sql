-- The outbox, version 1. The names of all tables begin with a prefix. To use another prefix, replace "postrider_".
--
-- Times are microseconds since 1970-01-01 00:00:00 UTC, independent of the time zone of a session. Ids are UUIDs of version 7 as 16 octets,
-- which sort by age. Data that is written once is separate from data that changes: a claim or a settlement updates the narrow row of the
-- queue and never rewrites a mail.

-- The pending and leased deliveries. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE IF NOT EXISTS postrider_queue (
    delivery_id      BINARY(16) NOT NULL PRIMARY KEY,
    priority         TINYINT    NOT NULL,
    size             INT        NOT NULL DEFAULT 0,         -- size of the mail's body in octets, for the byte limit of claims
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
    PRIMARY KEY (delivery_id, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Recipients whose outcome differs from the delivery's.
CREATE TABLE IF NOT EXISTS postrider_recipients (
    delivery_id BINARY(16)   NOT NULL,
    address     VARCHAR(700) NOT NULL,
    outcome     VARCHAR(16)  NOT NULL CHECK (outcome IN ('sent', 'refused', 'in_doubt', 'dead')),
    reply       LONGTEXT,
    PRIMARY KEY (delivery_id, address)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The reports of running relays.
CREATE TABLE IF NOT EXISTS postrider_relays (
    id        VARCHAR(36) NOT NULL PRIMARY KEY,
    seen_at   BIGINT      NOT NULL,
    in_flight BIGINT      NOT NULL,
    paused    LONGTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each delivery, written once. An insert into this table enqueues a mail; the trigger below does the rest. docs/sql.md defines
-- what other programs may rely on.
--
-- The default id is a UUID of version 7: the milliseconds since 1970 and then a digest of unique values. The table gets its final name
-- after its triggers exist, since no relay would find a row that was inserted before.
--
-- The key is stored as octets, because utf8mb4_bin treats "a" and "a " as equal.
CREATE TABLE IF NOT EXISTS postrider_deliveries_unready (
    id            BINARY(16)  NOT NULL PRIMARY KEY DEFAULT (UNHEX(CONCAT(
        LPAD(HEX(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000), 12, '0'),
        '7', LEFT(SHA2(CONCAT(UUID(), RAND()), 256), 3), '8', LEFT(SHA2(CONCAT(UUID(), RAND()), 256), 15)))),
    created_at    BIGINT      NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))),
    format        VARCHAR(64) NOT NULL,                     -- 'email/1'
    `body`        LONGTEXT    NOT NULL                      -- the message, in that format: at most 64 MiB
        CHECK (OCTET_LENGTH(`body`) <= 67108864),
    recipients    LONGTEXT    NOT NULL                      -- a JSON array of 1 to 10,000 addresses
        CHECK (JSON_VALID(recipients) AND JSON_TYPE(recipients) = 'ARRAY' AND JSON_LENGTH(recipients) BETWEEN 1 AND 10000),
    template_id   LONGTEXT    CHECK (CHAR_LENGTH(template_id) <= 255),
    `key`         VARBINARY(1020) CHECK (LENGTH(`key`) > 0), -- the caller's idempotency key
    priority      TINYINT     NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    when_in_doubt VARCHAR(16) NOT NULL DEFAULT 'resend' CHECK (when_in_doubt IN ('resend', 'hold')),
    send_at       BIGINT,                                   -- not sent before this time; NULL: at once
    expires_at    BIGINT,                                   -- not sent after this time; NULL: the relay's policy decides
    UNIQUE KEY deliveries_key (`key`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TRIGGER postrider_take_in AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (NEW.id, NEW.priority, OCTET_LENGTH(NEW.body), COALESCE(NEW.send_at, NEW.created_at),
            GREATEST(COALESCE(NEW.send_at, NEW.created_at), NEW.created_at), NEW.expires_at);

-- Deleting a delivery deletes all its other rows. (Foreign keys would do the same, but lock a row for each mail that is enqueued. Each
-- table has its own trigger, because a client cannot send a trigger with several statements without a special delimiter.)
CREATE TRIGGER postrider_leave_queue AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_queue WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_ended AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_ended WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_attempts AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_attempts WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_recipients AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_recipients WHERE delivery_id = OLD.id;

RENAME TABLE postrider_deliveries_unready TO postrider_deliveries;
