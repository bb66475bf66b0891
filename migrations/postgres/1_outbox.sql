-- The outbox, version 1. It lives in a schema of its own; put your name for it in place of "postrider".
--
-- What is written once lies apart from what changes: a claim or a settlement touches the narrow row of the queue and never
-- rewrites a mail.

-- A UUID of version 7 (RFC 9562): the milliseconds since 1970 and then chance, so that ids sort by age.
CREATE FUNCTION "postrider".new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

-- The rules for columns that are written often are domains: the server keeps those ready, and would read a table's constraints anew
-- for each statement, which is a tenth of what it costs to enqueue a mail.
CREATE DOMAIN "postrider".moment AS timestamptz CHECK (VALUE > '-infinity' AND VALUE < '200000-01-01');
CREATE DOMAIN "postrider".addresses AS json CHECK (json_array_length(VALUE) > 0 AND strpos(VALUE::text, '\u0000') = 0);
CREATE DOMAIN "postrider".idempotency_key AS text CHECK (char_length(VALUE) BETWEEN 1 AND 255);
CREATE DOMAIN "postrider".priority AS smallint CHECK (VALUE BETWEEN 0 AND 9);
CREATE DOMAIN "postrider".when_in_doubt AS text CHECK (VALUE IN ('resend', 'hold'));
CREATE DOMAIN "postrider".outcome AS text CHECK (VALUE IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost'));
CREATE DOMAIN "postrider".scope AS text CHECK (VALUE IN ('message', 'sender', 'transport'));

-- One row for each delivery, written once. To enqueue is to insert rows here, or to call the function below; the trigger does the
-- rest. docs/sql.md says what other programs may rely on.
CREATE TABLE "postrider".deliveries (
    id            uuid                        NOT NULL PRIMARY KEY DEFAULT "postrider".new_id(), -- version 7
    created_at    "postrider".moment          NOT NULL DEFAULT now(),
    format        text                        NOT NULL,     -- 'email/1'
    body          text                        NOT NULL,     -- the message, in that format
    recipients    "postrider".addresses       NOT NULL,     -- an array of addresses
    template_id   text,
    key           "postrider".idempotency_key,              -- the caller's
    priority      "postrider".priority        NOT NULL DEFAULT 5,
    when_in_doubt "postrider".when_in_doubt   NOT NULL DEFAULT 'resend',
    send_at       "postrider".moment,                       -- not before; NULL: at once
    expires_at    "postrider".moment                        -- not after; NULL: as long as the relay's policy says
);

-- What is longer than about 2 KiB is compressed. lz4 takes a tenth of the time of the server's own way; it is there since version
-- 14, where the server was built with it.
DO $$ BEGIN
    EXECUTE 'ALTER TABLE "postrider".deliveries ALTER COLUMN body SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
    NULL;
END $$;

CREATE UNIQUE INDEX deliveries_key ON "postrider".deliveries (key) WHERE key IS NOT NULL;

-- What is pending or leased. A delivery that is neither here nor in "ended" was sent by its last attempt.
--
-- A claim changes no indexed column, so that its update is heap-only; half-empty pages leave it the room. The order of the columns
-- leaves no gaps, and those that a claim sets have their room already, save one.
CREATE TABLE "postrider".queue (
    delivery_id      uuid        NOT NULL PRIMARY KEY,
    priority         smallint    NOT NULL,
    partial          boolean     NOT NULL DEFAULT false,    -- "recipients" has rows of it
    size             integer     NOT NULL DEFAULT 0,        -- octets of the mail's body, by which claims are bounded
    due_at           timestamptz NOT NULL,
    lease_until      timestamptz NOT NULL DEFAULT '-infinity', -- held by a relay until then
    leased_at        timestamptz,                           -- set while a relay holds it
    leased_by        bigint      NOT NULL DEFAULT 0,        -- the claim that did it
    abandoned_at     timestamptz,                           -- leased_at of the holder before, if that one vanished
    token            bigint      NOT NULL DEFAULT -1,       -- grows with each claim; while nobody holds it, -1 less the last one,
                                                            -- so that no settlement matches
    attempts         integer     NOT NULL DEFAULT 0,        -- made over its life
    cycle            integer     NOT NULL DEFAULT 1,
    spent            integer     NOT NULL DEFAULT 0,        -- of this cycle's budget
    cycle_started_at timestamptz NOT NULL,
    expires_at       timestamptz
) WITH (fillfactor = 50);

-- With the id, because all that one transaction enqueues is due at the same moment.
CREATE INDEX queue_due ON "postrider".queue (priority, due_at, delivery_id);

-- Deliveries that ended otherwise than with the attempt that sent them.
CREATE TABLE "postrider".ended (
    delivery_id uuid        NOT NULL PRIMARY KEY,
    state       text        NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      text,
    ended_at    timestamptz NOT NULL,
    token       bigint      NOT NULL,                       -- the last one, so that a resend goes on counting
    attempts    integer     NOT NULL,
    cycle       integer     NOT NULL
);

CREATE INDEX ended_state ON "postrider".ended (state, delivery_id);

-- Every call of a transport.
CREATE TABLE "postrider".attempts (
    delivery_id     uuid        NOT NULL,
    number          integer     NOT NULL,                   -- over the delivery's life, from 1
    cycle           integer     NOT NULL,
    token           bigint      NOT NULL,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz NOT NULL,
    outcome         "postrider".outcome NOT NULL,
    scope           "postrider".scope,                      -- whose condition it failed for; NULL: none, or nobody knows
    sure            boolean     NOT NULL DEFAULT true,      -- a rule or an author stands behind outcome and scope
    charged         boolean     NOT NULL DEFAULT true,      -- counts against the budget
    note            text,                                   -- why the relay decided as it did
    error           text,
    reply           text,
    provider_id     text,
    transport       text,
    PRIMARY KEY (delivery_id, number)
);

-- Recipients whose outcome differs from the delivery's.
CREATE TABLE "postrider".recipients (
    delivery_id uuid NOT NULL,
    address     text NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('sent', 'refused', 'in_doubt', 'dead')),
    reply       text,
    PRIMARY KEY (delivery_id, address)
);

