//! Mails, transports and assertions for the tests of all providers.

use std::time::{Duration, SystemTime};

use postrider_http::{Http, HttpErrorKind, Provider, Timeouts};
use postrider_transport::{
    Attachment, Class, DeliveryId, Email, EmailBuilder, Failure, ListUnsubscribe, Outgoing, Receipt, Scope, Transport,
};

use postrider_transport::testkit::{HttpPeer, HttpReply};

/// The key, which no error and no `Debug` may show.
pub(crate) const KEY: &str = "KEY-that-nobody-may-see";

/// A minimal mail.
pub(crate) fn plain() -> EmailBuilder {
    Email::builder().from("Shop <shop@example.com>").to("ada@example.org").subject("Hello").text("body-of-the-mail")
}

/// A mail with all parts that an API may have a field for, one Reply-To and one tag.
pub(crate) fn rich() -> EmailBuilder {
    plain()
        .to("Bob <bob@example.org>")
        .cc("Carol <carol@example.org>")
        .bcc("dave@example.org")
        .reply_to("Help <help@example.com>")
        .html("<p>body-of-the-mail <img src=\"cid:logo\"></p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"terms").expect("an attachment"))
        .attach(Attachment::inline("logo", "logo.png", "image/png", *b"\x89PNG").expect("an image"))
        .header("X-Order", "42")
        .tag("welcome")
        .metadata("order", "42")
        .list_unsubscribe(ListUnsubscribe::one_click("https://example.com/u/1").expect("a link"))
}

/// A delivery with a fixed id and date.
pub(crate) fn outgoing(email: EmailBuilder) -> Outgoing<Email> {
    let id: DeliveryId = "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00".parse().expect("an id");
    let dated_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    Outgoing::new(id, dated_at, email.build().expect("a mail"))
}

/// A delivery with a new id.
pub(crate) fn new_delivery(email: EmailBuilder) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email.build().expect("a mail"))
}

/// A transport to the peer, with long timeouts.
pub(crate) fn connect<P: Provider>(provider: P, peer: &HttpPeer) -> Http<P> {
    connect_with_timeouts(long_timeouts(), provider, peer)
}

/// A transport to the peer, for tests that reach a timeout.
pub(crate) fn connect_with_timeouts<P: Provider>(timeouts: Timeouts, provider: P, peer: &HttpPeer) -> Http<P> {
    Http::builder(provider).base_url(peer.url()).timeouts(timeouts).build().expect("a transport")
}

/// Timeouts that no test reaches.
pub(crate) fn long_timeouts() -> Timeouts {
    let mut timeouts = Timeouts::default();
    let limit = Duration::from_secs(60);
    (timeouts.connect, timeouts.request, timeouts.response) = (limit, limit, limit);
    timeouts
}

/// Sends one mail and returns the result for this reply.
pub(crate) async fn send_one<P: Provider>(
    provider: P,
    email: EmailBuilder,
    reply: HttpReply,
) -> Result<Receipt, Failure> {
    let peer = HttpPeer::start([reply]).await;
    let result = connect(provider, &peer).send(&outgoing(email)).await;
    assert_eq!(peer.seen().len(), 1, "one call sends one request");
    result
}

/// One row of a table of responses.
pub(crate) struct Row {
    pub(crate) reply: HttpReply,
    pub(crate) kind: HttpErrorKind,
    pub(crate) retry_after: Option<u64>,
    pub(crate) sure: bool,
}

/// A documented refusal in JSON.
pub(crate) fn row(status: u16, body: &str, kind: HttpErrorKind) -> Row {
    Row { reply: HttpReply::json(status, body), kind, retry_after: None, sure: true }
}

/// A refusal in JSON that is not documented.
pub(crate) fn unsure_row(status: u16, body: &str, kind: HttpErrorKind) -> Row {
    Row { sure: false, ..row(status, body, kind) }
}

/// Asserts that each response is classified by the table and that the errors show no secrets.
pub(crate) async fn assert_table<P: Provider>(provider: impl Fn() -> P, table: Vec<Row>) {
    assert_table_for(plain, provider, table).await;
}

/// As [`assert_table`], for another mail.
pub(crate) async fn assert_table_for<P: Provider>(
    mail: impl Fn() -> EmailBuilder,
    provider: impl Fn() -> P,
    table: Vec<Row>,
) {
    for Row { reply, kind, retry_after, sure } in table {
        let failure = send_one(provider(), mail(), reply.clone()).await.expect_err("the mail is refused");
        let error = failure.downcast_ref::<postrider_http::HttpError>().expect("it is an HttpError");
        assert_eq!(error.kind(), kind, "{reply:?}: {failure}");
        assert_eq!(failure.retry_after(), retry_after.map(Duration::from_secs), "{reply:?}");
        assert_eq!(failure.is_sure(), sure, "{reply:?}: {failure}");
        assert_class_and_scope(&failure, kind);
        assert_redacted(&failure);
    }
}

fn assert_class_and_scope(failure: &Failure, kind: HttpErrorKind) {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Recipient, ServerError, Unavailable};
    let expected = match kind {
        Message | Recipient => (Class::Permanent, Scope::Message, false),
        ServerError => (Class::Transient, Scope::Message, false),
        HttpErrorKind::Sender => (Class::Permanent, Scope::Sender, false),
        Account => (Class::Permanent, Scope::Transport, false),
        Quota | RateLimit | Unavailable => (Class::Transient, Scope::Transport, false),
        NoResponse => (Class::Transient, Scope::Transport, true),
        _ => panic!("this kind is unknown to the test"),
    };
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), expected, "{failure}");
}

/// Asserts that the error and its sources show no key, body or whole address.
pub(crate) fn assert_redacted(failure: &Failure) {
    let mut shown = format!("{failure} {failure:?}");
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        shown.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    for secret in [KEY, "body-of-the-mail", "ada@", "bob@"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}
