//! The metrics by name, with their units and descriptions.
//!
//! Names and attributes that begin with `messaging.` and `error.` are those of OpenTelemetry's semantic conventions for messaging clients,
//! whose status is "Development" (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/>, read in November 2026).
//! OpenTelemetry asks for a prefix on all other names (<https://opentelemetry.io/docs/specs/semconv/general/naming/>).

use ::metrics::Unit;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The name, kind, unit and description of a metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) description: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $unit:ident $name:literal $description:literal)*) => {
        $(pub(super) const $constant: &str = $name;)*
        pub(super) const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, description: $description },)*
        ];
    };
}

metrics! {
    ATTEMPTS: Counter Count "messaging.client.sent.messages"
        "Attempts: messages that a transport was asked to send, accepted or not."
    CALL: Histogram Seconds "messaging.client.operation.duration"
        "Duration of the transport's call, for each message."
    CLAIMED: Counter Count "messaging.client.consumed.messages"
        "Deliveries that this process claimed."
    QUEUE_WAIT: Histogram Seconds "postrider.queue.wait.duration"
        "Time from when a delivery was due to its first call. Retries are not recorded."
    SETTLED: Counter Count "postrider.deliveries.settled"
        "Deliveries whose result was written, by result."
    LEASES_LOST: Counter Count "postrider.leases.lost"
        "Deliveries that another relay took over while this process was sending them. They may be sent twice."
    PAUSES: Counter Count "postrider.pauses"
        "Pauses that began, of a transport or of a sender."
    OUTAGES: Counter Count "postrider.database.outages"
        "Outages of the database that began."
    DELETED: Counter Count "postrider.retention.deletions"
        "Finished deliveries that lost old data to the relay's retention, by what was deleted."
    RETENTION_FAILURES: Counter Count "postrider.retention.failures"
        "Failures of the relay's retention."
    DELIVERIES: Gauge Count "postrider.outbox.deliveries"
        "Deliveries in the outbox, by state."
    LAG: Gauge Seconds "postrider.outbox.lag"
        "Age of the oldest mail that is due and not yet sent, from when it was first due. 0 if none waits."
    LAG_UNDEFERRED: Gauge Seconds "postrider.outbox.lag.undeferred"
        "Age of the oldest mail that is due and not yet sent, except mail that the next hop defers, such as by greylisting. 0 if none waits."
    RELAYS: Gauge Count "postrider.outbox.relays"
        "Relays of all processes that reported in the last 30 seconds."
    RELAYS_PAUSED: Gauge Count "postrider.outbox.relays.paused"
        "Relays of all processes that reported a pause in the last 30 seconds: by an operator, or after failures."
    REFRESHED: Gauge Seconds "postrider.outbox.refresh.timestamp"
        "Unix time when the gauges of the outbox were last read from the database."
    RUNNING: Gauge Count "postrider.relay.running"
        "Relays of this process that run."
    IN_FLIGHT: Gauge Count "postrider.relay.in_flight"
        "Deliveries that the relays of this process hold."
    AVAILABLE: Gauge Count "postrider.relay.database.available"
        "1 if the database answers the relays of this process, 0 during an outage."
    PAUSED: Gauge Count "postrider.relay.transport.paused"
        "1 while a transport is paused in this process, 0 otherwise."
    SENDERS_PAUSED: Gauge Count "postrider.relay.senders.paused"
        "Senders and domains whose mail is paused in this process."
}

/// Label names.
pub(super) mod label {
    /// The transport: `smtp`, `failover/ses`. For claims, `postrider`. The conventions allow values of one's own.
    pub(in super::super) const SYSTEM: &str = "messaging.system";
    pub(in super::super) const OPERATION: &str = "messaging.operation.name";
    /// The outcome of a failed attempt. The conventions say not to set it after a success.
    pub(in super::super) const ERROR: &str = "error.type";
    pub(in super::super) const SCOPE: &str = "postrider.scope";
    pub(in super::super) const RESULT: &str = "postrider.result";
    pub(in super::super) const STATE: &str = "postrider.state";
    pub(in super::super) const PART: &str = "postrider.part";
}

/// The boundaries that the conventions advise for `messaging.client.operation.duration`, and more for calls that take longer: the time
/// limits of SMTP are minutes (RFC 5321 section 4.5.3.2).
pub(super) const CALL_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0];

/// From a mail that a relay claims at once to one that waits out a long outage.
pub(super) const WAIT_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0,
    86_400.0,
];
