//! Reports of running relays.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

/// The id of one running relay. Each start makes a new one, so that a restarted process differs from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId(Uuid);

impl RelayId {
    /// A new, unique id.
    #[allow(clippy::new_without_default, reason = "a default must be the same each time")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Its last 24 bits, which are random: the last six digits of its text.
    pub(crate) fn tail(self) -> i64 {
        let [.., a, b, c] = *self.0.as_bytes();
        i64::from(u32::from_be_bytes([0, a, b, c]))
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A report is deleted when it is older than this. A relay reports every few seconds.
pub(crate) const HEARTBEAT_TTL: Duration = Duration::from_secs(600);

/// The report of a running relay. The store keeps it so that other processes can show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayReport {
    /// The id of the relay.
    pub id: RelayId,
    /// The number of deliveries that the relay holds.
    pub in_flight: usize,
    /// What is paused, and why: by an operator, or the transport or senders after failures. `None` if nothing is. A transport within a
    /// combined one has its path, such as `failover/ses: `; the relay may then send by the others.
    pub paused: Option<String>,
    /// The name of the host on which the relay runs, at most 64 characters. `None` if it is unknown.
    pub host: Option<String>,
    /// How long failures have kept the transport or a sender paused without a break, accurate to a few seconds. `None` if neither
    /// is. A pause by an operator does not count.
    pub paused_for: Option<Duration>,
}

impl RelayReport {
    /// Creates a report of a relay on an unknown host. Set the fields for more.
    pub fn new(id: RelayId, in_flight: usize, paused: Option<String>) -> Self {
        Self { id, in_flight, paused, host: None, paused_for: None }
    }
}
