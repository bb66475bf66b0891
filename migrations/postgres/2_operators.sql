-- Version 2: what operators order and what they did.

-- What operators ordered the relays to do. A relay reads it before a claim, at most once a second.
CREATE TABLE "postrider".controls (
    control  text        NOT NULL,                          -- 'pause', or 'probe': set_at is when it was last asked for
    kind     text        NOT NULL,                          -- of a pause: 'outbox', 'transport', 'sender' or 'template'; '': a probe
    name     text        NOT NULL,                          -- of the transport, the sender or the template; '': none
    set_at   timestamptz NOT NULL,
    operator text        NOT NULL,
    note     text,
    PRIMARY KEY (control, kind, name)
);

-- The audit trail: a row for each act of an operator, and for each delivery that a bulk act changed.
CREATE TABLE "postrider".audit (
    number      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    operator    text        NOT NULL,
    action      text        NOT NULL,                       -- 'resend', 'cancel', 'dismiss', 'pause', 'resume', 'probe', 'erase', 'prune'
    delivery_id uuid,                                       -- NULL: it concerns no single delivery
    target      text,                                       -- what else it concerns
    note        text
);

CREATE INDEX audit_delivery ON "postrider".audit (delivery_id, number) WHERE delivery_id IS NOT NULL;

-- As in version 1, with the state 'dismissed'.
CREATE OR REPLACE VIEW "postrider".overview AS
    SELECT 'pending' AS state, count(*) AS deliveries, date_trunc('second', min(due_at)) AS oldest FROM "postrider".queue WHERE leased_at IS NULL
    UNION ALL
    SELECT 'leased', count(*), date_trunc('second', min(leased_at)) FROM "postrider".queue WHERE leased_at IS NOT NULL
    UNION ALL
    SELECT s.state, coalesce((SELECT sum(t.count)::bigint FROM "postrider".totals t WHERE t.state = s.state), 0), NULL
    FROM (VALUES ('sent'), ('dead'), ('in_doubt'), ('cancelled'), ('dismissed')) s (state);
