//! Changes of all deliveries that a filter finds.

use std::time::Duration;

use axum::http::StatusCode;
use postrider::dashboard::Access;
use postrider::{Action, AdminStore, AuditFilter, DeliveryId, Email, Filter, State};

use crate::fixture::email;
use crate::on_each_store;
use crate::site::{Site, hidden_fields, in_sqlite, post, unescape};

/// Waits for a later millisecond, because a confirmation page finds only what happened before its own millisecond.
async fn let_a_moment_pass() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

async fn state<S: AdminStore>(site: &Site<S>, id: DeliveryId) -> State {
    site.outbox.get(id).await.unwrap().unwrap().state
}

fn mail_to(to: &str) -> Email {
    Email::builder().from("shop@example.com").to(to).subject("Your order").text("It is on its way.").build().unwrap()
}

async fn dead_to<S: AdminStore>(site: &Site<S>, to: &str) -> DeliveryId {
    site.dead(mail_to(to), "550 the domain is blocked").await
}

async fn what_was_confirmed_is_changed_and_nothing_else<S: AdminStore>(site: Site<S>) {
    let mut blocked = Vec::new();
    for number in 0..3 {
        blocked.push(dead_to(&site, &format!("user{number}@old.example")).await);
    }
    let other = dead_to(&site, "ada@example.com").await;
    let sent = site.enqueue(mail_to("bob@old.example")).await;
    site.drain(Vec::new()).await;
    let_a_moment_pass().await;

    let list = site.page("/deliveries?state=dead&to=%40old.example&since=1d").await;
    let link = "href=\"./bulk/resend?state=dead&#38;to=%40old.example&#38;since=1d\">Resend all that match…</a>";
    assert!(list.contains(link) && list.contains("Dismiss all that match…"), "{list}");
    assert!(!list.contains("Cancel all that match…"), "{list}");

    let confirmation = site.form("/bulk/resend?state=dead&to=%40old.example&since=1d").await;
    for text in ["<h2 id=\"matching\">3 match</h2>", "<dt>Recipient</dt><dd><bdi>@old.example</bdi></dd>", "Resend 3"] {
        assert!(confirmation.contains(text), "{text}: {confirmation}");
    }
    assert!(
        confirmation.contains("user2@old.example") && confirmation.contains("550 the domain is blocked"),
        "{confirmation}"
    );
    assert!(!confirmation.contains("bob@old.example") && !confirmation.contains("ada@example.com"), "{confirmation}");
    assert_eq!(state(&site, blocked[0]).await, State::Dead, "a confirmation page must change nothing");
    // The link to exactly these leads to a list of the same.
    let exact = confirmation.split("href=\"../deliveries?").find(|link| link.contains("finished_until")).unwrap();
    let exact = unescape(exact.split('"').next().unwrap());
    assert!(site.page(&format!("/deliveries?{exact}")).await.contains("3 found."));

    // A mail that becomes a dead letter after the confirmation page is left alone.
    let_a_moment_pass().await;
    let later = dead_to(&site, "late@old.example").await;
    let done = site.press("/bulk/resend", &confirmation, &[("note", "unblocked <b>today</b>")]).await;
    assert_eq!(done.status, StatusCode::OK);
    assert!(done.text().contains("Done: 3 pending again.") && !done.text().contains("<form method"), "{}", done.text());
    // The list with the filter as the operator had set it.
    assert!(
        done.text().contains("href=\"../deliveries?state=dead&#38;to=%40old.example&#38;since=1d\""),
        "{}",
        done.text()
    );
    for id in blocked {
        assert_eq!(state(&site, id).await, State::Pending);
    }
    for (id, kept) in [(other, State::Dead), (later, State::Dead), (sent, State::Sent)] {
        assert_eq!(state(&site, id).await, kept);
    }
    let entries = site.outbox.audit(&AuditFilter::new()).await.unwrap();
    assert_eq!(entries.len(), 3);
    for entry in entries {
        assert_eq!((entry.operator.as_str(), entry.action), ("Ada", Action::Resend));
        assert_eq!(entry.note.as_deref(), Some("unblocked <b>today</b>"));
        assert!(entry.target.as_deref().unwrap().contains("state dead"), "{:?}", entry.target);
    }
    let trail = site.page("/audit").await;
    assert!(trail.contains("3 deliveries") && trail.matches("unblocked &#60;b&#62;").count() == 1, "{trail}");

    // The same form again finds nothing, and changes nothing.
    let again = site.press("/bulk/resend", &confirmation, &[]).await;
    assert!(again.text().contains("Done: 0 pending again."), "{}", again.text());
}

