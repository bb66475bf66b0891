//! Users with few rights.

use std::time::Duration;

use postrider::store::{Claim, Next, Settled};
use postrider::transport::Blob;
use postrider::{AdminStore, MySqlStore, Prune, State, Store, StoreErrorKind};

use crate::support::database::{MySql, unique_prefix};
use crate::support::fixture::{SECOND, keyed_row, row};
use crate::{failed, outbox, pool};

pub(crate) async fn an_error_names_the_missing_right_and_few_rights_are_enough(server: MySql) {
    let (prefix, root, outbox) = outbox(&server).await;
    // Without the right to create triggers, a migration fails, and the tables that it leaves accept no mail.
    let (_, poor) = server.user(&root, &[("CREATE, ALTER, DROP, REFERENCES, INSERT, SELECT, UPDATE", "*")]).await;
    let store = MySqlStore::with_table_prefix(pool(poor, 2).await, &unique_prefix()).unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    // With a binary log, the server names SUPER first.
    assert!(error.to_string().contains("TRIGGER") || error.to_string().contains("SUPER"), "{error}");
    assert_eq!(store.insert(vec![row()]).await.unwrap_err().kind(), StoreErrorKind::NotMigrated);
    // Enqueueing needs INSERT alone, and with keys SELECT and UPDATE too.
    let (_, writer) = server.user(&root, &[("INSERT", &format!("{prefix}deliveries"))]).await;
    let writer = MySqlStore::with_table_prefix(pool(writer, 2).await, &prefix).unwrap();
    writer.insert(vec![row(), row()]).await.unwrap();
    let keyed = || vec![keyed_row("k")];
    assert_eq!(writer.insert(keyed()).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    let (_, keeper) = server.user(&root, &[("INSERT, SELECT, UPDATE", &format!("{prefix}deliveries"))]).await;
    let keeper = MySqlStore::with_table_prefix(pool(keeper, 2).await, &prefix).unwrap();
    assert_eq!(keeper.insert(keyed()).await.unwrap(), keeper.insert(keyed()).await.unwrap());
    // With large attachments, rights on two more tables.
    let carrying = || {
        let mut new = row();
        new.message.blobs = vec![Blob::new(*b"logo")];
        vec![new]
    };
    assert_eq!(writer.insert(carrying()).await.unwrap_err().kind(), StoreErrorKind::Rejected);
    let (deliveries, blobs) = (format!("{prefix}deliveries"), format!("{prefix}blobs"));
    let carried = format!("{prefix}body_blobs");
    let rights = [("INSERT", &*deliveries), ("INSERT, SELECT", &blobs), ("INSERT, SELECT, UPDATE", &carried)];
    let (_, carrier) = server.user(&root, &rights).await;
    let carrier = MySqlStore::with_table_prefix(pool(carrier, 2).await, &prefix).unwrap();
    carrier.insert(carrying()).await.unwrap();
    carrier.insert(carrying()).await.unwrap();
    // A relay needs no right to change tables.
    let (_, relay) = server.user(&root, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await;
    let relay = MySqlStore::with_table_prefix(pool(relay, 2).await, &prefix).unwrap();
    relay.migrate().await.unwrap();
    let leases = relay.claim(Claim::new(10, SECOND * 60)).await.unwrap();
    let dead = |lease| failed(lease, "no", Next::Dead { reason: "no".to_owned() });
    assert_eq!(relay.settle(&leases.iter().map(dead).collect::<Vec<_>>()).await.unwrap(), [Settled::Applied; 5]);
    let prune = Prune::deliveries(Duration::ZERO).state(State::Dead);
    assert_eq!(relay.prune(&prune).await.unwrap(), 5);
    assert_eq!(outbox.stats().await.unwrap().dead, 0);
}