-- What running relays tell of themselves.
CREATE TABLE "postrider".relays (
    id        text        NOT NULL PRIMARY KEY,
    seen_at   timestamptz NOT NULL,
    in_flight bigint      NOT NULL,
    paused    text
);

-- When relays were last rung for, in fiftieths of a second. A sequence, because it can be read and moved without a lock and
-- outside the transaction.
CREATE SEQUENCE "postrider".bell MINVALUE 0 START 0;

-- Puts new deliveries into the queue and rings for relays, at most fifty times a second: notifications pass through one lock
-- of the whole server at commit. A relay that is rung for looks again some times in the half second after, and so finds what
-- was committed without a ring of its own. It acts with its owner's rights, so that a program that enqueues needs none but to insert.
CREATE FUNCTION "postrider".take_in() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present bigint := floor(date_part('epoch', clock_timestamp()) * 50);
BEGIN
    INSERT INTO "postrider".queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    SELECT id, priority, octet_length(body), coalesce(send_at, created_at), greatest(send_at, created_at), expires_at FROM added;
    IF pg_sequence_last_value('"postrider".bell') IS DISTINCT FROM present THEN
        PERFORM setval('"postrider".bell', present);
        PERFORM pg_notify('postrider:postrider', '');
    END IF;
    RETURN NULL;
END $$;

-- Nobody else may hang it on a table of their own and so write into the queue.
REVOKE ALL ON FUNCTION "postrider".take_in FROM PUBLIC;

