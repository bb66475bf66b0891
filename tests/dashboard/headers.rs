//! The headers of every response.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};

use crate::fixture::full;
use crate::site::Site;

/// The directives of a content security policy.
fn directives(policy: &str) -> Vec<(&str, &str)> {
    let directives = policy.split(';').map(str::trim);
    directives.map(|directive| directive.split_once(' ').unwrap_or((directive, ""))).collect()
}

#[tokio::test]
async fn every_response_has_the_headers() {
    let site = Site::new();
    let id = site.enqueue(full()).await;
    let pages = ["/overview", "/deliveries", "/deliveries?since=x", "/nothing", "/", "/deliveries/x", "/assets/x"];
    let mut paths: Vec<_> = pages.map(str::to_owned).into();
    for end in
        ["", "/resend", "/cancel", "/message", "/message.html", "/message.eml", "/attachments/1", "/attachments/9"]
    {
        paths.push(format!("/deliveries/{id}{end}"));
    }
    for path in paths {
        let reply = site.get(&path).await;
        assert_eq!(reply.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(reply.header(header::X_FRAME_OPTIONS), "SAMEORIGIN", "{path}");
        assert_eq!(reply.header(header::CACHE_CONTROL), "no-store", "{path}");
        assert!(["same-origin", "no-referrer"].contains(&reply.header(header::REFERRER_POLICY)), "{path}");
        let policy = directives(reply.header(header::CONTENT_SECURITY_POLICY));
        assert!(policy.contains(&("default-src", "'none'")), "{path}: {policy:?}");
        let unsafe_sources: Vec<_> = policy.iter().filter(|(_, sources)| sources.contains("unsafe")).collect();
        if path.ends_with("/message.html") {
            assert_eq!(unsafe_sources, [&("style-src", "'unsafe-inline'")]);
            assert!(policy.contains(&("sandbox", "")) && policy.contains(&("img-src", "data:")));
        } else {
            assert!(unsafe_sources.is_empty(), "{path}: {policy:?}");
        }
    }
}

#[tokio::test]
async fn pages_have_no_inline_script_and_no_inline_style() {
    let site = Site::new();
    let id = site.dead(full(), "550 no").await;
    for path in [
        "/overview".to_owned(),
        "/deliveries".to_owned(),
        format!("/deliveries/{id}"),
        format!("/deliveries/{id}/message"),
    ] {
        let page = site.page(&path).await;
        let scripts: Vec<_> = page.match_indices("<script").map(|(at, _)| &page[at..at + 13]).collect();
        assert_eq!(scripts, ["<script src=\""], "{path}");
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick"), "{path}");
        assert!(!page.contains("http://") && !page.contains("https://"), "{path} names another host");
    }
}

#[tokio::test]
async fn assets_are_kept_for_a_year_and_named_by_their_content() {
    let site = Site::new();
    let page = site.page("/overview").await;
    for (start, content_type) in
        [("./assets/style-", "text/css; charset=utf-8"), ("./assets/script-", "text/javascript; charset=utf-8")]
    {
        let at = page.find(start).unwrap();
        let path = page[at + 1..].split('"').next().unwrap();
        let reply = site.get(path).await;
        assert_eq!((reply.status, reply.header(header::CONTENT_TYPE)), (StatusCode::OK, content_type));
        assert!(reply.header(header::CACHE_CONTROL).contains("max-age=31536000, immutable"));
        let etag = reply.header(header::ETAG);
        assert!(path.contains(etag.trim_matches('"')), "{path} and {etag}");
        let again = Request::get(path).header(header::IF_NONE_MATCH, etag).body(Body::empty()).unwrap();
        let again = site.send(again).await;
        assert_eq!((again.status, again.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    }
}
