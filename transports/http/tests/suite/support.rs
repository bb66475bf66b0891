//! Mails, and what the tests of all providers ask for.

use std::time::{Duration, SystemTime};

use postrider_http::{Http, HttpErrorKind, Provider, Timeouts};
use postrider_transport::{
    Attachment, Class, DeliveryId, Email, EmailBuilder, Failure, ListUnsubscribe, Outgoing, Receipt, Scope, Transport,
};

use postrider_transport::testkit::{HttpPeer, HttpReply};

/// What no error and no `Debug` may show.
pub(crate) const KEY: &str = "KEY-that-nobody-may-see";

/// A mail that says little.
pub(crate) fn plain() -> EmailBuilder {
    Email::builder().from("Shop <shop@example.com>").to("ada@example.org").subject("Hello").text("body-of-the-mail")
}

/// A mail that has everything that an API has a field for, with one HttpReply-To and one tag.
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

/// The same delivery each time.
pub(crate) fn outgoing(email: EmailBuilder) -> Outgoing<Email> {
    let id: DeliveryId = "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00".parse().expect("an id");
    let dated_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    Outgoing::new(id, dated_at, email.build().expect("a mail"))
}

/// One more delivery.
pub(crate) fn another(email: EmailBuilder) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email.build().expect("a mail"))
}

/// A transport to the peer, whose time limits no test meets.
pub(crate) fn connect<P: Provider>(provider: P, peer: &HttpPeer) -> Http<P> {
    connect_within(patient(), provider, peer)
}

/// The same, with time limits for a test that meets one.
pub(crate) fn connect_within<P: Provider>(timeouts: Timeouts, provider: P, peer: &HttpPeer) -> Http<P> {
    Http::builder(provider).base_url(peer.url()).timeouts(timeouts).build().expect("a transport")
}

/// Far longer than anything on this machine takes.
pub(crate) fn patient() -> Timeouts {
    let mut timeouts = Timeouts::default();
    let limit = Duration::from_secs(60);
    (timeouts.connect, timeouts.request, timeouts.response) = (limit, limit, limit);
    timeouts
}

/// What a provider makes of one answer.
pub(crate) async fn ask<P: Provider>(provider: P, email: EmailBuilder, reply: HttpReply) -> Result<Receipt, Failure> {
    let peer = HttpPeer::start([reply]).await;
    let result = connect(provider, &peer).send(&outgoing(email)).await;
    assert_eq!(peer.seen().len(), 1, "one call is one request");
    result
}

/// One line of a provider's table of answers.
pub(crate) struct Line {
    pub(crate) reply: HttpReply,
    pub(crate) kind: HttpErrorKind,
    pub(crate) retry_after: Option<u64>,
    pub(crate) sure: bool,
}

/// A refusal in JSON.
pub(crate) fn line(status: u16, body: &str, kind: HttpErrorKind) -> Line {
    Line { reply: HttpReply::json(status, body), kind, retry_after: None, sure: true }
}

/// A refusal in JSON that no documentation has.
pub(crate) fn guess(status: u16, body: &str, kind: HttpErrorKind) -> Line {
    Line { sure: false, ..line(status, body, kind) }
}

/// Each answer means what the table says, and shows nothing that is nobody's business.
pub(crate) async fn check_table<P: Provider>(provider: impl Fn() -> P, table: Vec<Line>) {
    check_table_for(plain, provider, table).await;
}

/// The same, for another mail than the plain one.
pub(crate) async fn check_table_for<P: Provider>(
    mail: impl Fn() -> EmailBuilder,
    provider: impl Fn() -> P,
    table: Vec<Line>,
) {
    for Line { reply, kind, retry_after, sure } in table {
        let failure = ask(provider(), mail(), reply.clone()).await.expect_err("it is a refusal");
        let error = failure.downcast_ref::<postrider_http::HttpError>().expect("it is an HttpError");
        assert_eq!(error.kind(), kind, "{reply:?}: {failure}");
        assert_eq!(failure.retry_after(), retry_after.map(Duration::from_secs), "{reply:?}");
        assert_eq!(failure.is_sure(), sure, "{reply:?}: {failure}");
        assert_classified(&failure, kind);
        assert_discreet(&failure);
    }
}

fn assert_classified(failure: &Failure, kind: HttpErrorKind) {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Recipient, ServerError, Unavailable};
    let expected = match kind {
        Message | Recipient => (Class::Permanent, Scope::Message, false),
        ServerError => (Class::Transient, Scope::Message, false),
        HttpErrorKind::Sender => (Class::Permanent, Scope::Sender, false),
        Account => (Class::Permanent, Scope::Transport, false),
        Quota | RateLimit | Unavailable => (Class::Transient, Scope::Transport, false),
        NoResponse => (Class::Transient, Scope::Transport, true),
        _ => panic!("a kind that this test does not know"),
    };
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), expected, "{failure}");
}

/// Neither key nor body nor whole address in anything that is logged.
pub(crate) fn assert_discreet(failure: &Failure) {
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
