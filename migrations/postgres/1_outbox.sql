-- The outbox, version 1. It has a schema of its own. To use another name, replace "postrider".
--
-- Data that is written once is separate from data that changes: a claim or a settlement updates the narrow row of the queue and never
-- rewrites a mail.

-- A UUID of version 7 (RFC 9562): the milliseconds since 1970 and then random digits, so that ids sort by age.
CREATE FUNCTION "postrider".new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

-- The values of two columns of "attempts". They are domains because the server caches the constraints of a domain, but reads those of a
-- table for each statement.
CREATE DOMAIN "postrider".outcome AS text CHECK (VALUE IN ('sent', 'transient', 'permanent', 'in_doubt', 'lost'));
CREATE DOMAIN "postrider".scope AS text CHECK (VALUE IN ('message', 'sender', 'transport'));

-- One row for each delivery: everything but the message. Only a deletion or an erasure updates it. It stays when the message is deleted.
--
-- The rules for these columns are checked where other programs insert, in "enqueue_delivery" below. (Constraints would cost a tenth of
-- what it costs to enqueue a mail.)
CREATE TABLE "postrider".deliveries (
    id            uuid        NOT NULL PRIMARY KEY,         -- version 7
    created_at    timestamptz NOT NULL DEFAULT now(),
    send_at       timestamptz,                              -- not before; NULL: at once
    expires_at    timestamptz,                              -- not after; NULL: as long as the relay's policy says
    key_until     timestamptz,                              -- deleted, and its key stays taken until then; NULL: not deleted
    priority      smallint    NOT NULL DEFAULT 5,           -- 0 to 9
    when_in_doubt text        NOT NULL DEFAULT 'resend',    -- or 'hold'
    recipients    json        NOT NULL,                     -- an array of 1 to 10,000 addresses of at most 700 characters
    subject       text,
    template_id   text,                                     -- at most 255 characters
    tags          json,                                     -- an array of texts; NULL: none
    key           text                                      -- the caller's idempotency key: 1 to 255 characters
);

CREATE UNIQUE INDEX deliveries_key ON "postrider".deliveries (key) WHERE key IS NOT NULL;

-- The deliveries that are kept for their keys alone.
CREATE INDEX deliveries_key_until ON "postrider".deliveries (key_until) WHERE key_until IS NOT NULL;

-- Finds a delivery by its first recipient, and, by the start of the reversed address, by the domain.
CREATE INDEX deliveries_recipient ON "postrider".deliveries (reverse(lower(recipients ->> 0)) COLLATE "C", id);

-- The messages. They have a table of their own, so that they can be deleted without the history.
CREATE TABLE "postrider".bodies (
    delivery_id   uuid        NOT NULL PRIMARY KEY,
    blobs         smallint    NOT NULL DEFAULT 0,           -- how many rows of "body_blobs" belong to it
    format        text        NOT NULL,                     -- 'email/1'
    body          text        NOT NULL,                     -- the message, in that format
    text          text,                                     -- the plain text and the HTML, if they are not in the body
    html          text
);

-- Large attachments, each once, whichever messages carry it.
CREATE TABLE "postrider".blobs (
    hash          bytea       NOT NULL PRIMARY KEY,         -- SHA-256
    content       bytea       NOT NULL
);

-- Which messages carry which blobs. The foreign key locks a blob against its deletion until the enqueueing transaction ends.
CREATE TABLE "postrider".body_blobs (
    delivery_id   uuid        NOT NULL,
    hash          bytea       NOT NULL REFERENCES "postrider".blobs,
    PRIMARY KEY (delivery_id, hash)
);

CREATE INDEX body_blobs_hash ON "postrider".body_blobs (hash);

-- The server compresses values above about 2 KiB. lz4 takes a tenth of the time of pglz, the default. It exists since version 14, if the
-- server was built with it. Attachments are stored as they are, since most are compressed already.
ALTER TABLE "postrider".blobs ALTER COLUMN content SET STORAGE EXTERNAL;
DO $$ BEGIN
    EXECUTE 'ALTER TABLE "postrider".bodies ALTER COLUMN body SET COMPRESSION lz4, ALTER COLUMN text SET COMPRESSION lz4,
        ALTER COLUMN html SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
    NULL;
END $$;

