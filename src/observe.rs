//! The events of a relay, and the trait of their observers.

use std::time::Duration;

use postrider_transport::{DeliveryId, Failure, Receipt};

use crate::prune::PrunedPart;
use crate::state::Outcome;

/// Gets a relay's events, for metrics, alerts and tests.
///
/// The relay calls it on its own tasks, so it must return quickly. Move slow work to a task of your own. A panic is caught and logged.
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

/// An event of a relay. Events about the next state of a delivery are sent after the commit.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Deliveries were claimed.
    #[non_exhaustive]
    Claimed {
        /// The number of deliveries.
        count: usize,
    },
    /// An attempt ended. Its result is not written yet.
    #[non_exhaustive]
    AttemptFinished {
        /// The delivery.
        id: DeliveryId,
        /// The number of the attempt over the delivery's life, from 1.
        number: u32,
        /// The outcome that will be recorded.
        outcome: Outcome,
        /// The result that the transport returned.
        result: &'a Result<Receipt, Failure>,
        /// The duration of the call.
        took: Duration,
    },
    /// The next hop accepted a delivery.
    #[non_exhaustive]
    Sent {
        /// The delivery.
        id: DeliveryId,
        /// The number of recipients that were refused.
        refused: usize,
    },
    /// A delivery is pending again: a retry is scheduled, or it was released without a call.
    #[non_exhaustive]
    RetryScheduled {
        /// The delivery.
        id: DeliveryId,
        /// The wait until it is due.
        after: Duration,
        /// Whether an attempt counted against the budget.
        charged: bool,
    },
    /// A delivery became a dead letter. The relay that wrote it sends the event once.
    ///
    /// If the process dies between the commit and this call, the event is lost. The dead letter is still in the list.
    #[non_exhaustive]
    DeadLettered {
        /// The delivery.
        id: DeliveryId,
        /// The template id of the message. `None` without a template.
        template_id: Option<&'a str>,
        /// Why it was given up.
        reason: &'a str,
    },
    /// A delivery is held because it may have been accepted.
    #[non_exhaustive]
    Held {
        /// The delivery.
        id: DeliveryId,
        /// Why it is in doubt.
        reason: &'a str,
    },
    /// Another relay took a delivery over while this one was sending it, so it may be sent twice. This relay's attempt was not recorded.
    #[non_exhaustive]
    LeaseLost {
        /// The delivery.
        id: DeliveryId,
    },
    /// The transport cannot send any message and is paused. Until it works again, the relay claims only messages for probes.
    #[non_exhaustive]
    TransportPaused {
        /// The transport's name.
        transport: &'a str,
        /// The failure that paused it, with masked addresses.
        reason: &'a str,
        /// The wait until the next probe.
        pause: Duration,
    },
    /// The transport works again.
    #[non_exhaustive]
    TransportResumed {
        /// The transport's name.
        transport: &'a str,
    },
    /// The next hop refuses all mail of a sender or of a domain. This mail waits. Mail of other senders is sent.
    #[non_exhaustive]
    SenderPaused {
        /// The transport's name.
        transport: &'a str,
        /// The From address, or a domain with an `@` before it. Leave it out of logs and metrics.
        sender: &'a str,
        /// The failure that paused it, with masked addresses.
        reason: &'a str,
        /// The wait until the next probe.
        pause: Duration,
    },
    /// The next hop accepts mail of a sender or of a domain again.
    #[non_exhaustive]
    SenderResumed {
        /// The transport's name.
        transport: &'a str,
        /// The From address, or a domain with an `@` before it. Leave it out of logs and metrics.
        sender: &'a str,
    },
    /// The database stopped answering, or this relay's transactions repeatedly conflict with others
    /// ([`Conflict`](crate::StoreErrorKind::Conflict)). The event is sent once for each outage.
    #[non_exhaustive]
    StoreUnavailable {
        /// The error of the first failed call.
        error: &'a crate::StoreError,
    },
    /// The database answers again.
    StoreRecovered,
    /// The relay's [retention](crate::Relay::retention) deleted a part of old deliveries.
    #[non_exhaustive]
    Pruned {
        /// What was deleted.
        part: PrunedPart,
        /// The number of deliveries that lost it.
        deliveries: u64,
    },
    /// The relay's [retention](crate::Relay::retention) failed. The relay tries again later.
    #[non_exhaustive]
    RetentionFailed {
        /// The error of the store.
        error: &'a crate::StoreError,
    },
}
