//! The handle of a relay.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{Email, Failure, Outbox, PauseTarget, RelayState, Scope};
use tokio_util::sync::CancellationToken;

use crate::harness::outbox;
use crate::support::fixture::ada;
use crate::support::wait::until;
use crate::unreliable_store::UnreliableStore;

#[tokio::test]
async fn a_handle_follows_the_relay_from_its_creation_to_its_end() {
    let (release, released) = tokio::sync::watch::channel(false);
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            Ok(postrider::transport::Receipt::new())
        }
    });
    let outbox = outbox(transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let relay = outbox.relay();
    let handle = relay.handle();
    assert_eq!((handle.state(), handle.health().is_healthy()), (RelayState::Created, false));

    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    until("the mail is being sent", || async { transport.calls().len() == 1 }).await;
    let health = handle.health();
    assert_eq!((health.state, health.in_flight, health.is_healthy()), (RelayState::Running, 1, true));
    assert_eq!((health.transport.as_deref(), health.paused_senders), (Some("scripted"), 0));
    assert!(health.paused.is_none() && health.paused_for.is_none() && health.store_answered_ago.is_some());
    // The id is that of the relay's report.
    until("the relay reports", || async { outbox.stats().await.unwrap().relays.len() == 1 }).await;
    assert_eq!(outbox.stats().await.unwrap().relays[0].id, handle.id().to_string());

    shutdown.cancel();
    until("the relay stops", || async { handle.state() == RelayState::Stopping }).await;
    assert!(!handle.health().is_healthy(), "it claims no more");
    assert_eq!(handle.health().in_flight, 1);
    release.send(true).unwrap();
    worker.await.unwrap().unwrap();
    let health = handle.health();
    assert_eq!((health.state, health.in_flight, health.is_healthy()), (RelayState::Stopped, 0, false));
}

#[tokio::test]
async fn a_dropped_relay_is_shown_as_stopped() {
    let outbox = outbox(ScriptedTransport::new());
    let relay = outbox.relay();
    let handle = relay.handle();
    let worker = tokio::spawn(relay.run(std::future::pending()));
    until("the relay runs", || async { handle.state() == RelayState::Running }).await;
    worker.abort();
    assert!(worker.await.unwrap_err().is_cancelled());
    assert_eq!(handle.state(), RelayState::Stopped);
    assert!(handle.health().transport.is_none());
}

#[tokio::test]
async fn an_outage_is_unhealthy_and_a_pause_is_not() {
    let store = UnreliableStore::default();
    let refused = |_: &_| async { Err(Failure::permanent(Scope::Transport, "535 bad password")) };
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new().with_handler(refused));
    outbox.enqueue(ada()).await.unwrap();
    let relay = outbox.relay().poll(Duration::from_millis(5));
    let handle = relay.handle();
    let worker = tokio::spawn(relay.run(std::future::pending()));
    until("the transport is paused", || async { handle.health().paused.is_some() }).await;
    let health = handle.health();
    let paused = health.paused.as_ref().unwrap();
    assert_eq!((paused.transport.as_str(), paused.reason.as_str()), ("scripted", "535 bad password"));
    assert!(health.is_healthy() && health.paused_for.is_some());

    store.take_down();
    until("the outage is noticed", || async { handle.health().store_unavailable_for.is_some() }).await;
    assert!(!handle.health().is_healthy());
    store.bring_up();
    until("the outage is over", || async { handle.health().store_unavailable_for.is_none() }).await;
    assert!(handle.health().is_healthy());
    worker.abort();
}

/// The name of the host is in the relay's report, and reaches a handle that was made before.
#[tokio::test]
async fn a_relay_reports_its_host() {
    let system = std::process::Command::new("uname").arg("-n").output().unwrap().stdout;
    let system = String::from_utf8(system).unwrap().trim().to_owned();
    for (name, expected) in [
        (None, Some(system.as_str())),
        (Some("mail-1"), Some("mail-1")),
        (Some(" "), None),
        (Some("ada@example.com"), Some("a***@example.com")),
    ] {
        let transport = ScriptedTransport::<Email>::new();
        let outbox = outbox(transport);
        let relay = outbox.relay();
        let handle = relay.handle();
        let relay = match name {
            Some(name) => relay.host(name),
            None => relay,
        };
        assert_eq!(handle.host().as_deref(), expected);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
        until("it has reported", || async { !outbox.stats().await.unwrap().relays.is_empty() }).await;
        let relays = outbox.stats().await.unwrap().relays;
        assert_eq!((&relays[0].id, relays[0].host.as_deref()), (&handle.id().to_string(), expected));
        shutdown.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(handle.host().as_deref(), expected, "it is still known after the end");
    }
}

/// A relay that is paused on purpose is healthy, and says which pauses it obeys.
#[tokio::test]
async fn pauses_by_operators_are_shown_and_healthy() {
    let outbox = outbox(ScriptedTransport::new());
    let relay = outbox.relay().poll(Duration::from_millis(5));
    let handle = relay.handle();
    assert!(handle.health().operator_pauses.is_empty());
    let worker = tokio::spawn(relay.run(std::future::pending()));
    let ada = outbox.operator("ada").note("wrong price");
    let targets = [
        PauseTarget::Outbox,
        PauseTarget::Transport("scripted".to_owned()),
        PauseTarget::Sender("shop@example.com".to_owned()),
        PauseTarget::Template("news".to_owned()),
    ];
    let other = PauseTarget::Transport("ses".to_owned());
    assert!(ada.pause(other.clone()).await.unwrap(), "this relay is not concerned");
    for target in &targets {
        assert!(ada.pause(target.clone()).await.unwrap());
    }
    until("the pauses are shown", || async { handle.health().operator_pauses.len() == targets.len() }).await;
    let health = handle.health();
    assert!(health.is_healthy() && health.paused.is_none() && health.paused_senders == 0, "{health:?}");
    let shown: Vec<_> = health.operator_pauses.iter().map(|pause| pause.target.clone()).collect();
    assert_eq!(shown, targets);
    assert_eq!(health.operator_pauses[3].to_string(), "template news: paused by ada: wrong price");
    assert!(!format!("{health:?}").contains("shop@example.com"), "{health:?}");
    for target in targets {
        assert!(ada.resume(target).await.unwrap());
    }
    until("no pause is shown", || async { handle.health().operator_pauses.is_empty() }).await;
    worker.abort();
}
