//! What every request passes: the access policy, the origin of a `POST`, and the headers of every response.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::Response;

use super::access::{Access, Policy};
use super::csrf;
use super::page::{self, Explanation, Page, Refresh, Refusal};

pub(super) struct Guard {
    policy: Option<Policy>,
    trusted_origins: Vec<String>,
    refresh: Refresh,
}

impl Guard {
    pub(super) fn new(policy: Option<Policy>, trusted_origins: Vec<String>, refresh: Duration) -> Self {
        Self { policy, trusted_origins, refresh: Refresh(refresh) }
    }

    async fn admit(&self, parts: &Parts) -> Result<Access, Refusal> {
        let policy = self.policy.as_ref().ok_or(Refusal::NoPolicy)?;
        let access = policy.decide(parts).await;
        if !access.may_read() {
            return Err(Refusal::NoAccess);
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            if !access.may_operate() {
                return Err(Refusal::ReadOnly);
            }
            if !csrf::is_same_origin(parts, &self.trusted_origins) {
                return Err(Refusal::OtherOrigin);
            }
        }
        Ok(access)
    }
}

/// The middleware around all routes.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut response = match guard.admit(&parts).await {
        Ok(access) => {
            parts.extensions.insert(access);
            parts.extensions.insert(guard.refresh);
            let page = Page::new(&parts);
            let mut response = next.run(Request::from_parts(parts, body)).await;
            if let Some(problem) = response.extensions_mut().remove::<Explanation>() {
                problem.show(&page, &mut response);
            }
            response
        }
        Err(refusal) => page::refuse(refusal, StatusCode::FORBIDDEN),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The headers of a response that does not set them itself.
///
/// The referrer policy is `same-origin` and not `no-referrer`: with the latter, browsers send `Origin: null` with a form (Fetch Standard,
/// "append a request Origin header"), and the check of the origin would refuse it. Other sites get no referrer from either.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// The content security policy of the pages. Trusted Types refuse a script that turns a text into HTML.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'; \
    require-trusted-types-for 'script'; trusted-types 'none'";
