//! Resend and cancel, and forgeries of them.

use axum::http::{StatusCode, header};
use postrider::State;

use crate::fixture::{email, mail};
use crate::site::{Site, post};

#[tokio::test]
async fn a_dead_letter_is_resent_after_a_confirmation() {
    let site = Site::new();
    let id = site.dead(email(), "550 no").await;
    let page = site.page(&format!("/deliveries/{id}")).await;
    assert!(page.contains("Resend…") && !page.contains("Cancel…"), "{page}");
    let path = format!("/deliveries/{id}/resend");
    let confirmation = site.page(&path).await;
    assert!(confirmation.contains("ada@example.com") && !confirmation.contains("twice"), "{confirmation}");
    assert_eq!(
        site.outbox.get(id).await.unwrap().unwrap().state,
        State::Dead,
        "a confirmation page must change nothing"
    );
    let reply = site.submit(&path).await;
    assert_eq!(reply.location(), format!("../{id}?done=resent"));
    let delivery = site.outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.cycle), (State::Pending, 2));
    let page = site.page(&format!("/deliveries/{id}?done=resent")).await;
    assert!(page.contains("pending again") && page.contains("Resent, with a new budget"), "{page}");
}

#[tokio::test]
async fn a_pending_delivery_is_cancelled_and_the_filter_is_kept() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    let list = site.page("/deliveries?state=pending&to=ada%40example.com").await;
    let link = list.split("href=\"").find(|link| link.contains(&id.to_string())).unwrap();
    let link = link.split('"').next().unwrap().replace("&#38;", "&");
    let detail = format!("/{}", link.trim_start_matches("./"));
    let page = site.page(&detail).await;
    let back = "deliveries?state=pending&#38;to=ada%40example.com";
    assert!(page.contains(back), "{page}");
    let path = detail.replacen('?', "/cancel?", 1);
    let reply = site.submit(&path).await;
    assert!(reply.location().starts_with(&format!("../{id}?done=cancelled&back=")), "{}", reply.location());
    assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, State::Cancelled);
    let after = site.page(&reply.location().replacen("../", "/deliveries/", 1)).await;
    assert!(after.contains(back) && after.contains("The delivery is cancelled"), "{after}");
}

#[tokio::test]
async fn a_link_back_can_lead_only_to_a_list() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    for back in ["https%3A%2F%2Fevil.example", "%2F%2Fevil.example", "javascript%3Aalert(1)", "x%3D1%22%3E%3Cscript%3E"]
    {
        let page = site.page(&format!("/deliveries/{id}?back={back}")).await;
        assert!(!page.contains("evil") && !page.contains("alert") && !page.contains("<script>"), "{page}");
        assert!(page.contains("All deliveries"));
    }
}

#[tokio::test]
async fn a_confirmation_page_says_who_may_get_the_mail_twice() {
    let site = Site::new();
    let held = site.held(email()).await;
    assert!(site.page(&format!("/deliveries/{held}/resend")).await.contains("They can get it twice"));
    let sent = site.enqueue(mail().to("bob@example.org").build().unwrap()).await;
    site.drain(Vec::new()).await;
    let confirmation = site.page(&format!("/deliveries/{sent}/resend")).await;
    assert!(
        confirmation.contains("They can get it twice") && confirmation.contains("bob@example.org"),
        "{confirmation}"
    );
}

#[tokio::test]
async fn a_delivery_that_has_changed_since_the_confirmation_page_is_left_alone() {
    let site = Site::new();
    let id = site.dead(email(), "550 no").await;
    let path = format!("/deliveries/{id}/resend");
    let form = site.get(&path).await;
    let cookie = form.header(header::SET_COOKIE).split(';').next().unwrap().to_owned();
    // Somebody else resends it, and it is sent.
    let _ = site.outbox.resend(id).await.unwrap();
    site.drain(Vec::new()).await;
    let body = format!("csrf={}&seen={}", form.field("csrf"), form.field("seen"));
    let reply = site.send(post(&path, &[("sec-fetch-site", "same-origin"), ("cookie", &cookie)], body)).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert!(reply.text().contains("has changed since you opened this page"), "{}", reply.text());
    assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, State::Sent, "it was sent a second time");
}

#[tokio::test]
async fn actions_that_the_state_does_not_allow_are_not_offered() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    let resend = site.page(&format!("/deliveries/{id}/resend")).await;
    assert!(resend.contains("It is not finished") && !resend.contains("method=\"post\""), "{resend}");
    site.drain(Vec::new()).await;
    let cancel = site.page(&format!("/deliveries/{id}/cancel")).await;
    assert!(cancel.contains("Only a pending delivery") && !cancel.contains("method=\"post\""), "{cancel}");
}

#[tokio::test]
async fn forged_requests_change_nothing() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    let path = format!("/deliveries/{id}/cancel");
    let form = site.get(&path).await;
    let cookie = form.header(header::SET_COOKIE).split(';').next().unwrap().to_owned();
    assert!(form.header(header::SET_COOKIE).ends_with("; Path=/; HttpOnly; SameSite=Lax"));
    let (token, seen) = (form.field("csrf"), form.field("seen"));
    let body = format!("csrf={token}&seen={seen}");
    let host = ("host", "ops.example");
    let same = ("sec-fetch-site", "same-origin");
    let cookie = ("cookie", cookie.as_str());
    let zero = "0".repeat(32);
    let forgeries = [
        (
            "another site",
            vec![host, cookie, ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
            &body,
        ),
        ("a sibling domain", vec![host, cookie, ("sec-fetch-site", "same-site")], &body),
        ("an old browser on another site", vec![host, cookie, ("origin", "http://evil.example")], &body),
        ("another port", vec![host, cookie, ("origin", "http://ops.example:81")], &body),
        ("a sandboxed frame", vec![host, cookie, ("origin", "null")], &body),
        ("no origin", vec![host, cookie], &body),
        ("no cookie", vec![host, same], &body),
        ("another cookie", vec![host, same, ("cookie", "postrider-csrf=00000000000000000000000000000000")], &body),
        ("no token", vec![host, same, cookie], &format!("seen={seen}")),
        ("another token", vec![host, same, cookie], &format!("csrf={zero}&seen={seen}")),
        ("an empty form", vec![host, same, cookie], &String::new()),
    ];
    for (who, headers, body) in forgeries {
        let reply = site.send(post(&path, &headers, body.clone())).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{who}: {}", reply.text());
        assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, State::Pending, "{who}");
    }
    let huge = site.send(post(&path, &[host, same, cookie], format!("{body}&x={}", "x".repeat(300_000)))).await;
    assert_eq!(huge.status, StatusCode::BAD_REQUEST);
    // The control: the same form from the dashboard's page, by each of the two headers.
    let reply = site.send(post(&path, &[host, cookie, ("origin", "http://ops.example")], body)).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.text());
    assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, State::Cancelled);
}

#[tokio::test]
async fn nothing_is_changed_by_get() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    for action in ["resend", "cancel"] {
        let reply = site.get(&format!("/deliveries/{id}/{action}?csrf=1&seen=pending-1-0")).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
    let delivery = site.outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.cycle), (State::Pending, 1));
}