-- The pending and leased deliveries. A delivery that is neither here nor in "ended" was sent by its last attempt.
--
-- A claim changes no indexed column, so its update is heap-only (HOT), and half-empty pages leave room for it. The order of the columns
-- avoids padding. Of the columns that a claim sets, all but "leased_at" and "abandoned_at" already have their space in the row.
CREATE TABLE "postrider".queue (
    delivery_id      uuid        NOT NULL PRIMARY KEY,
    priority         smallint    NOT NULL,
    has_outcomes     boolean     NOT NULL DEFAULT false,    -- "recipients" has outcomes of this delivery
    size             integer     NOT NULL DEFAULT 0,        -- size of the stored message in octets, for the byte limit of claims
    due_at           timestamptz NOT NULL,
    lease_until      timestamptz NOT NULL DEFAULT '-infinity', -- the end of the lease
    leased_at        timestamptz,                           -- set while a relay holds it
    leased_by        bigint      NOT NULL DEFAULT 0,        -- the id of the claim
    abandoned_at     timestamptz,                           -- leased_at of the previous holder, if its lease expired
    token            bigint      NOT NULL DEFAULT -1,       -- grows with each claim; while no relay holds the row, it is
                                                            -- -1 minus the last token, which no settlement matches
    attempts         integer     NOT NULL DEFAULT 0,        -- number of attempts over the life of the delivery
    cycle            integer     NOT NULL DEFAULT 1,
    charged_attempts integer     NOT NULL DEFAULT 0,        -- attempts charged to the budget of this cycle
    cycle_started_at timestamptz NOT NULL,
    expires_at       timestamptz
) WITH (fillfactor = 50);

-- The index ends with the id, because all deliveries of one transaction may have the same due time.
CREATE INDEX queue_due ON "postrider".queue (priority, due_at, delivery_id);

-- How a delivery ended. A delivery that its last attempt sent has no row here.
CREATE TABLE "postrider".ended (
    delivery_id uuid        NOT NULL PRIMARY KEY,
    state       text        NOT NULL,                       -- 'sent', 'dead', 'in_doubt' or 'cancelled'
    reason      text,
    ended_at    timestamptz NOT NULL,
    token       bigint      NOT NULL,                       -- the last one: a resend continues it
    attempts    integer     NOT NULL,
    cycle       integer     NOT NULL
);

CREATE INDEX ended_state ON "postrider".ended (state, delivery_id);

-- One row for each attempt: a call of the transport, one that was lost with its relay, or one that ended before the call because the
-- message could not be read.
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

CREATE INDEX attempts_provider_id ON "postrider".attempts (provider_id) WHERE provider_id IS NOT NULL;

-- One row for each recipient after the first, and for each recipient whose outcome differs from the delivery's.
CREATE TABLE "postrider".recipients (
    delivery_id uuid NOT NULL,
    address     text NOT NULL,
    outcome     text,                                       -- 'sent', 'refused', 'in_doubt' or 'dead'; NULL: as the delivery's
    reply       text,
    PRIMARY KEY (delivery_id, address)
);

CREATE INDEX recipients_address ON "postrider".recipients (reverse(lower(address)) COLLATE "C", delivery_id);

-- The number of deliveries in each final state, since counting the deliveries would read all of them. It is the sum over 32 slots. Each
-- connection of a relay adds to one of the first 16, so that relays seldom wait for each other. Operators and deletions use the others.
CREATE TABLE "postrider".totals (
    state text     NOT NULL,
    slot  smallint NOT NULL,
    count bigint   NOT NULL,
    PRIMARY KEY (state, slot)
) WITH (fillfactor = 50);

-- How often each event happened in each hour: the outcomes of attempts, and the ends of deliveries other than sent.
CREATE TABLE "postrider".hourly (
    hour      timestamptz NOT NULL,
    event     text        NOT NULL,
    transport text        NOT NULL,                         -- '': none was called
    slot      smallint    NOT NULL,
    count     bigint      NOT NULL,
    PRIMARY KEY (hour, event, transport, slot)
) WITH (fillfactor = 50);

-- The reports of running relays.
CREATE TABLE "postrider".relays (
    id        text        NOT NULL PRIMARY KEY,
    seen_at   timestamptz NOT NULL,
    in_flight bigint      NOT NULL,
    paused    text
);

-- The leader of each task that one relay does at a time, and the end of its term.
CREATE TABLE "postrider".leaders (
    task  text        NOT NULL PRIMARY KEY,
    relay text        NOT NULL,
    until timestamptz NOT NULL
);

