//! What all pages share: the layout's data, errors, and redirects.

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use askama::Template;
use axum::extract::{FromRequestParts, OriginalUri, RawPathParams, Request};
use axum::http::{HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{Html, IntoResponse, Response};
use postrider_transport::{DeliveryId, mask_addresses};

use super::access::Access;
use super::assets;
use super::csrf::Token;
use super::deliveries::{cut, label};
use super::reader::ReadError;
use crate::store::AdminStore;
use crate::{Change, Delivery, Operator, Outbox, State};

/// How often a page refreshes.
#[derive(Clone, Copy)]
pub(super) struct Refresh(pub(super) Duration);

/// The data of the layout. Handlers get it as an extractor.
pub(super) struct Page {
    /// The relative path from this page to the root of the dashboard, with a slash at its end.
    pub(super) base: String,
    pub(super) style: String,
    pub(super) script: String,
    pub(super) operator: Option<String>,
    pub(super) can_operate: bool,
    pub(super) can_see_bodies: bool,
    /// The token for forms: that of the cookie, or a new one.
    pub(super) token: Token,
    pub(super) is_new_token: bool,
    /// The seconds between two refreshes.
    pub(super) refresh: f64,
}

impl Page {
    pub(super) fn new(parts: &Parts) -> Self {
        // Without the guard, nobody has access.
        let access = parts.extensions.get::<Access>().cloned().unwrap_or_else(Access::none);
        let of_cookie = Token::of_cookie(&parts.headers);
        Self {
            base: base(parts.uri.path()),
            style: assets::style_name(),
            script: assets::script_name(),
            operator: access.operator().map(str::to_owned),
            can_operate: access.may_operate(),
            can_see_bodies: access.may_see_bodies(),
            refresh: parts.extensions.get::<Refresh>().map_or(5.0, |refresh| refresh.0.as_secs_f64()),
            is_new_token: of_cookie.is_none(),
            token: of_cookie.unwrap_or_else(Token::new),
        }
    }

    /// The operator who acts, with the note of the form.
    pub(super) fn operator<S: AdminStore>(&self, outbox: &Outbox<S>, note: &str) -> Operator<S> {
        outbox.operator(self.operator.as_deref().unwrap_or("unknown")).note(note.trim())
    }

    /// The operator's name for the log: it can be an address.
    pub(super) fn masked_operator(&self) -> Cow<'_, str> {
        self.operator.as_deref().map(mask_addresses).unwrap_or_default()
    }
}

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::new(parts))
    }
}

/// A parameter of the path. The path can have others, if the dashboard is nested under a path with parameters of its own.
pub(super) fn param<'a>(params: &'a RawPathParams, name: &str) -> Option<&'a str> {
    params.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
}

/// The delivery that the path names.
pub(super) fn delivery_id(params: &RawPathParams) -> Result<DeliveryId, Problem> {
    param(params, "delivery_id").and_then(|id| id.parse().ok()).ok_or(Problem::NoDelivery)
}

/// The subject for a heading. `None` if there is nothing to read.
pub(super) fn subject(delivery: &Delivery) -> Option<String> {
    delivery.subject.as_deref().filter(|subject| !subject.trim().is_empty()).map(|subject| cut(subject, 500))
}

