//! Events of a relay, and who listens to them.

use std::time::Duration;

use postrider_transport::{DeliveryId, Failure, Receipt};

use crate::state::Outcome;

/// Listens to a relay's events, for metrics, alerts and tests.
///
/// It is called on the relay's own tasks: return quickly, and move slow work to a task of your own. A panic is caught and logged.
///
/// ```
/// use postrider::{Event, Observer};
///
/// struct Alarm;
///
/// impl Observer for Alarm {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::TransportPaused { transport, reason, .. } = event {
///             eprintln!("{transport} is paused: {reason}");
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Called for each event.
    fn on_event(&self, event: &Event<'_>);
}

/// An event of a relay.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Deliveries were claimed.
    #[non_exhaustive]
    Claimed {
        /// How many.
        count: usize,
    },
    /// A call of the transport ended for one delivery. The result is not yet written.
    #[non_exhaustive]
    AttemptFinished {
        /// The delivery.
        id: DeliveryId,
        /// Counts over the delivery's life.
        number: u32,
        /// The outcome that will be recorded.
        outcome: Outcome,
        /// What the transport said.
        result: &'a Result<Receipt, Failure>,
        /// Duration of the call.
        took: Duration,
    },
    /// A delivery was accepted. Committed.
    #[non_exhaustive]
    Sent {
        /// The delivery.
        id: DeliveryId,
        /// Number of recipients that were refused.
        refused: usize,
    },
    /// A delivery will be tried again. Committed.
    #[non_exhaustive]
    RetryScheduled {
        /// The delivery.
        id: DeliveryId,
        /// The wait from now.
        after: Duration,
        /// Whether the attempt counted against its budget.
        charged: bool,
    },
    /// A delivery became a dead letter. Committed. The event comes once for each dead letter, from the relay that wrote it. If the process
    /// dies between the commit and this call, it does not come, and the dead letter is only in the list.
    #[non_exhaustive]
    DeadLettered {
        /// The delivery.
        id: DeliveryId,
        /// What it was made from.
        template_id: Option<&'a str>,
        /// Why.
        reason: &'a str,
    },
    /// A delivery is held because it may have been accepted. Committed.
    #[non_exhaustive]
    Held {
        /// The delivery.
        id: DeliveryId,
        /// Why.
        reason: &'a str,
    },
    /// Another relay took a delivery over while this one was sending it, so it may be sent twice. This relay's attempt was not recorded.
    #[non_exhaustive]
    LeaseLost {
        /// The delivery.
        id: DeliveryId,
    },
    /// The transport cannot send for any message. Until it can, the relay claims only probes.
    #[non_exhaustive]
    TransportPaused {
        /// Its name.
        transport: &'a str,
        /// Why.
        reason: &'a str,
        /// How long until the next probe.
        pause: Duration,
    },
    /// The transport works again.
    #[non_exhaustive]
    TransportResumed {
        /// Its name.
        transport: &'a str,
    },
    /// The next hop refuses all mail of a sender. That mail waits without a call; other senders go on.
    #[non_exhaustive]
    SenderPaused {
        /// The transport's name.
        transport: &'a str,
        /// The From address: leave it out of logs and of metrics.
        sender: &'a str,
        /// Why.
        reason: &'a str,
        /// The wait until one of its messages probes again.
        pause: Duration,
    },
    /// The next hop accepts a sender's mail again.
    #[non_exhaustive]
    SenderResumed {
        /// The transport's name.
        transport: &'a str,
        /// The From address: leave it out of logs and of metrics.
        sender: &'a str,
    },
    /// The database stopped answering, or this relay's transactions conflict with others again and again
    /// ([`Conflict`](crate::StoreErrorKind::Conflict)). The event comes once for each outage.
    #[non_exhaustive]
    StoreUnavailable {
        /// What it said.
        error: &'a crate::StoreError,
    },
    /// The database answers again.
    StoreRecovered,
}
