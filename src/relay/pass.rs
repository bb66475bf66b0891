//! What a relay did, in numbers.

use std::fmt;

use postrider_transport::mask_addresses;

/// What a relay did from its start to its end. Everything counted is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// Deliveries that the next hop accepted.
    pub sent: u64,
    /// Attempts after which a delivery waits for another.
    pub retried: u64,
    /// Deliveries given back without a charge, since the transport or their sender was paused, or nothing was proven.
    pub released: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries held because they may have been accepted.
    pub in_doubt: u64,
    /// Deliveries that another relay took over while this one was sending them.
    pub lease_lost: u64,
    /// Why the transport was paused at the end, if it was.
    pub paused: Option<PausedTransport>,
    /// The senders that were paused at the end. Others were sent.
    pub paused_senders: Vec<PausedSender>,
}

/// A sender whose mail the next hop refuses at present.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedSender {
    /// The From address.
    pub sender: String,
    /// What the next hop said.
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

/// A transport that cannot send for anybody at present.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PausedTransport {
    /// Its name.
    pub transport: String,
    /// What it said.
    pub reason: String,
}