/// The relative path from a page to the root. Relative links work under any prefix, also behind a proxy that removes it.
fn base(path: &str) -> String {
    match path.trim_start_matches('/').matches('/').count() {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

/// Renders a page.
pub(super) fn render(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the dashboard cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Renders a page with a form, and sets the cookie that the form needs.
pub(super) fn render_form(template: &impl Template, page: &Page) -> Response {
    let mut response = render(template);
    if page.is_new_token
        && let Some(cookie) = page.token.set_cookie()
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Sends the browser to another page, with `GET`. The location must be relative or come from the request's own path.
pub(super) fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Why a page cannot be shown. Handlers return it, and the guard shows it in the layout of the pages.
pub(super) enum Problem {
    NoDelivery,
    NoPage,
    NoBodies,
    NoMessage,
    /// The request is malformed. The text says how.
    Bad(&'static str),
    /// The action changes no delivery of this state, or no single state is chosen.
    NoState(Change),
    /// The form's token is not that of the cookie.
    WrongToken,
    Read(ReadError),
    /// An action got no answer, so nobody knows whether it was done.
    Uncertain,
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    page: &'a Page,
    section: &'static str,
    title: &'static str,
    text: String,
}

/// What a problem's page says, on its way from the handler to the guard.
#[derive(Clone)]
pub(super) struct Explanation {
    title: &'static str,
    text: String,
}

impl Explanation {
    /// The page in the place of the empty response of the handler.
    pub(super) fn show(self, page: &Page, response: &mut Response) {
        let Self { title, text } = self;
        let shown = render(&ProblemPage { page, section: "", title, text });
        if shown.status() != StatusCode::OK {
            *response.status_mut() = shown.status();
        }
        response.headers_mut().extend(shown.headers().clone());
        *response.body_mut() = shown.into_body();
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::NoDelivery => {
                (StatusCode::NOT_FOUND, "No such delivery", "It was deleted, or the id is wrong.".to_owned())
            }
            Self::NoPage => (StatusCode::NOT_FOUND, "No such page", "The dashboard has no page here.".to_owned()),
            Self::NoBodies => {
                (StatusCode::FORBIDDEN, "The content is hidden", "You may not see the content of mail.".to_owned())
            }
            Self::NoMessage => (
                StatusCode::NOT_FOUND,
                "The message is deleted",
                "Retention or an erasure has deleted it. The delivery's history is still there.".to_owned(),
            ),
            Self::Bad(text) => (StatusCode::BAD_REQUEST, "The request is malformed", text.to_owned()),
            Self::NoState(change) => {
                let states = State::ALL.into_iter().filter(|state| change.applies_to(*state)).map(label);
                let text = format!("Choose a list of one of these states: {}.", states.collect::<Vec<_>>().join(", "));
                (StatusCode::BAD_REQUEST, "No state is chosen", text)
            }
            Self::WrongToken => (
                StatusCode::FORBIDDEN,
                "Nothing was changed",
                "The form is not from this browser, or cookies are off. Open the page again, and repeat.".to_owned(),
            ),
            Self::Uncertain => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database did not answer",
                "It may have been done or not. Look at the delivery before you repeat it.".to_owned(),
            ),
            Self::Read(ReadError::Slow) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database did not answer in time",
                "Try again. A filter with a recipient, a key or a time reads less.".to_owned(),
            ),
            Self::Read(ReadError::Store(error)) => {
                tracing::warn!(%error, "the dashboard cannot read the outbox");
                let text = mask_addresses(&error.to_string()).into_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "The database failed", text)
            }
        };
        let mut response = status.into_response();
        response.extensions_mut().insert(Explanation { title, text });
        response
    }
}

/// Answers a request for which there is no route.
pub(super) async fn not_found(request: Request) -> Result<Response, Problem> {
    let path = request.uri().path();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    match path.strip_suffix('/').and_then(|path| path.rsplit_once('/')) {
        Some((_, last)) if is_read && !last.is_empty() => Ok(redirect(&format!("../{last}"))),
        _ => Err(Problem::NoPage),
    }
}

/// Why a request is refused before it reaches a page.
pub(super) enum Refusal {
    NoPolicy,
    NoAccess,
    ReadOnly,
    OtherOrigin,
}

/// A page that stands by itself: style sheets are refused as well.
#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage {
    reason: Refusal,
}

pub(super) fn refuse(reason: Refusal, status: StatusCode) -> Response {
    let mut response = render(&RefusedPage { reason });
    *response.status_mut() = status;
    response
}

/// Where the browser finds the overview, from the root of the dashboard.
///
/// A path without a slash at its end has no directory that a relative location could use.
pub(super) fn overview_location(original: &OriginalUri) -> String {
    let path = original.path();
    if path.ends_with('/') { "overview".to_owned() } else { format!("/{}/overview", path.trim_matches('/')) }
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn each_depth_has_its_path_to_the_root() {
        for (path, expected) in
            [("/", "./"), ("/overview", "./"), ("/deliveries/1", "../"), ("/deliveries/1/message", "../../")]
        {
            assert_eq!(base(path), expected, "{path}");
        }
    }
}
