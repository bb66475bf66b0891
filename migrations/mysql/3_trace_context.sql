-- Version 3: the trace context of the request that enqueued a mail, and the host and the pause of a relay.

-- The value of the header "traceparent" of W3C Trace Context. An invalid value counts as none. It has no limit of its own: a longer text
-- would be refused with its mail, and a trigger that cuts it would cost time for each row.
ALTER TABLE postrider_deliveries ADD COLUMN traceparent LONGTEXT;

ALTER TABLE postrider_relays ADD COLUMN host VARCHAR(255);

-- How long the relay had been paused after failures, without a break, when it reported; in milliseconds. NULL: it was not.
ALTER TABLE postrider_relays ADD COLUMN paused_ms BIGINT;
