-- The outbox, version 1. The names of all tables begin with a prefix; put your own in place of "postrider_".
--
-- Times are microseconds since 1970-01-01 00:00:00 UTC, so that no session's time zone can move them. Ids are UUIDs of version 7 as
-- 16 octets, which sort by age. What is written once lies apart from what changes: a claim or a settlement touches the narrow row
-- of the queue and never rewrites a mail.

-- What is pending or leased. A delivery that is neither here nor in postrider_ended was sent by its last attempt.
CREATE TABLE IF NOT EXISTS postrider_queue (
    delivery_id      BINARY(16) NOT NULL PRIMARY KEY,
    priority         TINYINT    NOT NULL,
    size             INT        NOT NULL DEFAULT 0,         -- octets of the mail's body, by which claims are bounded
    due_at           BIGINT     NOT NULL,                   -- when it can next be claimed; of a leased one, the end of the lease
    leased_at        BIGINT     NOT NULL DEFAULT 0,         -- 0 while no relay holds it: rows that keep their length are changed in place
    leased_by        BIGINT     NOT NULL DEFAULT 0,         -- the claim that did it
    token            BIGINT     NOT NULL DEFAULT 0,         -- grows with each claim
    attempts         INT        NOT NULL DEFAULT 0,         -- made over its life
    cycle            INT        NOT NULL DEFAULT 1,
    spent            INT        NOT NULL DEFAULT 0,         -- of this cycle's budget
    cycle_started_at BIGINT     NOT NULL,
    expires_at       BIGINT,
    partial          BOOLEAN    NOT NULL DEFAULT FALSE,     -- postrider_recipients has rows of it
    KEY queue_due (priority, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Deliveries that ended otherwise than with the attempt that sent them.
CREATE TABLE IF NOT EXISTS postrider_ended (
    delivery_id BINARY(16)  NOT NULL PRIMARY KEY,
    state       VARCHAR(16) NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      LONGTEXT,
    ended_at    BIGINT      NOT NULL,
    token       BIGINT      NOT NULL,                       -- the last one, so that a resend goes on counting
    attempts    INT         NOT NULL,
    cycle       INT         NOT NULL,
    KEY ended_state (state, delivery_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Every call of a transport.
CREATE TABLE IF NOT EXISTS postrider_attempts (
    delivery_id     BINARY(16)  NOT NULL,
    number          INT         NOT NULL,                   -- over the delivery's life, from 1
    cycle           INT         NOT NULL,
    token           BIGINT      NOT NULL,
    started_at      BIGINT      NOT NULL,
    finished_at     BIGINT      NOT NULL,
    outcome         VARCHAR(16) NOT NULL CHECK (outcome IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost')),
    scope           VARCHAR(16) CHECK (scope IN ('message', 'sender', 'transport')), -- whose condition it failed for
    sure            BOOLEAN     NOT NULL DEFAULT TRUE,      -- a rule or an author stands behind outcome and scope
    charged         BOOLEAN     NOT NULL DEFAULT TRUE,      -- counts against the budget
    note            LONGTEXT,                               -- why the relay decided as it did
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

-- What running relays tell of themselves.
CREATE TABLE IF NOT EXISTS postrider_relays (
    id        VARCHAR(36) NOT NULL PRIMARY KEY,
    seen_at   BIGINT      NOT NULL,
    in_flight BIGINT      NOT NULL,
    paused    LONGTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each delivery, written once. To enqueue is to insert rows here; the trigger below does the rest. docs/sql.md says what
-- other programs may rely on.
--
-- An id is a UUID of version 7: the milliseconds since 1970 and then a digest of what occurs once. The table gets its name only when it
-- has its triggers: a row that was inserted before would be found by no relay.
--
-- The key is kept as octets, because utf8mb4_bin takes "a" and "a " for the same.
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
    send_at       BIGINT,                                   -- not before; NULL: at once
    expires_at    BIGINT,                                   -- not after; NULL: as long as the relay's policy says
    UNIQUE KEY deliveries_key (`key`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TRIGGER postrider_take_in AFTER INSERT ON postrider_deliveries_unready FOR EACH ROW
    INSERT INTO postrider_queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (NEW.id, NEW.priority, OCTET_LENGTH(NEW.body), COALESCE(NEW.send_at, NEW.created_at),
            GREATEST(COALESCE(NEW.send_at, NEW.created_at), NEW.created_at), NEW.expires_at);

-- A delivery that is deleted takes all that is known of it along. (Foreign keys would do that too, and cost a lock for each row that
-- is enqueued. One trigger for each table, because one with several statements is beyond what a client sends as it stands.)
CREATE TRIGGER postrider_leave_queue AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_queue WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_ended AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_ended WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_attempts AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_attempts WHERE delivery_id = OLD.id;

CREATE TRIGGER postrider_leave_recipients AFTER DELETE ON postrider_deliveries_unready FOR EACH ROW
    DELETE FROM postrider_recipients WHERE delivery_id = OLD.id;

RENAME TABLE postrider_deliveries_unready TO postrider_deliveries;
