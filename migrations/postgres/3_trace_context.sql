-- Version 3: the trace context of the request that enqueued a mail, and the host and the pause of a relay.

-- An insert into the view locks the view before its tables. This version does too, so that the two cannot deadlock. (A block, since the
-- server takes the statement itself only in a transaction.)
DO $$ BEGIN
    LOCK TABLE "postrider".outbox;
END $$;

-- The value of the header "traceparent" of W3C Trace Context. An invalid value counts as none.
ALTER TABLE "postrider".deliveries ADD COLUMN traceparent text;

ALTER TABLE "postrider".relays ADD COLUMN host text;

-- How long the relay had been paused after failures, without a break, when it reported; in milliseconds. NULL: it was not.
ALTER TABLE "postrider".relays ADD COLUMN paused_ms bigint;

CREATE OR REPLACE VIEW "postrider".outbox AS
    SELECT d.id, d.created_at, b.format, b.body, b.text, b.html, d.recipients, d.template_id, d.key, d.priority, d.when_in_doubt, d.send_at, d.expires_at,
           d.traceparent
    FROM "postrider".deliveries d JOIN "postrider".bodies b ON b.delivery_id = d.id;

-- As in version 1, with the trace context. Of a longer text it keeps the first 56 characters: all of a valid one, and one more to tell it apart.
CREATE OR REPLACE FUNCTION "postrider".enqueue_delivery() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
        (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key,
         traceparent)
    VALUES (NEW.id, NEW.created_at, NEW.send_at, NEW.expires_at, NEW.priority, NEW.when_in_doubt, NEW.recipients, subject, NEW.template_id,
            tags, NEW.key, left(NEW.traceparent, 56))
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

-- The functions below get one more argument. The server cannot add an argument to a function, so each is a new function under the old name.
-- The calls of older programs still fit, because the argument has a default. The old functions get other names until the end of this
-- version, which copies their rights.
ALTER FUNCTION "postrider".insert_delivery RENAME TO insert_delivery_2;
ALTER FUNCTION "postrider".insert_deliveries RENAME TO insert_deliveries_2;
ALTER FUNCTION "postrider".enqueue RENAME TO enqueue_2;

