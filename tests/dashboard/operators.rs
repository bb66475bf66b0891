//! Pauses, probes, and the audit trail.

use axum::http::StatusCode;
use postrider::dashboard::Access;
use postrider::store::{RelayId, RelayReport};
use postrider::{Action, AdminStore, AuditFilter, Change, Email, PauseTarget, State};

use crate::fixture::{email, mail};
use crate::on_each_store;
use crate::site::{Site, hidden_fields};

fn newsletter() -> Email {
    mail().template_id("news").build().unwrap()
}

/// The part of a page from one text up to the next.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from}: {page}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to}: {page}")).0
}

/// The form that pauses mail.
fn pause_form(page: &str) -> &str {
    between(page, "pauses/pause\"", "</form>")
}

async fn mail_is_paused_and_resumed<S: AdminStore>(site: Site<S>) {
    let id = site.enqueue(newsletter()).await;
    let page = site.form("/pauses").await;
    assert!(between(&page, "id=\"pauses\"", "</section>").contains("<p>Nothing.</p>"), "{page}");
    // The page of a delivery leads to the form, with its template filled in.
    let delivery = site.page(&format!("/deliveries/{id}")).await;
    assert!(delivery.contains("href=\"../pauses?kind=template&#38;name=news\">Pause its template…"), "{delivery}");
    let page = site.form("/pauses?kind=template&name=news").await;
    assert!(page.contains("<option value=\"template\" selected>") && page.contains("value=\"news\""), "{page}");

    let filled = [("kind", "template"), ("name", " news "), ("note", "wrong price")];
    let reply = site.press("/pauses/pause", pause_form(&page), &filled).await;
    assert_eq!(reply.location(), "../pauses?done=paused");
    let page = site.form("/pauses?done=paused").await;
    let pauses = between(&page, "id=\"pauses\"", "</section>");
    for text in ["template <bdi>news</bdi>", "<bdi>Ada</bdi>", "<bdi>wrong price</bdi>"] {
        assert!(pauses.contains(text), "{text}: {pauses}");
    }
    assert!(page.contains("It is paused."), "{page}");
    // The pause has its effect.
    site.drain(Vec::new()).await;
    let delivery = site.outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Pending, 0));
    assert!(site.page("/overview").await.contains("<a href=\"./pauses\">"));

    let again = site.press("/pauses/pause", pause_form(&page), &filled).await;
    assert_eq!(again.location(), "../pauses?done=already");
    let resume = between(pauses, "pauses/resume\"", "</form>");
    assert_eq!(site.press("/pauses/resume", resume, &[]).await.location(), "../pauses?done=resumed");
    assert_eq!(site.press("/pauses/resume", resume, &[]).await.location(), "../pauses?done=gone");
    assert!(site.outbox.controls().await.unwrap().pauses.is_empty());
    // The first pass postponed the mail to the next millisecond.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    site.drain(Vec::new()).await;
    assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, State::Sent);
    let entries = site.outbox.audit(&AuditFilter::new()).await.unwrap();
    let actions: Vec<_> =
        entries.iter().map(|entry| (entry.action, entry.operator.as_str(), entry.note.as_deref())).collect();
    assert_eq!(actions, [(Action::Resume, "Ada", None), (Action::Pause, "Ada", Some("wrong price"))]);

    // A misspelt name is stored, with a warning.
    for (kind, name, done) in [
        ("template", "nwes", "unknown"),
        ("transport", "scripter", "unknown"),
        ("transport", "scripted", "paused"),
        ("sender", "Shop <shop@example.com>", "paused"),
    ] {
        let reply =
            site.press("/pauses/pause", pause_form(&page), &[("kind", kind), ("name", name), ("note", "")]).await;
        assert_eq!(reply.location(), format!("../pauses?done={done}"), "{name}");
    }
    assert!(site.page("/pauses?done=unknown").await.contains("check the spelling"));
    assert_eq!(site.outbox.controls().await.unwrap().pauses.len(), 4);
}

