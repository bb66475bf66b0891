//! The summary of a relay's run.

use std::fmt;

use postrider_transport::mask_addresses;

/// What a relay did in one run. Only committed results are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// Deliveries that the next hop accepted.
    pub sent: u64,
    /// Charged attempts after which a delivery waits for another one.
    pub retried: u64,
    /// Deliveries that were released without a charge: the transport or their sender was paused, or nothing proved that the failure was
    /// their own.
    pub released: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries that are held because they may have been accepted.
    pub in_doubt: u64,
    /// Deliveries that another relay took over while this one was sending them.
    pub lease_lost: u64,
    /// The paused transport, if it was paused at the end.
    pub paused: Option<PausedTransport>,
    /// The senders that were paused at the end.
    pub paused_senders: Vec<PausedSender>,
}

/// A sender whose mail the next hop refuses at present.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedSender {
    /// The From address.
    pub sender: String,
    /// The next hop's reply.
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

/// A transport that cannot send for any message at present.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedTransport {
    /// Its name.
    pub transport: String,
    /// Why.
    pub reason: String,
}
