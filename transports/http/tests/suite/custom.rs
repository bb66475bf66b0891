//! Behaviour of the transport that is the same for all providers, tested with a custom provider.

use std::time::Duration;

use http::HeaderName;
use postrider_http::{
    BatchLimits, Http, HttpConfigError, HttpErrorKind, Provider, ProviderUrl, Request, Response, Secret,
};
use postrider_transport::testkit::{HttpPeer, HttpReply};
use postrider_transport::{Email, EmailBuilder, Failure, Outgoing, Receipt, Transport, Unsupported};

use crate::faults::kind;
use crate::support::{KEY, connect, new_delivery, outgoing, plain};

/// A provider with a fixed request body, and a batch call for mails without tags.
struct CustomProvider {
    key: Secret,
    body: &'static str,
    limits: Option<BatchLimits>,
}

impl CustomProvider {
    fn with_body(body: &'static str) -> Self {
        let key = Secret::bearer(KEY).expect("a key");
        Self { key, body, limits: Some(BatchLimits::new(2, 100_000)) }
    }
}

impl Provider for CustomProvider {
    const NAME: &'static str = "own";

    fn from_url(_: &mut ProviderUrl) -> Result<Self, HttpConfigError> {
        Ok(Self::with_body("{}"))
    }

    fn base_url(&self) -> &str {
        "https://api.own.example"
    }

    fn authorization(&self) -> (HeaderName, &Secret) {
        (http::header::AUTHORIZATION, &self.key)
    }

    fn check(&self, _: &Email) -> Result<(), Unsupported> {
        Ok(())
    }

    fn build_request(&self, _: &Outgoing<Email>) -> Result<Request, Failure> {
        Ok(Request::json_bytes("/v1/send", self.body))
    }

    fn parse_response(&self, _: &Outgoing<Email>, response: &Response) -> Result<Receipt, Failure> {
        if response.status() == 200 { Ok(Receipt::new()) } else { Err(response.status_error().into()) }
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        self.limits
    }

    fn is_batchable(&self, outgoing: &Outgoing<Email>) -> bool {
        outgoing.message().tags().is_empty()
    }

    fn build_batch_request(&self, _: &[(&Outgoing<Email>, Request)]) -> Request {
        Request::json_bytes("/v1/batch", self.body)
    }
}

fn many(count: usize, mail: impl Fn() -> EmailBuilder) -> Vec<Outgoing<Email>> {
    (0..count).map(|_| new_delivery(mail())).collect()
}

fn alone() -> EmailBuilder {
    plain().tag("alone")
}

#[tokio::test]
async fn single_requests_are_sent_eight_at_once() {
    // Once because the mails are not batchable, once because there is no batch call.
    assert_eight_at_once(CustomProvider::with_body("{}"), alone).await;
    assert_eight_at_once(CustomProvider { limits: None, ..CustomProvider::with_body("{}") }, plain).await;
}

async fn assert_eight_at_once(own: CustomProvider, mail: fn() -> EmailBuilder) {
    let peer = HttpPeer::start([HttpReply::Held(Box::new(HttpReply::json(200, "{}")))]).await;
    let transport = connect(own, &peer);
    let mails = many(20, mail);
    let watched = mails.clone();
    let sending = tokio::spawn(async move { transport.send_batch(&mails).await });
    let eight = async {
        while peer.seen().len() < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), eight)
        .await
        .expect("eight requests are in flight without a response");
    assert_eq!(
        watched.iter().filter(|mail| mail.is_waiting()).count(),
        12,
        "messages that are not sent yet are waiting"
    );
    while !sending.is_finished() {
        peer.release();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let results = sending.await.expect("it does not panic");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20, "{results:?}");
    assert!(peer.connections() <= 8, "{} at once", peer.connections());
}

#[tokio::test]
async fn nothing_more_is_sent_after_a_rate_limit_or_a_lost_response() {
    use HttpErrorKind::{NoResponse, RateLimit, Unavailable};
    for (reply, sent_kind, unsent_kind) in
        [(HttpReply::json(429, ""), RateLimit, RateLimit), (HttpReply::Close, NoResponse, Unavailable)]
    {
        let peer = HttpPeer::start([reply.clone()]).await;
        let results = connect(CustomProvider::with_body("{}"), &peer).send_batch(&many(20, alone)).await;
        let kinds: Vec<_> =
            results.iter().map(|result| kind(result.as_ref().expect_err("no message is sent"))).collect();
        assert_eq!(peer.seen().len(), 8, "{reply:?}");
        assert_eq!(kinds, [vec![sent_kind; 8], vec![unsent_kind; 12]].concat(), "{reply:?}");

        // Only the first of three batches is sent, and no single message after it.
        let peer = HttpPeer::start([reply.clone()]).await;
        let mails = [many(6, plain), many(1, alone)].concat();
        let results = connect(CustomProvider::with_body("{}"), &peer).send_batch(&mails).await;
        let kinds: Vec<_> =
            results.iter().map(|result| kind(result.as_ref().expect_err("no message is sent"))).collect();
        assert_eq!(kinds[2..], [unsent_kind; 5], "{reply:?}");
        let paths: Vec<_> = peer.seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(paths[0], "/v1/batch");
        assert!(paths.len() <= 2, "at most the batch and its first message alone: {paths:?}");
    }
}

#[tokio::test]
async fn the_path_of_the_base_url_is_a_prefix() {
    let peer = HttpPeer::start([HttpReply::json(200, "{}")]).await;
    for base in ["/gateway/mail", "/gateway/mail/"] {
        let http =
            Http::builder(CustomProvider::with_body("{}")).base_url(peer.url() + base).build().expect("a transport");
        http.send(&outgoing(plain())).await.expect("it is accepted");
        assert_eq!(peer.seen().pop().expect("a request").path, "/gateway/mail/v1/send", "{base}");
    }
}

/// A process reads the proxy environment once, so the test runs itself again in a process with a proxy.
#[tokio::test]
async fn http_requests_use_no_proxy() {
    const INSIDE: &str = "POSTRIDER_TEST_HAS_A_PROXY";
    if std::env::var_os(INSIDE).is_some() {
        let peer = HttpPeer::start([HttpReply::json(200, "{}")]).await;
        connect(CustomProvider::with_body("{}"), &peer).send(&outgoing(plain())).await.expect("it is accepted");
        assert_eq!(peer.seen().len(), 1);
        return;
    }
    let proxy = HttpPeer::start([HttpReply::json(200, "{}")]).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().expect("a program"));
    again.args(["--exact", "custom::http_requests_use_no_proxy"]).env(INSIDE, "1");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, proxy.url());
    }
    let done = again.env_remove("NO_PROXY").env_remove("no_proxy").output().await.expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_request_without_a_body_can_be_in_doubt() {
    let peer = HttpPeer::start([HttpReply::Close]).await;
    let transport = connect(CustomProvider::with_body(""), &peer);
    let failure = transport.send(&outgoing(plain())).await.expect_err("no response arrived");
    assert_eq!((kind(&failure), peer.seen().len()), (HttpErrorKind::NoResponse, 1), "{failure}");
    let gone = connect(CustomProvider::with_body(""), &HttpPeer::start([]).await);
    let failure = gone.send(&outgoing(plain())).await.expect_err("the peer is gone");
    assert_eq!(kind(&failure), HttpErrorKind::Unavailable, "{failure}");
}
