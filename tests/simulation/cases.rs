//! Fixed scenarios: earlier defects, and numeric limits.

mod bad_mails;
mod leases;
mod quotas;

use std::time::Duration;

use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Failure, MemoryStore, Relay, Scope, Store, Transport};
use tokio_util::sync::CancellationToken;

use crate::message::TestMessage;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

type MakeFailure = fn() -> Failure;

fn message(number: usize, sender: &str) -> TestMessage {
    TestMessage {
        number,
        sender: format!("{sender}@{sender}.example"),
        to: vec![format!("r{number}@d{number}.example")],
    }
}

fn store() -> MemoryStore {
    MemoryStore::with_test_clock(TestClock::following_tokio())
}

/// A transport whose calls take 10 ms.
fn scripted(
    mut answer: impl FnMut(&TestMessage) -> Result<Receipt, Failure> + Send + 'static,
) -> ScriptedTransport<TestMessage> {
    ScriptedTransport::new().with_handler(move |call| {
        let answer = answer(&call.message);
        async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer
        }
    })
}

fn failures() -> [(&'static str, MakeFailure); 5] {
    [
        ("known, the sender's", || Failure::permanent(Scope::Sender, "550 5.7.1 sender is not verified")),
        ("unknown, for good", || Failure::permanent(Scope::Message, "550 frobnicated").unsure()),
        ("unknown, for now", || Failure::transient(Scope::Message, "451 frobnicated").unsure()),
        ("the transport's", || Failure::permanent(Scope::Transport, "550 not from here")),
        ("the transport's, for now", || Failure::transient(Scope::Transport, "421 not now")),
    ]
}

/// Runs a relay for this time.
async fn run_for<S: Store, T: Transport>(relay: Relay<S, T>, time: Duration) {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(relay.seed(7).run(stop.clone().cancelled_owned()));
    tokio::time::sleep(time).await;
    stop.cancel();
    worker.await.unwrap().unwrap();
}
