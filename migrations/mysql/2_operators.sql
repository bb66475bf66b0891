-- Version 2: what operators order and what they did.

-- What operators ordered the relays to do. A relay reads it before a claim, at most once a second.
CREATE TABLE IF NOT EXISTS postrider_controls (
    control  VARCHAR(16)  NOT NULL,                         -- 'pause', or 'probe': set_at is when it was last asked for
    kind     VARCHAR(16)  NOT NULL,                         -- of a pause: 'outbox', 'transport', 'sender' or 'template'; '': a probe
    name     VARCHAR(700) NOT NULL,                         -- of the transport, the sender or the template; '': none
    set_at   BIGINT       NOT NULL,
    operator VARCHAR(255) NOT NULL,
    note     LONGTEXT,
    PRIMARY KEY (control, kind, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The audit trail: a row for each act of an operator, and for each delivery that a bulk act changed.
CREATE TABLE IF NOT EXISTS postrider_audit (
    number      BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at          BIGINT       NOT NULL,
    operator    VARCHAR(255) NOT NULL,
    action      VARCHAR(16)  NOT NULL,                      -- 'resend', 'cancel', 'dismiss', 'pause', 'resume', 'probe', 'erase', 'prune'
    delivery_id BINARY(16),                                 -- NULL: it concerns no single delivery
    target      LONGTEXT,                                   -- what else it concerns
    note        LONGTEXT,
    KEY audit_delivery (delivery_id, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- As in version 1, with the state 'dismissed'.
CREATE OR REPLACE VIEW postrider_overview AS
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
    SELECT 'cancelled', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'cancelled'
    UNION ALL
    SELECT 'dismissed', CAST(COALESCE(SUM(`count`), 0) AS SIGNED), NULL FROM postrider_totals WHERE state = 'dismissed';
