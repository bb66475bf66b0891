//! What a relay tells while it works.

use std::time::Duration;

use postrider_transport::{DeliveryId, Failure, Receipt};

use crate::state::Outcome;

/// Listens to a relay: for metrics, alarms, tests.
///
/// Called on the relay's own tasks: return quickly, and hand slow work to a task of your own. A panic in an observer is caught
/// and logged.
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
    /// Something happened.
    fn on_event(&self, event: &Event<'_>);
}

/// Something that happened in a relay.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Deliveries were claimed.
    #[non_exhaustive]
    Claimed {
        /// How many.
        count: usize,
    },
    /// The transport answered for one delivery. What follows from it is not yet written.
    #[non_exhaustive]
    AttemptFinished {
        /// The delivery.
        id: DeliveryId,
        /// Counts over the delivery's life.
        number: u32,
        /// How it is going to be written down.
        outcome: Outcome,
        /// What the transport said.
        result: &'a Result<Receipt, Failure>,
        /// How long the call took.
        took: Duration,
    },
    /// A delivery was accepted, and that is committed.
    #[non_exhaustive]
    Sent {
        /// The delivery.
        id: DeliveryId,
        /// How many recipients did not get it all the same.
        refused: usize,
    },
    /// A delivery will be tried again, and that is committed.
    #[non_exhaustive]
    RetryScheduled {
        /// The delivery.
        id: DeliveryId,
        /// How long from now.
        after: Duration,
        /// Whether the attempt counted against its budget.
        charged: bool,
    },
    /// A delivery was given up, and that is committed. It comes once for each dead letter, from the relay that wrote it; if the
    /// process dies between the commit and this call, it does not come at all, and the dead letter is found in the list.
    #[non_exhaustive]
    DeadLettered {
        /// The delivery.
        id: DeliveryId,
        /// What it was made from.
        template_id: Option<&'a str>,
        /// Why.
        reason: &'a str,
    },
    /// A delivery is held, since it may have been accepted, and that is committed.
    #[non_exhaustive]
    Held {
        /// The delivery.
        id: DeliveryId,
        /// Why.
        reason: &'a str,
    },
    /// The lease of a delivery passed to another relay while this one was sending it: it may have been sent twice. Nothing of
    /// this relay's attempt was written.
    #[non_exhaustive]
    LeaseLost {
        /// The delivery.
        id: DeliveryId,
    },
    /// The transport cannot send for anybody. Nothing but a probe is claimed until it can.
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
    /// The next hop refuses a sender, for all its mail. It waits without a call; other senders go on.
    #[non_exhaustive]
    SenderPaused {
        /// The transport's name.
        transport: &'a str,
        /// The From address: leave it out of logs and of metrics.
        sender: &'a str,
        /// Why.
        reason: &'a str,
        /// How long until one of its messages finds out whether it is taken again.
        pause: Duration,
    },
    /// The next hop takes a sender's mail again.
    #[non_exhaustive]
    SenderResumed {
        /// The transport's name.
        transport: &'a str,
        /// The From address: leave it out of logs and of metrics.
        sender: &'a str,
    },
    /// The database stopped answering, or other transactions are in the way of this relay's time and again
    /// ([`Conflict`](crate::StoreErrorKind::Conflict)). It comes once for each outage.
    #[non_exhaustive]
    StoreUnavailable {
        /// What it said.
        error: &'a crate::StoreError,
    },
    /// The database answers again.
    StoreRecovered,
}
