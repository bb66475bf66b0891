-- The outbox, version 1. It has a schema of its own. To use another name, replace "postrider".
--
-- Data that is written once is separate from data that changes: a claim or a settlement updates the narrow row of the queue and never
-- rewrites a mail.

-- A UUID of version 7 (RFC 9562): the milliseconds since 1970 and then random digits, so that ids sort by age.
CREATE FUNCTION "postrider".new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

-- The values in the attempts. They are domains because the server caches the constraints of a domain, but reads those of a table for each
-- statement.
CREATE DOMAIN "postrider".outcome AS text CHECK (VALUE IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost'));
CREATE DOMAIN "postrider".scope AS text CHECK (VALUE IN ('message', 'sender', 'transport'));

-- One row for each delivery, written once. An insert into this table or a call of the function "enqueue" enqueues a mail. The trigger does
-- the rest, and rejects invalid rows. (Table constraints would add a tenth to the cost of enqueueing, and drivers do not know domain
-- types.) docs/sql.md defines what other programs may rely on.
CREATE TABLE "postrider".deliveries (
    id            uuid        NOT NULL PRIMARY KEY DEFAULT "postrider".new_id(), -- version 7
    created_at    timestamptz NOT NULL DEFAULT now(),
    format        text        NOT NULL,                     -- 'email/1'
    body          text        NOT NULL,                     -- the message, in that format: at most 64 MiB
    recipients    json        NOT NULL,                     -- an array of 1 to 10,000 addresses of at most 700 characters
    template_id   text,                                     -- at most 255 characters
    key           text,                                     -- the caller's idempotency key: 1 to 255 characters
    priority      smallint    NOT NULL DEFAULT 5,           -- 0 to 9
    when_in_doubt text        NOT NULL DEFAULT 'resend',    -- or 'hold'
    send_at       timestamptz,                              -- not sent before this time; NULL: at once
    expires_at    timestamptz                               -- not sent after this time; NULL: the relay's policy decides
);

-- The server compresses bodies longer than about 2 KiB. lz4 takes a tenth of the time of the default method. It exists since version 14, if
-- the server was built with it.
DO $$ BEGIN
    EXECUTE 'ALTER TABLE "postrider".deliveries ALTER COLUMN body SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
    NULL;
END $$;

CREATE UNIQUE INDEX deliveries_key ON "postrider".deliveries (key) WHERE key IS NOT NULL;

-- The pending and leased deliveries. A delivery that is neither here nor in "ended" was sent by its last attempt.
--
-- A claim changes no indexed column, so its update is heap-only (HOT), and half-empty pages leave room for it. The order of the columns
-- avoids padding. The columns that a claim sets already have their space in the row, except one.
CREATE TABLE "postrider".queue (
    delivery_id      uuid        NOT NULL PRIMARY KEY,
    priority         smallint    NOT NULL,
    partial          boolean     NOT NULL DEFAULT false,    -- "recipients" has rows of this delivery
    size             integer     NOT NULL DEFAULT 0,        -- size of the mail's body in octets, for the byte limit of claims
    due_at           timestamptz NOT NULL,
    lease_until      timestamptz NOT NULL DEFAULT '-infinity', -- the end of the lease
    leased_at        timestamptz,                           -- set while a relay holds it
    leased_by        bigint      NOT NULL DEFAULT 0,        -- the id of the claim
    abandoned_at     timestamptz,                           -- leased_at of the previous holder, if its lease expired
    token            bigint      NOT NULL DEFAULT -1,       -- grows with each claim; while no relay holds the row, it is
                                                            -- -1 minus the last token, which no settlement matches
    attempts         integer     NOT NULL DEFAULT 0,        -- number of attempts over the life of the delivery
    cycle            integer     NOT NULL DEFAULT 1,
    spent            integer     NOT NULL DEFAULT 0,        -- attempts charged to the budget of this cycle
    cycle_started_at timestamptz NOT NULL,
    expires_at       timestamptz
) WITH (fillfactor = 50);

-- With the id, because all deliveries of one transaction may have the same due time.
CREATE INDEX queue_due ON "postrider".queue (priority, due_at, delivery_id);

-- Deliveries that ended in another way than by the attempt that sent them.
CREATE TABLE "postrider".ended (
    delivery_id uuid        NOT NULL PRIMARY KEY,
    state       text        NOT NULL CHECK (state IN ('sent', 'dead', 'in_doubt', 'cancelled')),
    reason      text,
    ended_at    timestamptz NOT NULL,
    token       bigint      NOT NULL,                       -- the last one: a resend continues it
    attempts    integer     NOT NULL,
    cycle       integer     NOT NULL
);

CREATE INDEX ended_state ON "postrider".ended (state, delivery_id);

-- The attempts: all calls of a transport.
CREATE TABLE "postrider".attempts (
    delivery_id     uuid        NOT NULL,
    number          integer     NOT NULL,                   -- from 1 on, over the life of the delivery
    cycle           integer     NOT NULL,
    token           bigint      NOT NULL,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz NOT NULL,
    outcome         "postrider".outcome NOT NULL,
    scope           "postrider".scope,                      -- whose condition the failure is; NULL: none or unknown
    sure            boolean     NOT NULL DEFAULT true,      -- a rule or the transport's author supports outcome and scope
    charged         boolean     NOT NULL DEFAULT true,      -- counts against the budget
    note            text,                                   -- the reason for the relay's decision
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

-- The reports of running relays.
CREATE TABLE "postrider".relays (
    id        text        NOT NULL PRIMARY KEY,
    seen_at   timestamptz NOT NULL,
    in_flight bigint      NOT NULL,
    paused    text
);

-- When relays were last notified, in fiftieths of a second. It is a sequence because that can be read and set without a lock and outside
-- the transaction.
CREATE SEQUENCE "postrider".bell MINVALUE 0 START 0;

-- Raises an error that names the rule which a new delivery breaks.
CREATE FUNCTION "postrider".refuse(
    format text, octets integer, recipients json, template_id text, key text, priority smallint, when_in_doubt text, times timestamptz[]
) RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    broken text := CASE
        WHEN char_length(format) > 64 THEN 'format: more than 64 characters'
        WHEN octets > 67108864 THEN 'body: more than 64 MiB'
        WHEN json_typeof(recipients) <> 'array' THEN 'recipients: no array'
        WHEN json_array_length(recipients) = 0 THEN 'recipients: nobody'
        WHEN json_array_length(recipients) > 10000 THEN 'recipients: more than 10,000'
        WHEN strpos(recipients::text, '\u0000') > 0 THEN 'recipients: NUL has no place in a text'
        WHEN EXISTS (SELECT FROM json_array_elements(recipients) item WHERE json_typeof(item) <> 'string') THEN 'recipients: no text'
        WHEN EXISTS (SELECT FROM json_array_elements_text(recipients) address WHERE char_length(address) > 700)
            THEN 'recipients: an address has more than 700 characters'
        WHEN format = 'email/1' AND EXISTS (SELECT FROM json_array_elements_text(recipients) address WHERE address NOT LIKE '_%@_%')
            THEN 'recipients: not all are addresses'
        WHEN char_length(template_id) > 255 THEN 'template_id: more than 255 characters'
        WHEN char_length(key) NOT BETWEEN 1 AND 255 THEN 'key: not 1 to 255 characters'
        WHEN priority NOT BETWEEN 0 AND 9 THEN 'priority: not 0 to 9'
        WHEN when_in_doubt NOT IN ('resend', 'hold') THEN 'when_in_doubt: neither resend nor hold'
        WHEN EXISTS (SELECT FROM unnest(times) moment WHERE moment = '-infinity' OR moment >= '200000-01-01')
            THEN 'created_at, send_at or expires_at: out of range'
    END;
BEGIN
    -- The plain look at long lists is rough: this one is exact.
    IF broken IS NULL THEN
        RETURN octets;
    END IF;
    RAISE EXCEPTION 'the delivery breaks a rule: %', broken
        USING ERRCODE = 'check_violation', COLUMN = split_part(split_part(broken, ':', 1), ',', 1), TABLE = 'deliveries';
END $$;

REVOKE ALL ON FUNCTION "postrider".refuse FROM PUBLIC;

-- Puts new deliveries into the queue and notifies relays, at most fifty times a second, since notifications take one global lock of the
-- server at commit. A notified relay polls several times in the next half second, and so finds commits without a notification of their own.
-- The function runs with the rights of its owner, so that a program needs only INSERT to enqueue.
CREATE FUNCTION "postrider".take_in() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present bigint := floor(date_part('epoch', clock_timestamp()) * 50);
BEGIN
    INSERT INTO "postrider".queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    SELECT id, priority,
           CASE WHEN octet_length(body) <= 67108864 AND priority BETWEEN 0 AND 9 AND when_in_doubt IN ('resend', 'hold')
                 AND char_length(format) <= 64 AND (key IS NULL OR char_length(key) BETWEEN 1 AND 255)
                 AND (template_id IS NULL OR char_length(template_id) <= 255)
                 AND created_at > '-infinity' AND created_at < '200000-01-01'
                 AND (send_at IS NULL OR send_at > '-infinity' AND send_at < '200000-01-01')
                 AND (expires_at IS NULL OR expires_at > '-infinity' AND expires_at < '200000-01-01')
                 -- One short address, as nearly all have it; what else there is, is looked at more closely.
                 AND recipients::text ~ '^\["[^"\\]+@[^"\\]+"\]$' AND octet_length(recipients::text) <= 700
           THEN octet_length(body)
           ELSE "postrider".refuse(format, octet_length(body), recipients, template_id, key, priority, when_in_doubt,
                                   ARRAY[created_at, send_at, expires_at]) END,
           coalesce(send_at, created_at), greatest(send_at, created_at), expires_at
    FROM added;
    IF pg_sequence_last_value('"postrider".bell') IS DISTINCT FROM present THEN
        PERFORM setval('"postrider".bell', present);
        PERFORM pg_notify('postrider:postrider', '');
    END IF;
    RETURN NULL;
END $$;

-- Other users must not attach it to a table of their own and so write into the queue.
REVOKE ALL ON FUNCTION "postrider".take_in FROM PUBLIC;

-- Deleting a delivery deletes all its other rows. (Foreign keys would do the same, but lock a row for each mail that is enqueued.) The
-- function runs with the rights of its owner, so that a user needs only DELETE on "deliveries", and no other user may attach it to a table.
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

-- Truncating the table empties the whole outbox.
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

-- The address of a mailbox: 'ada@example.com', 'Ada <ada@example.com>' or {"name": "Ada", "address": "ada@example.com"}. NULL if it is none
-- of these or has several addresses. A quoted part may contain anything.
CREATE FUNCTION "postrider".address(mailbox jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    given text := CASE jsonb_typeof(mailbox) WHEN 'object' THEN mailbox ->> 'address' WHEN 'string' THEN mailbox #>> '{}' END;
    plain text := regexp_replace(given, '"([^"\\]|\\.)*"', '""', 'g');
BEGIN
    IF plain ~ '^\s*[^<>,;@\s]+@[^<>,;@\s]+\s*$' THEN
        RETURN btrim(given, E' \t\r\n');
    ELSIF jsonb_typeof(mailbox) = 'string' AND plain ~ '^[^<>@]*<[^<>,;@\s]+@[^<>,;@\s]+>\s*$' THEN
        RETURN substring(given FROM '<([^<>]*)>\s*$');
    END IF;
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION "postrider".address FROM PUBLIC;

-- Enqueues a mail for all recipients that it names, in the open transaction, and returns the id of the delivery. If the key exists, it
-- returns the id of the first delivery with this key. "recipients" replaces the recipients of the mail's headers. An invalid mail is an
-- error at once, instead of a dead letter later.
--
-- It runs with the rights of its owner, so that a program with the right to call it needs no rights on the tables:
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
    named    text[];
    wanted   text[];
    wrong    text;
BEGIN
    IF jsonb_typeof(enqueue.body) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the mail is no JSON object' USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    SELECT min(name) INTO wrong FROM jsonb_object_keys(enqueue.body) name
    WHERE name NOT IN ('from', 'sender', 'to', 'cc', 'bcc', 'reply_to', 'subject', 'text', 'html', 'attachments', 'headers', 'tags',
                       'metadata', 'template_id', 'list_unsubscribe', 'envelope_from');
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the mail has a field that is not known: "%"', wrong USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    SELECT min(name) INTO wrong FROM unnest(ARRAY['to', 'cc', 'bcc', 'reply_to', 'attachments', 'headers', 'tags']) name
    WHERE jsonb_typeof(enqueue.body -> name) <> 'array';
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the mail''s "%" must be an array', wrong USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    IF NOT enqueue.body ? 'from' OR NOT enqueue.body ?| ARRAY['text', 'html'] THEN
        RAISE EXCEPTION 'the mail must have a "from", and a "text" or "html"' USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    SELECT array_agg(address ORDER BY place, nth) FILTER (WHERE field IN ('to', 'cc', 'bcc')),
           min(format('"%s", entry %s', field, nth)) FILTER (WHERE address IS NULL)
    INTO named, wrong
    FROM (VALUES ('from', 0), ('sender', 0), ('to', 1), ('cc', 2), ('bcc', 3), ('reply_to', 4)) known (field, place)
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN place > 0 THEN coalesce(enqueue.body -> field, '[]') ELSE jsonb_build_array(enqueue.body -> field) END)
        WITH ORDINALITY entry (mailbox, nth)
    CROSS JOIN LATERAL "postrider".address(mailbox) address
    WHERE enqueue.body ? field;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the mail has something in the place of a mailbox that is none, or several: %', wrong
            USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    wanted := coalesce(enqueue.recipients, named);
    IF wanted IS NULL OR wanted = '{}' OR array_position(wanted, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'the mail names no recipient, or one without an address' USING ERRCODE = 'check_violation', COLUMN = 'recipients';
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