-- A delivery that is deleted takes all that is known of it along. (Foreign keys would do that too, and cost a lock for each row
-- that is enqueued.) It acts with its owner's rights, so that whoever may delete a delivery needs no other, and nobody else may
-- attach it to a table.
CREATE FUNCTION "postrider".take_out() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM "postrider".queue WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".ended WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".attempts WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".recipients WHERE delivery_id IN (SELECT id FROM gone);
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION "postrider".take_out FROM PUBLIC;

CREATE TRIGGER take_out AFTER DELETE ON "postrider".deliveries
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION "postrider".take_out();

-- Whoever empties the table empties the outbox.
CREATE FUNCTION "postrider".take_out_all() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    TRUNCATE "postrider".queue, "postrider".ended, "postrider".attempts, "postrider".recipients;
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION "postrider".take_out_all FROM PUBLIC;

CREATE TRIGGER take_out_all AFTER TRUNCATE ON "postrider".deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION "postrider".take_out_all();

CREATE TRIGGER take_in AFTER INSERT ON "postrider".deliveries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION "postrider".take_in();

-- Enqueues a mail for everyone whom it names, in whatever transaction is open, and returns the delivery's id; with a key that is
-- taken, that of the first delivery with this key. "recipients" overrides who gets it, whatever the mail's headers say.
--
-- It acts with its owner's rights, so that a program that may call it needs none on the tables:
--     GRANT USAGE ON SCHEMA "postrider" TO shop; GRANT EXECUTE ON FUNCTION "postrider".enqueue TO shop;
CREATE FUNCTION "postrider".enqueue(
    body          jsonb,
    key           text        DEFAULT NULL,
    priority      integer     DEFAULT 5,
    send_at       timestamptz DEFAULT NULL,
    expires_at    timestamptz DEFAULT NULL,
    when_in_doubt text        DEFAULT 'resend',
    recipients    text[]      DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    delivery uuid;
    wanted   text[] := recipients;
BEGIN
    IF wanted IS NULL THEN
        IF EXISTS (SELECT FROM (VALUES ('to'), ('cc'), ('bcc')) field (name) WHERE jsonb_typeof(enqueue.body -> field.name) <> 'array') THEN
            RAISE EXCEPTION 'the mail''s "to", "cc" and "bcc" must be arrays' USING ERRCODE = 'check_violation';
        END IF;
        -- A mailbox is 'ada@example.com', 'Ada <ada@example.com>' or {"name": "Ada", "address": "ada@example.com"}.
        SELECT array_agg(coalesce(substring(mailbox FROM '<([^<>]*)>\s*$'), btrim(mailbox))) INTO wanted
        FROM (VALUES ('to'), ('cc'), ('bcc')) field (name)
        CROSS JOIN LATERAL jsonb_array_elements(coalesce(enqueue.body -> field.name, '[]')) item
        CROSS JOIN LATERAL coalesce(item ->> 'address', item #>> '{}') mailbox;
    END IF;
    IF wanted IS NULL OR wanted = '{}' OR array_position(wanted, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'the mail names no recipient, or one without an address' USING ERRCODE = 'check_violation';
    END IF;
    -- Each once, and with the domain as the mail has it.
    SELECT array_agg(address ORDER BY place) INTO wanted
    FROM (SELECT coalesce(substring(given FROM '^(.*@)') || lower(substring(given FROM '[^@]*$')), given) AS address, min(place) AS place
          FROM unnest(wanted) WITH ORDINALITY each (given, place) GROUP BY 1) known;
    LOOP
        INSERT INTO "postrider".deliveries (format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at)
        VALUES ('email/1', enqueue.body::text, to_json(wanted), enqueue.body ->> 'template_id', enqueue.key, enqueue.priority,
                enqueue.when_in_doubt, enqueue.send_at, enqueue.expires_at)
        ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING RETURNING id INTO delivery;
        EXIT WHEN FOUND;
        -- The key is taken; unless that delivery has just been deleted.
        SELECT id INTO delivery FROM "postrider".deliveries WHERE key = enqueue.key;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN delivery;
END $$;

REVOKE ALL ON FUNCTION "postrider".enqueue FROM PUBLIC;
