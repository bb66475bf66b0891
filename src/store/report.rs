//! What a relay reports of itself.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

/// The name of one running relay: new at each start, so that a restarted process is never taken for its former self.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId(Uuid);

impl RelayId {
    /// A new name.
    #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// After so long a silence a relay is forgotten: it tells of itself every few seconds.
pub(crate) const HEARTBEAT_TTL: Duration = Duration::from_secs(600);

/// What a relay tells of itself, kept so that another process can show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayReport {
    /// Who.
    pub id: RelayId,
    /// How many deliveries it holds.
    pub in_flight: usize,
    /// Why its transport is paused, if it is. Where it is made of several and some of them are paused, while the relay goes on with the
    /// others: `failover/ses: `, and why.
    pub paused: Option<String>,
}

impl RelayReport {
    /// What the relay has to say.
    pub fn new(id: RelayId, in_flight: usize, paused: Option<String>) -> Self {
        Self { id, in_flight, paused }
    }
}
