//! A dashboard, and requests to it without a network.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use postrider::dashboard::{Access, Dashboard};
use postrider::testkit::ScriptedTransport;
use postrider::{
    AdminStore, Backoff, DeliveryId, Email, Failure, MemoryStore, NewDelivery, Outbox, RetryPolicy, Scope, SqliteStore,
    WhenInDoubt,
};
use tower::ServiceExt;

/// A dashboard over an outbox.
pub(crate) struct Site<S = MemoryStore> {
    pub(crate) outbox: Outbox<S>,
    pub(crate) router: Router,
}

/// The cookie of a browser that has opened a form before.
const COOKIE: &str = "postrider-csrf=0123456789abcdef0123456789abcdef";

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Self { status: parts.status, headers: parts.headers, bytes }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text());
        self.header(header::LOCATION)
    }

    /// The value of a field of the form.
    pub(crate) fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text().split_once(&start).unwrap_or_else(|| panic!("no {name}: {}", self.text()));
        rest.split_once('"').unwrap().0.to_owned()
    }
}

impl Site {
    /// A dashboard that everybody may operate.
    pub(crate) fn new() -> Self {
        Self::with_access(Access::operate().by("Ada"))
    }

    pub(crate) fn with_access(access: Access) -> Self {
        Self::over(MemoryStore::new(), access)
    }
}

/// The values of the hidden fields in a piece of a page.
pub(crate) fn hidden_fields(html: &str) -> Vec<(String, String)> {
    let fields = html.split("<input type=\"hidden\" name=\"").skip(1);
    let pair = |field: &str| {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        (name.to_owned(), unescape(rest.split_once('"').unwrap().0))
    };
    fields.map(pair).collect()
}

/// Reverses the escapes of the template engine.
pub(crate) fn unescape(html: &str) -> String {
    let pairs = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    pairs.into_iter().fold(html.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

impl<S: AdminStore> Site<S> {
    pub(crate) fn over(store: S, access: Access) -> Self {
        let outbox = Outbox::enqueue_only(store);
        let dashboard = Dashboard::new(outbox.clone()).access(move |_| std::future::ready(access.clone()));
        Self { outbox, router: dashboard.into_router() }
    }

    /// Presses the button of a form: sends its hidden fields and what was filled in, from a page of the dashboard.
    pub(crate) async fn press(&self, path: &str, form: &str, filled: &[(&str, &str)]) -> Reply {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(hidden_fields(form)).extend_pairs(filled);
        self.send(post(path, &[("sec-fetch-site", "same-origin"), ("cookie", COOKIE)], body.finish())).await
    }

    /// A page with forms, as a browser with the cookie gets it.
    pub(crate) async fn form(&self, path: &str) -> String {
        let reply = self.send(Request::get(path).header("cookie", COOKIE).body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
        reply.text().to_owned()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        Reply::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let reply = self.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
        reply.text().to_owned()
    }

    /// Sends a form as a browser does, with the cookie that its page has set.
    pub(crate) async fn submit(&self, path: &str) -> Reply {
        let form = self.get(path).await;
        let cookie = form.header(header::SET_COOKIE).split(';').next().unwrap().to_owned();
        let body = format!("csrf={}&seen={}", form.field("csrf"), form.field("seen"));
        self.send(post(path, &[("sec-fetch-site", "same-origin"), ("cookie", &cookie)], body)).await
    }

    pub(crate) async fn enqueue(&self, delivery: impl Into<NewDelivery<Email>>) -> DeliveryId {
        self.outbox.enqueue(delivery).await.unwrap()
    }

    /// Sends what is due. Each call of the transport gets the next answer, and after the last one all are accepted.
    pub(crate) async fn drain(&self, answers: Vec<Failure>) {
        let transport = answers.into_iter().fold(ScriptedTransport::<Email>::new(), |t, answer| t.then(Err(answer)));
        let outbox = Outbox::new(self.outbox.store().clone(), transport);
        let hour = Duration::from_secs(3_600);
        let retry = RetryPolicy::default().backoff(hour, hour);
        outbox.relay().retry(retry).pause(Backoff::new(hour, hour)).drain().await.unwrap();
    }

    /// A dead letter, which the next hop refused with this reply.
    pub(crate) async fn dead(&self, delivery: impl Into<NewDelivery<Email>>, reply: &str) -> DeliveryId {
        let id = self.enqueue(delivery).await;
        self.drain(vec![Failure::permanent(Scope::Message, reply.to_owned()).with_reply(reply)]).await;
        id
    }

    /// A delivery that is held in doubt.
    pub(crate) async fn held(&self, email: Email) -> DeliveryId {
        let id = self.enqueue(NewDelivery::new(email).when_in_doubt(WhenInDoubt::Hold)).await;
        self.drain(vec![Failure::maybe_accepted("the connection was lost").with_scope(Scope::Message)]).await;
        id
    }
}

/// A dashboard over an outbox in SQLite.
pub(crate) async fn in_sqlite(directory: &Path) -> Site<SqliteStore> {
    let store = SqliteStore::open(&format!("sqlite://{}", directory.join("outbox.db").display())).await.unwrap();
    store.migrate().await.unwrap();
    Site::over(store, Access::operate().by("Ada"))
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(body.into()).unwrap()
}
