//! Waiting for a condition, with a limit far beyond what any machine needs.

use std::future::Future;
use std::time::Duration;

use postrider::store::Store;
use postrider::{AdminStore, DeliveryId, State};

/// Waits until the condition holds; panics after 60 s.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), holds).await.is_ok(), "timed out: {what}");
}

/// Waits until the delivery is sent. An error of the database counts as "not yet".
pub(crate) async fn until_sent<S: AdminStore>(store: &S, id: DeliveryId) {
    until("the delivery is sent", || async {
        store.get(id).await.ok().flatten().is_some_and(|delivery| delivery.state == State::Sent)
    })
    .await;
}