async fn a_long_change_goes_on_in_parts_and_can_be_left<S: AdminStore>(site: Site<S>) {
    site.outbox.enqueue_all((0..2_600).map(|_| email())).await.unwrap();
    let_a_moment_pass().await;
    let count = async |state| site.outbox.count(&Filter::new().state(state).limit(10_000)).await.unwrap();
    let confirmation = site.form("/bulk/cancel?state=pending").await;
    assert!(confirmation.contains("2,600 match"), "{confirmation}");
    // Mail that comes after the confirmation page.
    let later = site.enqueue(email()).await;

    let first = site.press("/bulk/cancel", &confirmation, &[("note", "wrong price")]).await;
    let cancelled = count(State::Cancelled).await;
    // As many as a request does, or fewer if the machine is slow.
    assert!((500..=2_000).contains(&cancelled), "{cancelled}");
    assert_eq!(count(State::Pending).await, 2_601 - cancelled, "the rest was not left alone");
    assert!(first.text().contains(" of 2,600 cancelled so far.") && first.text().contains(">Continue</button>"));
    let fields = hidden_fields(first.text());
    assert!(fields.contains(&("note".to_owned(), "wrong price".to_owned())), "{fields:?}");

    let mut page = first.text().to_owned();
    for _ in 0..6 {
        page = site.press("/bulk/cancel", &page, &[]).await.text().to_owned();
        if page.contains("Done: ") {
            break;
        }
    }
    assert!(page.contains("Done: 2,600 cancelled."), "{page}");
    assert_eq!((count(State::Cancelled).await, count(State::Pending).await), (2_600, 1));
    assert_eq!(state(&site, later).await, State::Pending);
    // An older form of the same change, as after the back button.
    let old = site.press("/bulk/cancel", first.text(), &[]).await;
    assert!(old.text().contains("Done: "), "{}", old.text());
    assert_eq!(count(State::Pending).await, 1);
    let entries = site.outbox.audit(&AuditFilter::new().limit(10_000)).await.unwrap();
    assert_eq!(entries.len(), 2_600, "each delivery has one entry");
    assert!(entries.iter().all(|entry| entry.note.as_deref() == Some("wrong price")));
}

async fn what_somebody_else_changed_meanwhile_is_left_alone<S: AdminStore>(site: Site<S>) {
    let (first, second) = (dead_to(&site, "a@old.example").await, dead_to(&site, "b@old.example").await);
    let_a_moment_pass().await;
    let confirmation = site.form("/bulk/dismiss?state=dead").await;
    // The first one is resent, and becomes a dead letter for another reason.
    let _ = site.outbox.resend(first).await.unwrap();
    site.drain(vec![postrider::Failure::permanent(postrider::Scope::Message, "552 full")]).await;
    let done = site.press("/bulk/dismiss", &confirmation, &[]).await;
    assert!(done.text().contains("Done: 1 dismissed."), "{}", done.text());
    assert_eq!(state(&site, first).await, State::Dead, "it failed after the confirmation page");
    assert_eq!(state(&site, second).await, State::Dismissed);
}

async fn a_bulk_change_without_a_fitting_state_is_refused<S: AdminStore>(site: Site<S>) {
    let id = site.dead(email(), "550 no").await;
    for path in [
        "/bulk/resend",
        "/bulk/resend?to=%40example.com",
        "/bulk/resend?state=pending",
        "/bulk/cancel?state=dead",
        "/bulk/dismiss?state=sent",
        "/bulk/dismiss?state=dead&since=yesterday",
    ] {
        let reply = site.get(path).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path}: {}", reply.text());
        assert!(!reply.text().contains("<form method"), "{path}");
    }
    assert_eq!(site.get("/bulk/erase?state=dead").await.status, StatusCode::NOT_FOUND);
    // Forms that no page has: without a state, without the time at which the filter was fixed, and with an error.
    let token = hidden_fields(&site.form("/pauses").await);
    let token = token.iter().find(|(name, _)| name == "csrf").unwrap().1.clone();
    for filter in
        ["", "to=ada%40example.com", "state=dead", "state=dead&until=1h", "state=pending", "state=dead&since=x"]
    {
        let reply = site.press("/bulk/dismiss", "", &[("csrf", &token), ("filter", filter)]).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{filter}: {}", reply.text());
    }
    assert_eq!(state(&site, id).await, State::Dead);
    // The lists offer only what makes sense.
    assert!(!site.page("/deliveries").await.contains("all that match…"));
    assert!(!site.page("/deliveries?state=sent").await.contains("all that match…"), "nothing matches");
}