-- As in version 1, with the trace context.
CREATE FUNCTION "postrider".insert_delivery(
    moment timestamptz, new_id uuid, new_format text, new_body text, new_text text, new_html text, new_size integer, new_recipients text,
    others text[], new_subject text, new_template text, new_tags text, new_key text, new_priority smallint, new_in_doubt text,
    due_after boolean, due bigint, expires_after boolean, expires bigint,
    new_traceparent text DEFAULT NULL
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
            (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, traceparent)
        VALUES (new_id, enqueued, send_at, expiry, new_priority, new_in_doubt, new_recipients::json, new_subject, new_template,
                new_tags::json, new_traceparent);
    ELSE
        LOOP
            INSERT INTO "postrider".deliveries
                (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key, traceparent)
            VALUES (new_id, enqueued, send_at, expiry, new_priority, new_in_doubt, new_recipients::json, new_subject, new_template,
                    new_tags::json, new_key, new_traceparent)
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

-- As in version 1, with the trace contexts.
CREATE FUNCTION "postrider".insert_deliveries(
    moment timestamptz, ids uuid[], formats text[], bodies text[], texts text[], htmls text[], sizes integer[], content_counts smallint[],
    recipients text[], subjects text[], templates text[], tag_lists text[], keys text[], priorities smallint[], when_in_doubts text[],
    due_after boolean[], due bigint[], expires_after boolean[], expires bigint[],
    other_ids uuid[], other_addresses text[], carrier_ids uuid[], carried bytea[],
    traceparents text[] DEFAULT NULL
) RETURNS uuid[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    enqueued timestamptz := coalesce(moment, now());
    added    uuid[];
BEGIN
    -- An insert that may find a key taken writes more to the log.
    IF keys IS NULL THEN
        INSERT INTO "postrider".deliveries
            (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, traceparent)
        SELECT r.id, enqueued,
               CASE WHEN r.after THEN enqueued ELSE 'epoch'::timestamptz END + r.due * interval '1 microsecond',
               CASE WHEN r.ends_after THEN enqueued ELSE 'epoch'::timestamptz END + r.ends * interval '1 microsecond',
               coalesce(r.priority, 5), coalesce(r.doubt, 'resend'), r.recipients::json, r.subject, r.template, r.tags::json,
               r.parent
        FROM unnest(ids, due_after, due, expires_after, expires, priorities, when_in_doubts, insert_deliveries.recipients, subjects, templates,
                    tag_lists, traceparents)
            r (id, after, due, ends_after, ends, priority, doubt, recipients, subject, template, tags, parent);
    ELSE
        -- In the order of the keys, so that two transactions cannot deadlock.
        WITH new AS (
            INSERT INTO "postrider".deliveries AS d
                (id, created_at, send_at, expires_at, priority, when_in_doubt, recipients, subject, template_id, tags, key, traceparent)
            SELECT r.id, enqueued,
                   CASE WHEN r.after THEN enqueued ELSE 'epoch'::timestamptz END + r.due * interval '1 microsecond',
                   CASE WHEN r.ends_after THEN enqueued ELSE 'epoch'::timestamptz END + r.ends * interval '1 microsecond',
                   coalesce(r.priority, 5), coalesce(r.doubt, 'resend'), r.recipients::json, r.subject, r.template, r.tags::json, r.key,
                   r.parent
            FROM unnest(ids, due_after, due, expires_after, expires, priorities, when_in_doubts, insert_deliveries.recipients, subjects,
                        templates, tag_lists, keys, traceparents)
                r (id, after, due, ends_after, ends, priority, doubt, recipients, subject, template, tags, key, parent)
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

-- As in version 1, with the trace context.
CREATE FUNCTION "postrider".enqueue(
    body          jsonb,
    key           text        DEFAULT NULL,
    priority      integer     DEFAULT 5,
    send_at       timestamptz DEFAULT NULL,
    expires_at    timestamptz DEFAULT NULL,
    when_in_doubt text        DEFAULT 'resend',
    recipients    text[]      DEFAULT NULL,
    traceparent   text        DEFAULT NULL
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
        INSERT INTO "postrider".outbox (format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at,
                                        traceparent)
        VALUES ('email/1', enqueue.body::text, to_json(wanted), enqueue.body ->> 'template_id', enqueue.key, enqueue.priority,
                enqueue.when_in_doubt, enqueue.send_at, enqueue.expires_at, enqueue.traceparent)
        RETURNING id INTO delivery;
        EXIT WHEN FOUND;
        -- The key is taken. If its delivery was deleted a moment ago, insert again.
        SELECT id INTO delivery FROM "postrider".deliveries WHERE key = enqueue.key;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN delivery;
END $$;

REVOKE ALL ON FUNCTION "postrider".enqueue FROM PUBLIC;

-- Gives each new function the owner and the rights of the old one, so that nobody needs another GRANT.
DO $$
DECLARE
    replaced record;
    granted  record;
BEGIN
    FOR replaced IN
        SELECT new.oid::regprocedure AS signature, old.proowner::regrole AS owner, old.proacl AS rights, new.proowner <> old.proowner AS moves
        FROM pg_catalog.pg_proc old
        JOIN pg_catalog.pg_proc new ON new.pronamespace = old.pronamespace AND new.proname || '_2' = old.proname
            AND new.proname IN ('insert_delivery', 'insert_deliveries', 'enqueue')
        WHERE old.pronamespace = '"postrider"'::regnamespace
    LOOP
        IF replaced.moves THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO %s', replaced.signature, replaced.owner);
        END IF;
        FOR granted IN
            SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role, is_grantable
            FROM aclexplode(replaced.rights) WHERE grantee::regrole <> replaced.owner
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', replaced.signature, granted.role)
                || CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
        END LOOP;
    END LOOP;
END $$;

DROP FUNCTION "postrider".insert_delivery_2;
DROP FUNCTION "postrider".insert_deliveries_2;

-- The old function of other programs stays under its new name, since functions and views of theirs may depend on it.
CREATE OR REPLACE FUNCTION "postrider".enqueue_2(
    body          jsonb,
    key           text        DEFAULT NULL,
    priority      integer     DEFAULT 5,
    send_at       timestamptz DEFAULT NULL,
    expires_at    timestamptz DEFAULT NULL,
    when_in_doubt text        DEFAULT 'resend',
    recipients    text[]      DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN "postrider".enqueue($1, $2, $3, $4, $5, $6, $7);
END $$;