async fn each_kind_of_pause_can_be_resumed<S: AdminStore>(site: Site<S>) {
    // A program can pause what no field of a form can hold.
    for target in [
        PauseTarget::Outbox,
        PauseTarget::Transport("ses".to_owned()),
        PauseTarget::Sender("Shop@Example.com".to_owned()),
        PauseTarget::Template(" two\nlines & <b>\"quotes\"</b> ".to_owned()),
    ] {
        site.outbox.operator("bob").pause(target.clone()).await.unwrap();
        let page = site.form("/pauses").await;
        let resume = between(&page, "pauses/resume\"", "</form>");
        let reply = site.press("/pauses/resume", resume, &[]).await;
        assert_eq!(reply.location(), "../pauses?done=resumed", "{target:?}");
        assert!(site.outbox.controls().await.unwrap().pauses.is_empty(), "{target:?}");
    }
}

async fn a_pause_without_a_clear_target_is_refused<S: AdminStore>(site: Site<S>) {
    let page = site.form("/pauses").await;
    let long = "x".repeat(701);
    for (kind, name, error) in [
        ("", "news", "Choose what to pause."),
        ("everything", "", "Choose what to pause."),
        ("template", " ", "Write the name of what to pause."),
        ("outbox", "news", "All mail has no name."),
        ("sender", long.as_str(), "must have 1 to 700 characters"),
        ("template", "a\0b", "must have 1 to 700 characters"),
    ] {
        let filled = [("kind", kind), ("name", name), ("note", "a <note>")];
        let reply = site.press("/pauses/pause", pause_form(&page), &filled).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{kind} {name}");
        assert!(reply.text().contains(error), "{kind} {name}: {}", reply.text());
        assert!(reply.text().contains("value=\"a &#60;note&#62;\""), "the note is lost: {}", reply.text());
    }
    assert!(site.outbox.controls().await.unwrap().pauses.is_empty());
    assert_eq!(site.press("/pauses/erase", pause_form(&page), &[]).await.status, StatusCode::NOT_FOUND);
}

async fn a_relay_that_failed_is_shown_and_probed<S: AdminStore>(site: Site<S>) {
    let now = site.form("/pauses").await;
    assert!(now.contains("No relay has reported"), "{now}");
    let mut failed = RelayReport::new(RelayId::new(), 0, Some("535 <b>authentication</b> failed".to_owned()));
    failed.paused_for = Some(std::time::Duration::from_secs(90 * 60));
    let ordered = RelayReport::new(RelayId::new(), 0, Some("outbox: paused by bob: inventory".to_owned()));
    for report in [&failed, &ordered] {
        site.outbox.store().report(report).await.unwrap();
    }
    site.outbox.operator("bob").note("inventory").pause(PauseTarget::Outbox).await.unwrap();
    // The reports are read again after two seconds.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let page = site.form("/pauses").await;
    let relays = between(&page, "id=\"relays\"", "</section>");
    assert!(relays.contains("535 &#60;b&#62;authentication") && relays.contains("1 h 30 min"), "{relays}");
    assert!(!relays.contains("inventory"), "an operator's pause is not a failure: {relays}");
    assert!(!relays.contains("last asked for a probe"), "{relays}");
    let probe = between(relays, "pauses/probe\"", "</form>");
    assert_eq!(site.press("/pauses/probe", probe, &[]).await.location(), "../pauses?done=asked");
    assert!(site.outbox.controls().await.unwrap().probe_requested_at.is_some());
    assert!(site.page("/pauses?done=asked").await.contains("An operator last asked for a probe"));
}