-- One readable row for each delivery, the newest first, for people with psql. docs/sql.md describes the columns. A query for the newest
-- rows, for an id or for a key reads only the rows that it returns.
CREATE VIEW "postrider".mail AS
    SELECT d.id,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state,
           coalesce(last.number, q.attempts, e.attempts, 0) AS attempts,
           d.recipients ->> 0 AS recipient, json_array_length(d.recipients) AS recipients, d.subject,
           coalesce(e.reason, last.error) AS last_error,
           CASE WHEN q.leased_at IS NULL THEN date_trunc('second', q.due_at) END AS next_attempt_at,
           -- The upper 24 bits of a claim's id are the last 24 bits of its relay's id.
           CASE WHEN q.leased_at IS NOT NULL THEN lpad(to_hex(q.leased_by >> 39), 6, '0') END AS leased_by,
           CASE WHEN q.leased_at IS NOT NULL THEN date_trunc('second', q.lease_until) END AS leased_until,
           date_trunc('second', d.created_at) AS enqueued_at,
           CASE WHEN q.delivery_id IS NULL THEN date_trunc('second', coalesce(e.ended_at, last.finished_at)) END AS finished_at,
           last.transport, last.provider_id, last.reply AS last_reply, d.template_id, d.tags, d.key, d.priority,
           date_trunc('second', d.expires_at) AS expires_at
    FROM "postrider".deliveries d
    LEFT JOIN "postrider".queue q ON q.delivery_id = d.id
    LEFT JOIN "postrider".ended e ON e.delivery_id = d.id
    LEFT JOIN LATERAL (
        SELECT * FROM "postrider".attempts a WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1) last ON true
    WHERE d.key_until IS NULL
    ORDER BY d.id DESC;

-- The number of deliveries in each state, with the earliest due time of the pending ones and the earliest claim of the leased ones.
CREATE VIEW "postrider".overview AS
    SELECT 'pending' AS state, count(*) AS deliveries, date_trunc('second', min(due_at)) AS oldest FROM "postrider".queue WHERE leased_at IS NULL
    UNION ALL
    SELECT 'leased', count(*), date_trunc('second', min(leased_at)) FROM "postrider".queue WHERE leased_at IS NOT NULL
    UNION ALL
    SELECT s.state, coalesce((SELECT sum(t.count)::bigint FROM "postrider".totals t WHERE t.state = s.state), 0), NULL
    FROM (VALUES ('sent'), ('dead'), ('in_doubt'), ('cancelled')) s (state);

-- When relays were last notified, in fiftieths of a second. It is a sequence, because a sequence can be read and set without a lock and
-- outside the transaction.
CREATE SEQUENCE "postrider".last_notified MINVALUE 0 START 0;

-- Notifies relays, at most fifty times a second, since notifications take one global lock of the server at commit. A notified relay polls
-- several times in the next half second, and so finds commits without a notification of their own.
CREATE FUNCTION "postrider".notify_relays() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present bigint := floor(date_part('epoch', clock_timestamp()) * 50);
BEGIN
    IF pg_sequence_last_value('"postrider".last_notified') IS DISTINCT FROM present THEN
        PERFORM setval('"postrider".last_notified', present);
        PERFORM pg_notify('postrider:postrider', '');
    END IF;
END $$;

REVOKE ALL ON FUNCTION "postrider".notify_relays FROM PUBLIC;

-- The library enqueues by the two functions below. They check nothing. They run with the rights of their owner, so that a program needs
-- only EXECUTE to enqueue.

