//! Transports made of other transports.

mod failover;
#[cfg(feature = "rate-limit")]
mod rate_limit;
mod redirect;
mod round_robin;
mod routes;
mod tap;
#[cfg(feature = "timeout")]
mod timeout;

pub use failover::Failover;
#[cfg(feature = "rate-limit")]
pub use rate_limit::RateLimit;
pub use redirect::Redirect;
pub use round_robin::RoundRobin;
pub use routes::AllFailed;
pub use tap::Tap;
#[cfg(feature = "timeout")]
pub use timeout::{TimedOut, Timeout};
