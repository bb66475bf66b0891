//! Rows that make no sense in the outbox's own tables, column by column. None may stop the others, and each can be shown.

use std::time::Duration;

use postrider::store::Claim;
use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, DeliveryId, Email, Filter, Outbox, Outcome, State};

/// How a database names things.
pub(crate) struct Dialect<'a> {
    /// What the tables' names begin with.
    pub(crate) prefix: &'a str,
    /// An id as a literal.
    pub(crate) id: fn(DeliveryId) -> String,
    /// The first and the last moment that a column for times takes.
    pub(crate) times: [&'a str; 2],
    /// The last number that a count takes.
    pub(crate) last_count: i64,
    /// What takes away the tables' own rules for words.
    pub(crate) unruled: &'a [&'a str],
}

fn mail() -> Email {
    Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build().unwrap()
}

pub(crate) async fn rows_that_make_no_sense_stop_nobody<S: AdminStore>(
    store: S,
    dialect: Dialect<'_>,
    run: impl AsyncFn(String),
) {
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    let Dialect { prefix, id, times: [first, last], last_count, unruled } = dialect;
    for statement in unruled {
        run(statement.replace("{p}", prefix)).await;
    }
    let mut odd = Vec::new();
    for (column, value) in [
        ("due_at", first),
        ("cycle_started_at", first),
        ("cycle_started_at", last),
        ("expires_at", first),
        ("expires_at", last),
    ] {
        odd.push((column, value.to_owned()));
    }
    for column in ["attempts", "cycle", "spent"] {
        odd.extend([(column, "-1".to_owned()), (column, last_count.to_string())]);
    }
    for token in [i64::MAX, i64::MAX - 1, i64::MIN + 1] {
        odd.push(("token", token.to_string()));
    }
    let ids = outbox.enqueue_all(odd.iter().map(|_| mail())).await.unwrap();
    for ((column, value), delivery) in odd.iter().zip(&ids) {
        run(format!("UPDATE {prefix}queue SET {column} = {value} WHERE delivery_id = {}", id(*delivery))).await;
    }
    let good = outbox.enqueue(mail()).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert!(store.stats().await.unwrap().oldest_due.is_some());
    for delivery in &ids {
        assert!(outbox.get(*delivery).await.unwrap().is_some());
    }
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!(pass.sent + pass.dead, 1 + u64::try_from(ids.len()).unwrap(), "{pass:?}");
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.leased), (0, 0));

    // What is leased, and its lease has run out.
    let more = outbox.enqueue_all((0..4).map(|_| mail())).await.unwrap();
    assert_eq!(store.claim(Claim::new(10, Duration::ZERO)).await.unwrap().len(), 4);
    for (column, delivery) in ["attempts", "spent", "cycle"].iter().zip(&more) {
        run(format!("UPDATE {prefix}queue SET {column} = {last_count} WHERE delivery_id = {}", id(*delivery))).await;
    }
    run(format!("UPDATE {prefix}queue SET token = {} WHERE delivery_id = {}", i64::MAX, id(more[3]))).await;
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!(pass.sent + pass.dead, 4, "{pass:?}");

    // Words and times in what is only shown.
    for (table, column, value) in [
        ("attempts", "outcome", "'odd'"),
        ("attempts", "scope", "'odd'"),
        ("attempts", "started_at", first),
        ("attempts", "finished_at", last),
        ("attempts", "cycle", "-1"),
        ("ended", "state", "'odd'"),
        ("ended", "cycle", "-1"),
    ] {
        run(format!("UPDATE {prefix}{table} SET {column} = {value}")).await;
    }
    let add = |outcome: &str| {
        format!(
            "INSERT INTO {prefix}recipients (delivery_id, address, outcome) VALUES ({}, 'ada@example.com', '{outcome}')",
            id(good)
        )
    };
    run(add("odd")).await;
    run(format!("INSERT INTO {prefix}relays (id, seen_at, in_flight) VALUES ('a', {first}, -1), ('b', {last}, 1)"))
        .await;
    let shown = outbox.get(good).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.attempts[0].outcome), (State::Sent, Outcome::Lost));
    assert!(shown.attempts[0].note.as_deref().is_some_and(|note| note.contains("cannot be read")), "{shown:?}");
    for delivery in ids.iter().chain(&more) {
        assert!(outbox.get(*delivery).await.unwrap().is_some());
    }
    assert_eq!(store.list(&Filter::new()).await.unwrap().len(), ids.len() + 5);
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.relays.len(), 2);

    // An attempt that somebody else has written where ours is to be.
    let taken = outbox.enqueue_all([mail(), mail()]).await.unwrap();
    for delivery in &taken {
        run(format!(
            "INSERT INTO {prefix}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
             VALUES ({}, 1, 1, 1, {first}, {last}, 'lost')",
            id(*delivery)
        ))
        .await;
        run(format!(
            "INSERT INTO {prefix}ended (delivery_id, state, ended_at, token, attempts, cycle) VALUES ({}, 'dead', {last}, 1, 1, 1)",
            id(*delivery)
        ))
        .await;
    }
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead), (2, 0), "{pass:?}");
    assert_eq!(outbox.get(taken[0]).await.unwrap().unwrap().attempts[0].outcome, Outcome::Sent);
}

/// Rows of the queue whose mails are gone are removed, and what else is due is claimed.
pub(crate) async fn rows_without_a_mail_are_removed<S: AdminStore>(
    store: S,
    lose: impl AsyncFn(DeliveryId),
    queued: impl AsyncFn() -> i64,
) {
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    let ids = outbox.enqueue_all((0..6).map(|_| mail())).await.unwrap();
    for id in &ids[..5] {
        lose(*id).await;
    }
    // The first claim of two meets none that has a mail.
    let leases = store.claim(Claim::new(2, Duration::from_secs(60))).await.unwrap();
    assert!(leases.iter().all(|lease| lease.key.id == ids[5]));
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!(u64::try_from(leases.len()).unwrap() + pass.sent, 1);
    assert_eq!(queued().await, i64::try_from(leases.len()).unwrap());
    lose(ids[5]).await;
    outbox.relay().drain().await.unwrap();
}