-- Enqueues one delivery without large attachments, and returns its id. If the key is taken, it returns the id of the delivery that has it.
-- "others" are the recipients after the first, each once.
CREATE FUNCTION "postrider".insert_delivery(
    moment timestamptz, new_id uuid, new_format text, new_body text, new_text text, new_html text, new_size integer, new_recipients text,
    others text[], new_subject text, new_template text, new_tags text, new_key text, new_priority smallint, new_in_doubt text,
    due_after boolean, due bigint, expires_after boolean, expires bigint
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    enqueued timestamptz := coalesce(moment, now());
    send_at  timestamptz := CASE WHEN due IS NOT NULL
        THEN CASE WHEN due_after THEN enqueued ELSE 'epoch'::timestamptz END + due * interval '1 microsecond' END;
    expiry   timestamptz := CASE WHEN expires IS NOT NULL
        THEN CASE WHEN expires_after THEN enqueued ELSE 'epoch'::timestamptz END + expires * interval '1 microsecond' END;
    existing uuid;
    other    text;
    present  bigint := floor(date_part('epoch', clock_timestamp()) * 50);
BEGIN
    -- An insert that may find its key taken writes more to the log.
    IF new_key IS NULL THEN
        INSERT INTO "postrider".deliveries
            (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags)
        VALUES (new_id, enqueued, send_at, expiry, new_priority, new_in_doubt, new_recipients::json, new_subject, new_template,
                new_tags::json);
    ELSE
        LOOP
            INSERT INTO "postrider".deliveries
                (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key)
            VALUES (new_id, enqueued, send_at, expiry, new_priority, new_in_doubt, new_recipients::json, new_subject, new_template,
                    new_tags::json, new_key)
            ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING;
            EXIT WHEN FOUND;
            -- If that delivery was deleted a moment ago, insert again.
            SELECT d.id INTO existing FROM "postrider".deliveries d WHERE d.key = new_key;
            IF FOUND THEN
                RETURN existing;
            END IF;
        END LOOP;
    END IF;
    INSERT INTO "postrider".bodies (delivery_id, format, body, text, html) VALUES (new_id, new_format, new_body, new_text, new_html);
    -- One insert each is faster for a few.
    IF cardinality(others) < 5 THEN
        FOREACH other IN ARRAY others LOOP
            INSERT INTO "postrider".recipients (delivery_id, address) VALUES (new_id, other);
        END LOOP;
    ELSIF others IS NOT NULL THEN
        INSERT INTO "postrider".recipients (delivery_id, address) SELECT new_id, r.address FROM unnest(others) r (address);
    END IF;
    INSERT INTO "postrider".queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (new_id, new_priority, new_size, coalesce(send_at, enqueued), greatest(send_at, enqueued), expiry);
    -- As "notify_relays" does. A call of that function would cost a twentieth of the time.
    IF pg_sequence_last_value('"postrider".last_notified') IS DISTINCT FROM present THEN
        PERFORM setval('"postrider".last_notified', present);
        PERFORM pg_notify('postrider:postrider', '');
    END IF;
    RETURN new_id;
END $$;

REVOKE ALL ON FUNCTION "postrider".insert_delivery FROM PUBLIC;

-- Enqueues any number of deliveries, from an array for each column. A null array means the default value in every row, which saves time.
-- "other_ids" and "other_addresses" are the recipients after the first of each delivery, each once. "carrier_ids" and "carried" are the
-- hashes of its blobs, which must exist.
--
-- It skips a delivery whose key is taken, and returns the ids of the others, or null if it enqueued all.
CREATE FUNCTION "postrider".insert_deliveries(
    moment timestamptz, ids uuid[], formats text[], bodies text[], texts text[], htmls text[], sizes integer[], content_counts smallint[],
    recipients text[], subjects text[], templates text[], tag_lists text[], keys text[], priorities smallint[], when_in_doubts text[],
    due_after boolean[], due bigint[], expires_after boolean[], expires bigint[],
    other_ids uuid[], other_addresses text[], carrier_ids uuid[], carried bytea[]
) RETURNS uuid[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    enqueued timestamptz := coalesce(moment, now());
    added    uuid[];
BEGIN
    -- An insert that may find a key taken writes more to the log.
    IF keys IS NULL THEN
        INSERT INTO "postrider".deliveries
            (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags)
        SELECT r.id, enqueued,
               CASE WHEN r.after THEN enqueued ELSE 'epoch'::timestamptz END + r.due * interval '1 microsecond',
               CASE WHEN r.ends_after THEN enqueued ELSE 'epoch'::timestamptz END + r.ends * interval '1 microsecond',
               coalesce(r.priority, 5), coalesce(r.doubt, 'resend'), r.recipients::json, r.subject, r.template, r.tags::json
        FROM unnest(ids, due_after, due, expires_after, expires, priorities, when_in_doubts, insert_deliveries.recipients, subjects, templates,
                    tag_lists)
            r (id, after, due, ends_after, ends, priority, doubt, recipients, subject, template, tags);
    ELSE
        -- In the order of the keys, so that two transactions cannot deadlock.
        WITH new AS (
            INSERT INTO "postrider".deliveries AS d
                (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key)
            SELECT r.id, enqueued,
                   CASE WHEN r.after THEN enqueued ELSE 'epoch'::timestamptz END + r.due * interval '1 microsecond',
                   CASE WHEN r.ends_after THEN enqueued ELSE 'epoch'::timestamptz END + r.ends * interval '1 microsecond',
                   coalesce(r.priority, 5), coalesce(r.doubt, 'resend'), r.recipients::json, r.subject, r.template, r.tags::json, r.key
            FROM unnest(ids, due_after, due, expires_after, expires, priorities, when_in_doubts, insert_deliveries.recipients, subjects,
                        templates, tag_lists, keys)
                r (id, after, due, ends_after, ends, priority, doubt, recipients, subject, template, tags, key)
            ORDER BY r.key
            ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
            RETURNING d.id)
        SELECT CASE WHEN count(*) < cardinality(ids) THEN coalesce(array_agg(new.id), '{}') END INTO added FROM new;
    END IF;
    INSERT INTO "postrider".bodies (delivery_id, blobs, format, body, text, html)
    SELECT r.id, coalesce(r.blobs, 0), coalesce(r.format, 'email/1'), r.body, r.text, r.html
    FROM unnest(ids, content_counts, formats, insert_deliveries.bodies, texts, htmls) r (id, blobs, format, body, text, html)
    WHERE added IS NULL OR r.id = ANY (added);
    INSERT INTO "postrider".queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    SELECT r.id, coalesce(r.priority, 5), r.size, coalesce(r.send_at, enqueued), greatest(r.send_at, enqueued),
           CASE WHEN r.ends_after THEN enqueued ELSE 'epoch'::timestamptz END + r.ends * interval '1 microsecond'
    FROM (SELECT *, CASE WHEN u.after THEN enqueued ELSE 'epoch'::timestamptz END + u.due * interval '1 microsecond' AS send_at
          FROM unnest(ids, sizes, priorities, due_after, due, expires_after, expires) u (id, size, priority, after, due, ends_after, ends)) r
    WHERE added IS NULL OR r.id = ANY (added);
    IF other_ids IS NOT NULL THEN
        INSERT INTO "postrider".recipients (delivery_id, address)
        SELECT r.id, r.address FROM unnest(other_ids, other_addresses) r (id, address)
        WHERE added IS NULL OR r.id = ANY (added);
    END IF;
    IF carrier_ids IS NOT NULL THEN
        INSERT INTO "postrider".body_blobs (delivery_id, hash)
        SELECT r.id, r.hash FROM unnest(carrier_ids, carried) r (id, hash)
        WHERE added IS NULL OR r.id = ANY (added);
    END IF;
    IF added IS NULL OR added <> '{}' THEN
        PERFORM "postrider".notify_relays();
    END IF;
    RETURN added;
END $$;

REVOKE ALL ON FUNCTION "postrider".insert_deliveries FROM PUBLIC;

-- The view into which other programs insert: each row becomes a delivery. docs/sql.md says what they may rely on.
CREATE VIEW "postrider".outbox AS
    SELECT d.id, d.created_at, b.format, b.body, b.text, b.html, d.recipients, d.template_id, d.key, d.priority, d.when_in_doubt, d.send_at, d.expires_at
    FROM "postrider".deliveries d JOIN "postrider".bodies b ON b.delivery_id = d.id;

-- Refuses a row that breaks a rule, and names the rule. Otherwise it writes the delivery, its message and its place in the queue, and
-- notifies relays.
--
-- It skips a row whose key is taken. It runs with its owner's rights, so that a program needs only the right to insert into the view.
CREATE FUNCTION "postrider".enqueue_delivery() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    octets  bigint := octet_length(NEW.body)::bigint + coalesce(octet_length(NEW.text), 0) + coalesce(octet_length(NEW.html), 0);
    email   json;
    subject text;
    tags    json;
    broken  text;
    several boolean;
BEGIN
    NEW.id := coalesce(NEW.id, "postrider".new_id());
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.priority := coalesce(NEW.priority, 5);
    NEW.when_in_doubt := coalesce(NEW.when_in_doubt, 'resend');
    broken := CASE
        WHEN NEW.format IS NULL OR char_length(NEW.format) > 64 THEN 'format: missing, or more than 64 characters'
        WHEN NEW.body IS NULL OR octets > 67108864 THEN 'body: missing, or more than 64 MiB with text and HTML'
        WHEN char_length(NEW.template_id) > 255 THEN 'template_id: more than 255 characters'
        WHEN char_length(NEW.key) NOT BETWEEN 1 AND 255 THEN 'key: not 1 to 255 characters'
        WHEN NEW.priority NOT BETWEEN 0 AND 9 THEN 'priority: not 0 to 9'
        WHEN NEW.when_in_doubt NOT IN ('resend', 'hold') THEN 'when_in_doubt: neither resend nor hold'
        WHEN EXISTS (SELECT FROM unnest(ARRAY[NEW.created_at, NEW.send_at, NEW.expires_at]) moment
                     WHERE moment = '-infinity' OR moment >= '10000-01-01')
            THEN 'created_at, send_at or expires_at: out of range'
    END;
    -- Nearly every row has one short address, and needs no further check.
    several := NEW.recipients IS NULL OR octet_length(NEW.recipients::text) > 700 OR NEW.recipients::text !~ '^\["[^"\\]+@[^"\\]+"\]$';
    IF broken IS NULL AND several THEN
        BEGIN
            broken := CASE
                WHEN NEW.recipients IS NULL OR json_typeof(NEW.recipients) <> 'array' THEN 'recipients: not an array'
                WHEN json_array_length(NEW.recipients) = 0 THEN 'recipients: an empty array'
                WHEN json_array_length(NEW.recipients) > 10000 THEN 'recipients: more than 10,000'
                WHEN strpos(NEW.recipients::text, '\u0000') > 0 THEN 'recipients: an address contains NUL'
                WHEN EXISTS (SELECT FROM json_array_elements(NEW.recipients) item WHERE json_typeof(item) <> 'string') THEN 'recipients: an entry is not a string'
                WHEN EXISTS (SELECT FROM json_array_elements_text(NEW.recipients) address WHERE char_length(address) > 700)
                    THEN 'recipients: an address has more than 700 characters'
                WHEN NEW.format = 'email/1' AND EXISTS (SELECT FROM json_array_elements_text(NEW.recipients) address WHERE address NOT LIKE '_%@_%')
                    THEN 'recipients: an entry is not an address'
            END;
        EXCEPTION WHEN invalid_text_representation OR untranslatable_character THEN
            broken := 'recipients: an invalid string: ' || SQLERRM;
        END;
    END IF;
    -- A block that catches errors takes a tenth of the insert's time. A body without an escape needs none: PostgreSQL's own error says what
    -- is not JSON.
    IF broken IS NULL AND NEW.format = 'email/1' AND strpos(NEW.body, '\u') = 0 THEN
        email := NEW.body::json;
        tags := email -> 'tags';
        subject := email ->> 'subject';
    ELSIF broken IS NULL AND NEW.format = 'email/1' THEN
        BEGIN
            email := NEW.body::json;
            tags := email -> 'tags';
            subject := email ->> 'subject';
        EXCEPTION
            -- JSON can name characters that this database cannot store. Such a mail is sent, but is not found by its subject.
            WHEN untranslatable_character THEN NULL;
            WHEN invalid_text_representation THEN broken := 'body: not JSON: ' || SQLERRM;
        END;
    END IF;
    IF broken IS NULL AND json_typeof(email) <> 'object' THEN
        broken := 'body: not a JSON object';
    END IF;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'the delivery breaks a rule: %', broken
            USING ERRCODE = 'check_violation', COLUMN = split_part(split_part(broken, ':', 1), ',', 1), TABLE = 'outbox';
    END IF;
    IF json_typeof(tags) IS DISTINCT FROM 'array' OR json_array_length(tags) = 0 OR strpos(tags::text, '\u0000') > 0 THEN
        tags := NULL;
    END IF;
    INSERT INTO "postrider".deliveries
        (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key)
    VALUES (NEW.id, NEW.created_at, NEW.send_at, NEW.expires_at, NEW.priority, NEW.when_in_doubt, NEW.recipients, subject, NEW.template_id,
            tags, NEW.key)
    ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO "postrider".bodies (delivery_id, format, body, text, html) VALUES (NEW.id, NEW.format, NEW.body, NEW.text, NEW.html);
    IF several THEN
        INSERT INTO "postrider".recipients (delivery_id, address)
        SELECT NEW.id, address FROM json_array_elements_text(NEW.recipients) WITH ORDINALITY item (address, place) WHERE place > 1
        ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO "postrider".queue (delivery_id, priority, size, due_at, cycle_started_at, expires_at)
    VALUES (NEW.id, NEW.priority, octets, coalesce(NEW.send_at, NEW.created_at), greatest(NEW.send_at, NEW.created_at), NEW.expires_at);
    PERFORM "postrider".notify_relays();
    RETURN NEW;
END $$;

-- Nobody else may attach it to a table of their own and so write into the queue.
REVOKE ALL ON FUNCTION "postrider".enqueue_delivery FROM PUBLIC;

CREATE TRIGGER enqueue_delivery INSTEAD OF INSERT ON "postrider".outbox
    FOR EACH ROW EXECUTE FUNCTION "postrider".enqueue_delivery();

-- Deleting a delivery deletes all its other rows. (Foreign keys would do the same, but lock a row for each mail that is enqueued.) The
-- function runs with its owner's rights, so that the right to delete a delivery is enough. Nobody else may attach it to a table.
CREATE FUNCTION "postrider".forget_delivery() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO "postrider".totals AS t (state, slot, count)
    SELECT coalesce(e.state, 'sent'), pg_backend_pid() % 16 + 16, -count(*)
    FROM gone LEFT JOIN "postrider".ended e ON e.delivery_id = gone.id
    WHERE gone.key_until IS NULL AND NOT EXISTS (SELECT FROM "postrider".queue q WHERE q.delivery_id = gone.id) GROUP BY 1
    ON CONFLICT (state, slot) DO UPDATE SET count = t.count + excluded.count;
    DELETE FROM "postrider".queue WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".ended WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".attempts WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".recipients WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".body_blobs WHERE delivery_id IN (SELECT id FROM gone);
    DELETE FROM "postrider".bodies WHERE delivery_id IN (SELECT id FROM gone);
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION "postrider".forget_delivery FROM PUBLIC;

CREATE TRIGGER forget_delivery AFTER DELETE ON "postrider".deliveries
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION "postrider".forget_delivery();

-- Truncating the table empties the outbox. Only the counts of each hour stay.
CREATE FUNCTION "postrider".forget_all() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    TRUNCATE "postrider".queue, "postrider".ended, "postrider".attempts, "postrider".recipients, "postrider".bodies,
        "postrider".body_blobs, "postrider".blobs, "postrider".totals;
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION "postrider".forget_all FROM PUBLIC;

CREATE TRIGGER forget_all AFTER TRUNCATE ON "postrider".deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION "postrider".forget_all();

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
-- It runs with the rights of its owner, so that a program with the right to call it needs no rights on the tables.
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
        RAISE EXCEPTION 'the mail is not a JSON object' USING ERRCODE = 'check_violation', COLUMN = 'body';
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
        RAISE EXCEPTION 'an entry of the mail is not a mailbox, or holds several: %', wrong
            USING ERRCODE = 'check_violation', COLUMN = 'body';
    END IF;
    wanted := coalesce(enqueue.recipients, named);
    IF wanted IS NULL OR wanted = '{}' OR array_position(wanted, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'the mail has no recipient, or a recipient without an address' USING ERRCODE = 'check_violation', COLUMN = 'recipients';
    END IF;
    -- Each address once, with its domain in lower case.
    SELECT array_agg(address ORDER BY place) INTO wanted
    FROM (SELECT coalesce(substring(given FROM '^(.*@)') || lower(substring(given FROM '[^@]*$')), given) AS address, min(place) AS place
          FROM unnest(wanted) WITH ORDINALITY each (given, place) GROUP BY 1) known;
    LOOP
        INSERT INTO "postrider".outbox (format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at)
        VALUES ('email/1', enqueue.body::text, to_json(wanted), enqueue.body ->> 'template_id', enqueue.key, enqueue.priority,
                enqueue.when_in_doubt, enqueue.send_at, enqueue.expires_at)
        RETURNING id INTO delivery;
        EXIT WHEN FOUND;
        -- The key is taken. If its delivery was deleted a moment ago, insert again.
        SELECT id INTO delivery FROM "postrider".deliveries WHERE key = enqueue.key;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN delivery;
END $$;

REVOKE ALL ON FUNCTION "postrider".enqueue FROM PUBLIC;
