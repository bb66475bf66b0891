//! The summary of a relay's run.

use std::fmt;

use postrider_transport::mask_addresses;

/// The counts of one run of a relay. Only committed results are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// Deliveries that the next hop accepted.
    pub sent: u64,
    /// Charged attempts whose delivery will be retried.
    pub retried: u64,
    /// Deliveries that became pending again without a charge: the transport or the sender was paused, the failure was not proven to be the
    /// message's own, or the relay stopped before the message was sent.
    pub released: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries that are held because they may have been accepted.
    pub in_doubt: u64,
    /// Deliveries that another relay took over while this one was sending them.
    pub lease_lost: u64,
    /// The transport, if it was paused at the end, after failures or by an operator. `None` otherwise.
    pub paused: Option<PausedTransport>,
    /// The senders that were paused at the end.
    pub paused_senders: Vec<PausedSender>,
}

/// A sender whose mail the next hop refuses now.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedSender {
    /// The From address, or a whole domain with an `@` before it, such as `@example.com`.
    pub sender: String,
    /// The failure that paused it, with masked addresses.
    pub reason: String,
}

/// Masks the address.
impl fmt::Debug for PausedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PausedSender")
            .field("sender", &mask_addresses(&self.sender))
            .field("reason", &self.reason)
            .finish()
    }
}

/// A transport that cannot send any message now, or that an operator has paused.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedTransport {
    /// The name of the transport.
    pub transport: String,
    /// The failure that paused it, with masked addresses. In a [`RunSummary`] also the operator who paused it, with the note; both are
    /// shown in full.
    pub reason: String,
}

/// Masks addresses.
impl fmt::Debug for PausedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PausedTransport")
            .field("transport", &self.transport)
            .field("reason", &mask_addresses(&self.reason))
            .finish()
    }
}