async fn the_trail_has_filters_and_pages<S: AdminStore>(site: Site<S>) {
    assert!(site.page("/audit").await.contains("No operator has done anything yet."));
    let id = site.dead(email(), "550 no").await;
    let ada = site.outbox.operator("ada & <b>").note("why <i>not</i>");
    let _ = ada.change(Change::Resend, id).await.unwrap();
    for number in 0..60 {
        let template = PauseTarget::Template(format!("news-{number}-"));
        site.outbox.operator("bob").pause(template.clone()).await.unwrap();
        site.outbox.operator("bob").resume(template).await.unwrap();
    }
    let rows = |page: &str| page.matches("<tr><td><time").count();
    let mut path = "/audit?operator=bob&action=pause".to_owned();
    let mut found = Vec::new();
    for expected in [50, 10] {
        let page = site.page(&path).await;
        assert_eq!(rows(&page), expected, "{page}");
        assert!(page.contains("<option value=\"pause\" selected>") && !page.contains("<td>resume</td>"), "{page}");
        let names = page.split("<bdi>template news-").skip(1);
        found.extend(names.map(|rest| rest.split('-').next().unwrap().parse::<u32>().unwrap()));
        if expected == 50 {
            let older = between(&page, "rel=\"next\" href=\"./", "\"").replace("&#38;", "&");
            assert!(older.starts_with("audit?operator=bob&action=pause&before="), "{older}");
            path = format!("/{older}");
        } else {
            assert!(!page.contains("rel=\"next\"") && page.contains("First page"), "{page}");
        }
    }
    assert_eq!(found, (0..60).rev().collect::<Vec<_>>());
    let of_delivery = site.page(&format!("/audit?id={id}")).await;
    assert_eq!(rows(&of_delivery), 1);
    for text in ["ada &#38; &#60;b&#62;", "why &#60;i&#62;not&#60;/i&#62;", &format!("deliveries/{id}\"")] {
        assert!(of_delivery.contains(text), "{text}: {of_delivery}");
    }
    assert_eq!(rows(&site.page("/audit?operator=ada+%26+%3Cb%3E").await), 1);
    assert!(site.page("/audit?operator=nobody").await.contains("No entry matches."));
    for bad in ["id=1", "action=delete", "operator=a%00b"] {
        let reply = site.get(&format!("/audit?{bad}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(reply.text().contains("aria-invalid=\"true\"") && rows(reply.text()) == 0, "{}", reply.text());
    }
}

async fn a_timeline_tells_who_resent_it_and_why<S: AdminStore>(site: Site<S>) {
    let id = site.dead(email(), "550 no").await;
    // The note of the form is in the trail.
    let confirmation = site.form(&format!("/deliveries/{id}/resend")).await;
    let reply =
        site.press(&format!("/deliveries/{id}/resend"), &confirmation, &[("note", " the domain <works> ")]).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    site.drain(vec![postrider::Failure::permanent(postrider::Scope::Message, "552 full")]).await;
    // A program, which leaves no record.
    let _ = site.outbox.resend(id).await.unwrap();
    site.drain(vec![postrider::Failure::permanent(postrider::Scope::Message, "553 gone")]).await;
    let _ = site.outbox.operator("bob").note("given up").change(Change::Dismiss, id).await.unwrap();
    let page = site.page(&format!("/deliveries/{id}")).await;
    let mut rest = between(&page, "<ol class=\"timeline\">", "</ol>");
    for text in [
        "<h3>Enqueued",
        "<h3>Attempt 1",
        "<h3>Resent, with a new budget",
        "by Ada",
        "the domain &#60;works&#62;",
        "<h3>Attempt 2",
        "<h3>Resent, with a new budget",
        "no record of it",
        "<h3>Attempt 3",
        "<h3>Dismissed</h3>",
        "by bob",
        "given up",
    ] {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("no {text} after that: {page}")).1;
    }
    assert!(!rest.contains("Dismissed"), "it is told twice: {page}");
}

on_each_store!(
    mail_is_paused_and_resumed,
    each_kind_of_pause_can_be_resumed,
    a_pause_without_a_clear_target_is_refused,
    a_relay_that_failed_is_shown_and_probed,
    the_trail_has_filters_and_pages,
    a_timeline_tells_who_resent_it_and_why,
);

#[tokio::test]
async fn a_reader_sees_pauses_and_the_trail_and_gives_no_orders() {
    let site = Site::new();
    site.outbox.operator("bob").pause(PauseTarget::Outbox).await.unwrap();
    let form = site.form("/pauses").await;
    let reader = Site::over(site.outbox.store().clone(), Access::read());
    let page = reader.page("/pauses").await;
    assert!(page.contains("all mail") && page.contains("<bdi>bob</bdi>"), "{page}");
    assert!(!page.contains("method=\"post\""), "{page}");
    assert!(reader.page("/audit").await.contains("<bdi>outbox</bdi>"));
    for order in ["pause", "resume", "probe"] {
        let filled = [("kind", "template"), ("name", "news")];
        let form = hidden_fields(&form).into_iter().find(|(name, _)| name == "csrf").unwrap();
        let form = format!("<input type=\"hidden\" name=\"csrf\" value=\"{}\">", form.1);
        let reply = reader.press(&format!("/pauses/{order}"), &form, &filled).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{order}");
        // Without the token, nobody gives an order.
        let reply = site.press(&format!("/pauses/{order}"), "", &filled).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{order}");
    }
    let controls = site.outbox.controls().await.unwrap();
    assert_eq!((controls.pauses.len(), controls.probe_requested_at), (1, None));
}
