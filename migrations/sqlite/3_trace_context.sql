-- Version 3: the trace context of the request that enqueued a mail, and the host and the pause of a relay.

-- The value of the header "traceparent" of W3C Trace Context. An invalid value counts as none.
ALTER TABLE postrider_deliveries ADD COLUMN traceparent TEXT;

-- Of a long text it keeps what a valid one of any version begins with.
CREATE TRIGGER postrider_traceparent AFTER INSERT ON postrider_deliveries WHEN length(new.traceparent) > 56 BEGIN
    UPDATE postrider_deliveries SET traceparent = substr(traceparent, 1, 56) WHERE id = new.id;
END;

ALTER TABLE postrider_relays ADD COLUMN host TEXT;

-- For how long there had been a pause after a failure without a break at the time of the report, in milliseconds. NULL: none.
ALTER TABLE postrider_relays ADD COLUMN paused_ms INTEGER;