on_each_store!(
    what_was_confirmed_is_changed_and_nothing_else,
    a_long_change_goes_on_in_parts_and_can_be_left,
    what_somebody_else_changed_meanwhile_is_left_alone,
    a_bulk_change_without_a_fitting_state_is_refused,
);

#[tokio::test]
async fn a_change_that_an_outage_interrupts_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let site = in_sqlite(directory.path()).await;
    site.outbox.enqueue_all((0..2_600).map(|_| email())).await.unwrap();
    let_a_moment_pass().await;
    let confirmation = site.form("/bulk/cancel?state=pending").await;
    let first = site.press("/bulk/cancel", &confirmation, &[]).await;
    assert!(first.text().contains("data-continue"), "{}", first.text());
    site.outbox.store().pool().close().await;
    let failed = site.press("/bulk/cancel", first.text(), &[]).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(failed.text().contains("The database failed."), "{}", failed.text());
    // The script does not repeat it by itself, and the form stands where the last one stood.
    assert!(!failed.text().contains("data-continue"), "{}", failed.text());
    assert_eq!(hidden_fields(failed.text()), hidden_fields(first.text()));

    let site = in_sqlite(directory.path()).await;
    let mut page = failed.text().to_owned();
    for _ in 0..6 {
        page = site.press("/bulk/cancel", &page, &[]).await.text().to_owned();
        if page.contains("Done: ") {
            break;
        }
    }
    assert!(page.contains("Done: 2,600 cancelled."), "{page}");
    assert_eq!(site.outbox.stats().await.unwrap().cancelled, 2_600);
}

/// In the form, each character of the filter is escaped to twelve.
#[tokio::test]
async fn a_long_filter_fits_into_the_form() {
    let site = Site::new();
    let subject = "\u{1f4ec}".repeat(1_000);
    let delivery = Email::builder().from("shop@example.com").to("ada@example.com").subject(&subject).text("Hello");
    let id = site.enqueue(delivery.build().unwrap()).await;
    let_a_moment_pass().await;
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("subject", &subject).finish();
    let confirmation = site.form(&format!("/bulk/cancel?state=pending&{query}")).await;
    assert!(confirmation.contains("1 match"), "{confirmation}");
    let done = site.press("/bulk/cancel", &confirmation, &[("note", &subject)]).await;
    assert!(done.text().contains("Done: 1 cancelled."), "{}", done.text());
    assert_eq!(state(&site, id).await, State::Cancelled);
}

#[tokio::test]
async fn many_deliveries_are_counted_up_to_a_limit() {
    let site = Site::new();
    site.outbox.enqueue_all((0..10_001).map(|_| email())).await.unwrap();
    let_a_moment_pass().await;
    let confirmation = site.form("/bulk/cancel?state=pending").await;
    assert!(
        confirmation.contains("10,000 or more match") && confirmation.contains("Cancel 10,000 or more"),
        "{confirmation}"
    );
    let part = site.press("/bulk/cancel", &confirmation, &[]).await;
    assert!(part.text().contains("cancelled so far") && !part.text().contains("<progress"), "{}", part.text());
}

#[tokio::test]
async fn a_forged_or_forbidden_bulk_change_changes_nothing() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    let_a_moment_pass().await;
    let confirmation = site.form("/bulk/cancel?state=pending").await;
    let body = |without: &str| {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(hidden_fields(&confirmation).into_iter().filter(|(name, _)| name != without)).finish()
    };
    let cookie = ("cookie", "postrider-csrf=0123456789abcdef0123456789abcdef");
    let same = ("sec-fetch-site", "same-origin");
    for (who, headers, body) in [
        ("another site", vec![cookie, ("sec-fetch-site", "cross-site")], body("")),
        ("no origin", vec![cookie], body("")),
        ("no cookie", vec![same], body("")),
        ("no token", vec![cookie, same], body("csrf")),
    ] {
        let reply = site.send(post("/bulk/cancel", &headers, body)).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{who}");
        assert_eq!(state(&site, id).await, State::Pending, "{who}");
    }
    // Who may only read sees the confirmation page, and cannot confirm.
    let reader = Site::over(site.outbox.store().clone(), Access::read());
    let shown = reader.page("/bulk/cancel?state=pending").await;
    assert!(shown.contains("You may only read") && !shown.contains("method=\"post\""), "{shown}");
    assert!(!reader.page("/deliveries?state=pending").await.contains("all that match…"));
    assert_eq!(reader.press("/bulk/cancel", &confirmation, &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(state(&site, id).await, State::Pending);
    // The control.
    assert_eq!(site.press("/bulk/cancel", &confirmation, &[]).await.status, StatusCode::OK);
    assert_eq!(state(&site, id).await, State::Cancelled);
}
