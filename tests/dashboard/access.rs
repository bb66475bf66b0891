//! Who may see and do what.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use postrider::dashboard::{Access, Dashboard};
use postrider::{DeliveryId, MemoryStore, Outbox};
use tower::ServiceExt;

use crate::fixture::{email, full};
use crate::site::{Reply, Site, post};

fn paths(id: DeliveryId) -> Vec<String> {
    let of_delivery = ["", "/resend", "/cancel", "/message", "/message.html", "/message.eml", "/attachments/1"];
    let mut paths: Vec<_> = of_delivery.iter().map(|end| format!("/deliveries/{id}{end}")).collect();
    let others = ["/", "/overview", "/deliveries", "/find?q=a", "/assets/style.css", "/nothing"];
    let of_operators = ["/bulk/cancel?state=pending", "/pauses", "/pauses/pause", "/audit"];
    paths.extend(others.into_iter().chain(of_operators).map(str::to_owned));
    paths
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    Reply::read(router.clone().oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn without_a_policy_every_request_is_refused_with_the_way_to_set_one() {
    let outbox = Outbox::enqueue_only(MemoryStore::new());
    let id = outbox.enqueue(full()).await.unwrap();
    let router = Dashboard::new(outbox).into_router();
    for path in paths(id) {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            let request = Request::builder().method(&method).uri(&path).body(Body::empty()).unwrap();
            let reply = send(&router, request).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {path}");
            let shows_how = reply.text().contains("Dashboard::new(outbox).access(");
            assert!(shows_how || method == Method::HEAD, "{method} {path}: {}", reply.text());
            assert!(!reply.text().contains("Your order") && !reply.text().contains("ada@example.com"));
        }
    }
}

#[tokio::test]
async fn the_policy_decides_by_the_head_of_each_request() {
    #[derive(Clone)]
    struct User(&'static str);
    let outbox = Outbox::enqueue_only(MemoryStore::new());
    let dashboard = Dashboard::new(outbox).access(|request| async move {
        // A policy may wait, as for the database of a session.
        tokio::task::yield_now().await;
        match request.extensions.get::<User>() {
            Some(User("ada")) => Access::operate().by("Ada <Lovelace>"),
            Some(_) => Access::read(),
            None if request.headers.contains_key("x-key") => Access::read(),
            None => Access::none(),
        }
    });
    let router = dashboard.into_router();
    let get = || Request::get("/overview");
    let status = async |request: Request<Body>| send(&router, request).await.status;
    assert_eq!(status(get().body(Body::empty()).unwrap()).await, StatusCode::FORBIDDEN);
    assert_eq!(status(get().header("x-key", "1").body(Body::empty()).unwrap()).await, StatusCode::OK);
    let ada = send(&router, get().extension(User("ada")).body(Body::empty()).unwrap()).await;
    assert!(ada.text().contains("<bdi>Ada &#60;Lovelace&#62;</bdi>"), "{}", ada.text());
    assert!(!ada.text().contains("read only"));
    let bob = send(&router, get().extension(User("bob")).body(Body::empty()).unwrap()).await;
    assert!(bob.text().contains("read only"));
}

#[tokio::test]
async fn a_reader_can_change_nothing() {
    let site = Site::with_access(Access::read());
    let id = site.enqueue(email()).await;
    let page = site.page(&format!("/deliveries/{id}")).await;
    assert!(page.contains("Show the message") && !page.contains("Cancel…"), "{page}");
    let path = format!("/deliveries/{id}/cancel");
    let asked = site.page(&path).await;
    assert!(asked.contains("You may only read") && !asked.contains("<form method=\"post\">"));
    let cookie = "postrider-csrf=00000000000000000000000000000000";
    let body = "csrf=00000000000000000000000000000000&seen=pending-1-0";
    let reply = site.send(post(&path, &[("sec-fetch-site", "same-origin"), ("cookie", cookie)], body)).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, postrider::State::Pending);
}

#[tokio::test]
async fn hidden_bodies_are_on_no_page() {
    let site = Site::with_access(Access::operate().without_bodies());
    let id = site.enqueue(full()).await;
    for path in paths(id) {
        let reply = site.get(&path).await;
        let text = String::from_utf8_lossy(&reply.bytes);
        for secret in ["on its way", "X-Shop", "invoice.pdf", "no-1815", "help@example.com"] {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
        if ["/message", "/attachments"].iter().any(|part| path.contains(part)) {
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    // The control: with bodies, they are there.
    let site = Site::new();
    let id = site.enqueue(full()).await;
    let page = site.page(&format!("/deliveries/{id}/message?show=text")).await;
    assert!(
        ["on its way", "X-Shop", "invoice.pdf", "no-1815", "help@example.com"].iter().all(|text| page.contains(text))
    );
}

#[test]
fn debug_masks_the_operator() {
    let shown = format!("{:?}", Access::operate().by("ada@example.com"));
    assert!(shown.contains("a***@example.com") && !shown.contains("ada@"), "{shown}");
    let dashboard = Dashboard::new(Outbox::<MemoryStore>::enqueue_only(MemoryStore::new()));
    assert!(format!("{dashboard:?}").contains("access: false"));
}
