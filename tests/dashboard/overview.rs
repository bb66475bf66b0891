//! The overview.

use std::time::Duration;

use postrider::store::{RelayId, RelayReport};
use postrider::{NewDelivery, PauseTarget, Store, TraceParent};

use crate::fixture::{email, mail};
use crate::site::Site;

#[tokio::test]
async fn an_empty_outbox_has_an_overview() {
    let site = Site::new();
    let page = site.page("/overview").await;
    assert!(page.contains("Nothing waits") && page.contains("There were none."), "{page}");
}

#[tokio::test]
async fn the_overview_shows_states_hours_failures_and_pauses() {
    let site = Site::new();
    for name in ["ada", "bob", "carol"] {
        let to = format!("{name}@example.org");
        site.dead(mail().to(to.as_str()).build().unwrap(), &format!("550 5.1.1 <{to}>: this mailbox is unknown")).await;
    }
    site.dead(email(), "552 the mailbox is full").await;
    site.enqueue(email()).await;
    site.drain(Vec::new()).await;
    site.enqueue(email()).await;
    let mut report = RelayReport::new(RelayId::new(), 3, Some("535 authentication failed".to_owned()));
    report.host = Some("mail-1 <b>".to_owned());
    site.outbox.store().report(&report).await.unwrap();
    let page = site.page("/overview").await;
    assert!(page.contains("Sending is paused") && page.contains("535 authentication failed"), "{page}");
    assert!(page.contains("<bdi>mail-1 &#60;b&#62;</bdi>"), "{page}");
    assert!(
        page.contains("<span class=\"count\">3</span> <a href=\"./deliveries?error=this+mailbox+is+unknown\">"),
        "{page}"
    );
    assert!(page.contains("<span class=\"count\">4</span> <span class=\"state dead\">dead</span>"), "{page}");
    assert!(page.contains("role=\"img\"") && page.contains("<td>1</td><td>4</td><td>4</td>"), "{page}");
    // The link to the failures finds exactly them.
    let list = site.page("/deliveries?error=this+mailbox+is+unknown").await;
    assert!(list.contains("3 found."), "{list}");
}

/// During an operator's pause, the next hop works and no relay probes it.
#[tokio::test]
async fn the_overview_tells_an_operators_pause_from_a_failure() {
    let site = Site::new();
    let operator = site.outbox.operator("ada <b>").note("wrong <price>");
    operator.pause(PauseTarget::Template("news".to_owned())).await.unwrap();
    operator.pause(PauseTarget::Outbox).await.unwrap();
    let report = RelayReport::new(RelayId::new(), 0, Some("outbox: paused by ada <b>: wrong <price>".to_owned()));
    site.outbox.store().report(&report).await.unwrap();
    let page = site.page("/overview").await;
    assert!(page.contains("An operator paused the sending") && !page.contains("The next hop refuses"), "{page}");
    assert!(
        page.contains("<li><bdi>template news for ") && page.contains("by ada &#60;b&#62;: wrong &#60;price&#62;"),
        "{page}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_statistics_are_read_once_in_two_seconds_for_all_viewers() {
    let site = Site::new();
    let has_one =
        async || site.page("/overview").await.contains("<span class=\"count\">1</span> <span class=\"state pending\">");
    assert!(!has_one().await);
    site.enqueue(email()).await;
    tokio::time::advance(Duration::from_millis(1_900)).await;
    assert!(!has_one().await, "the statistics were read again");
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(has_one().await, "the statistics are old");
}

#[tokio::test]
async fn a_delivery_shows_the_trace_of_its_request() {
    let site = Site::new();
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
    let parent = header.parse::<TraceParent>().unwrap();
    let id = site.enqueue(NewDelivery::new(email()).traceparent(parent)).await;
    let page = site.page(&format!("/deliveries/{id}")).await;
    assert!(page.contains(&format!("<li><bdi>trace {header}</bdi></li>")), "{page}");
    let id = site.enqueue(email()).await;
    assert!(!site.page(&format!("/deliveries/{id}")).await.contains("trace"));
}
