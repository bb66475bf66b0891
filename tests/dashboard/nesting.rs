//! The dashboard under other paths.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use postrider::dashboard::{Access, Dashboard};
use postrider::{MemoryStore, Outbox};
use tower::ServiceExt;

use crate::fixture::email;
use crate::site::Reply;

fn dashboard(outbox: &Outbox<MemoryStore>) -> Router {
    Dashboard::new(outbox.clone()).access(|_| async { Access::operate() }).into_router()
}

async fn get(router: &Router, path: &str) -> Reply {
    let request = Request::get(path).body(Body::empty()).unwrap();
    Reply::read(router.clone().oneshot(request).await.unwrap()).await
}

/// Resolves a relative reference as a browser does (RFC 3986 section 5.2), without dots after the first segments.
fn resolve(path: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let mut directory: Vec<_> = path.split('?').next().unwrap().split('/').collect();
    directory.pop();
    let mut reference = reference;
    loop {
        if let Some(rest) = reference.strip_prefix("../") {
            directory.pop();
            reference = rest;
        } else if let Some(rest) = reference.strip_prefix("./") {
            reference = rest;
        } else {
            return format!("{}/{reference}", directory.join("/"));
        }
    }
}

/// Every link and asset of a page.
fn links(page: &Reply) -> Vec<String> {
    let starts = ["href=\"", "src=\"", "action=\""];
    // The target of a form that posts is not a page: see `actions`.
    let text = page.text().replace("method=\"post\" action=\"", "method=\"post\" data-post=\"");
    let all: Vec<_> = starts.iter().flat_map(|start| text.split(start).skip(1).map(str::to_owned)).collect();
    let all = all.into_iter();
    let all = all.map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&"));
    all.filter(|link| !link.starts_with(['#']) && !link.starts_with("data:")).collect()
}

/// The targets of the forms of a page that post.
fn actions(page: &Reply) -> Vec<String> {
    let all = page.text().split("method=\"post\" action=\"").skip(1);
    all.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

async fn follow_every_link(router: &Router, start: &str) -> usize {
    let mut seen = vec![start.to_owned()];
    let mut next = 0;
    while let Some(path) = seen.get(next).cloned() {
        next += 1;
        let reply = get(router, &path).await;
        if reply.status.is_redirection() {
            let to = resolve(&path, reply.location());
            if !seen.contains(&to) {
                seen.push(to);
            }
            continue;
        }
        assert!(reply.status.is_success(), "{path}: {}", reply.status);
        if !reply.header("content-type").starts_with("text/html") {
            continue;
        }
        for action in actions(&reply) {
            let to = resolve(&path, &action);
            let status = get(router, &to).await.status;
            // There is a route. It refuses `GET`, or a bulk change without a filter.
            assert!([StatusCode::METHOD_NOT_ALLOWED, StatusCode::BAD_REQUEST].contains(&status), "{to}: {status}");
        }
        for link in links(&reply) {
            let to = resolve(&path, &link);
            if !seen.contains(&to) {
                seen.push(to);
            }
        }
    }
    seen.len()
}

#[tokio::test]
async fn every_link_works_under_every_path() {
    let outbox = Outbox::enqueue_only(MemoryStore::new());
    outbox.enqueue(email()).await.unwrap();
    let host = || Router::new().route("/", axum::routing::get(|| async { "host" }));
    let at_root = dashboard(&outbox);
    let expected = follow_every_link(&at_root, "/").await;
    assert!(expected > 15, "only {expected} links");
    for (router, starts) in [
        (host().nest("/admin/mail", dashboard(&outbox)), vec!["/admin/mail"]),
        (host().nest_service("/admin/mail", dashboard(&outbox)), vec!["/admin/mail", "/admin/mail/"]),
        (host().nest("/admin/mail/", dashboard(&outbox)), vec!["/admin/mail/"]),
        (host().nest("/{tenant}/mail", dashboard(&outbox)), vec!["/shop/mail"]),
        (host().nest_service("/{tenant}/mail", dashboard(&outbox)), vec!["/shop/mail", "/shop/mail/"]),
        (host().nest("/a", Router::new().nest("/b", dashboard(&outbox))), vec!["/a/b"]),
        (host().fallback_service(dashboard(&outbox)), vec!["/overview"]),
    ] {
        for start in starts {
            let found = follow_every_link(&router, start).await;
            let redirects = usize::from(start != "/overview");
            assert_eq!(found, expected - 1 + redirects, "from {start}");
        }
    }
}

#[tokio::test]
async fn a_slash_at_the_end_leads_to_the_page_without_it() {
    let outbox = Outbox::enqueue_only(MemoryStore::new());
    let router = Router::new().nest_service("/admin/mail", dashboard(&outbox));
    for (path, location) in [
        ("/admin/mail", "/admin/mail/overview"),
        ("/admin/mail/", "overview"),
        ("/admin/mail/deliveries/", "../deliveries"),
        ("/admin/mail/deliveries/1/message/", "../message"),
    ] {
        assert_eq!(get(&router, path).await.location(), location, "{path}");
    }
    // Never to another host.
    for path in ["/admin/mail//evil.example/", "/admin/mail//", "/admin/mail/\\evil.example/"] {
        let reply = get(&router, path).await;
        let location = reply.header("location");
        assert!(
            ["", "overview", "../evil.example"].contains(&location) || location.starts_with("../\\"),
            "{path}: {location}"
        );
    }
}
