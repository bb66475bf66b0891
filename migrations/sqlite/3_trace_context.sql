-- Version 3: the trace context of the request that enqueued a mail, and the host and the pause of a relay.

-- The value of the header "traceparent" of W3C Trace Context. An invalid value counts as none.
ALTER TABLE postrider_deliveries ADD COLUMN traceparent TEXT;

-- Of a longer text it keeps the first 56 characters: all of a valid one, and one more to tell it apart.
CREATE TRIGGER postrider_traceparent AFTER INSERT ON postrider_deliveries WHEN length(new.traceparent) > 56 BEGIN
    UPDATE postrider_deliveries SET traceparent = substr(traceparent, 1, 56) WHERE id = new.id;
END;

ALTER TABLE postrider_relays ADD COLUMN host TEXT;

-- How long the relay had been paused after failures, without a break, when it reported; in milliseconds. NULL: it was not.
ALTER TABLE postrider_relays ADD COLUMN paused_ms INTEGER;
