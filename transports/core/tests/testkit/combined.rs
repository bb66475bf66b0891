//! Combinators pass the conformance suite.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postrider_transport::testkit::TransportUnderTest;
use postrider_transport::{
    Backoff, BoxTransport, Email, Failover, Failure, Outgoing, Receipt, RoundRobin, Tap, Transport,
};

use crate::defective::{Defect, Defective, Fixture, Server};

/// The fixture with a combinator around its transport.
struct Around<W>(W);

impl<T, W> TransportUnderTest for Around<W>
where
    T: Transport<Message = Email> + fmt::Debug,
    W: Fn(Arc<Defective>) -> T + Send + Sync,
{
    type Transport = T;
    type Peer = Server;

    async fn start(&self, limit: Duration) -> (T, Server) {
        let (transport, server) = Fixture(Defect::Nothing).start(limit).await;
        ((self.0)(Arc::new(transport)), server)
    }

    async fn unreachable(&self) -> T {
        (self.0)(Arc::new(Fixture(Defect::Nothing).unreachable().await))
    }

    fn secrets(&self) -> Vec<String> {
        Fixture(Defect::Nothing).secrets()
    }

    fn unsupported(&self) -> Option<Email> {
        Fixture(Defect::Nothing).unsupported()
    }
}

/// The suite expects the next message to be accepted, so a failure must not pause the transport.
const NO_PAUSE: Backoff = Backoff::new(Duration::ZERO, Duration::ZERO);

fn ignore(_: &Outgoing<Email>, _: &Result<Receipt, Failure>) {}

mod boxed_and_tapped {
    use super::*;

    postrider_transport::transport_tests!(Around(|transport| BoxTransport::new(Tap::new(transport, ignore))));
}

#[cfg(all(feature = "timeout", feature = "rate-limit"))]
mod limited {
    use super::*;
    use postrider_transport::{RateLimit, Timeout};

    postrider_transport::transport_tests!(Around(|transport| {
        let limited = RateLimit::new(Timeout::new(transport, Duration::from_secs(600)), 1_000, Duration::from_secs(1));
        limited.burst(10)
    }));
}

mod failover {
    use super::*;

    postrider_transport::transport_tests!(
        Around(|transport| Failover::new(transport).pause(NO_PAUSE)),
        without a_rate_limit = "the next message waits for the rate limit, as it should"
    );
}

mod nested {
    use super::*;

    postrider_transport::transport_tests!(
        Around(|transport: Arc<Defective>| {
            let shared = RoundRobin::new(Arc::clone(&transport), 2).pause(NO_PAUSE);
            Failover::new(Tap::new(shared, ignore)).pause(NO_PAUSE)
        }),
        without a_rate_limit = "the next message waits for the rate limit, as it should"
    );
}
