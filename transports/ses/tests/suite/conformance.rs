//! The conformance suite of all transports.

use std::time::Duration;

use postrider_ses::{Ses, SesBuilder, Timeouts};
use postrider_transport::testkit::{
    Accepted, Answer, HttpApi, HttpReply, HttpRequest, ScriptedHttp, TransportUnderTest,
};
use postrider_transport::{Attachment, Email};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{SECRET, accepted, email, raw_message, sdk_config};

/// The SES API v2. Its errors follow <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html> and
/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html>.
struct Api;

impl HttpApi for Api {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let to = &request.json()["Destination"]["ToAddresses"];
        let recipients = to.as_array().unwrap().iter().map(|address| address.as_str().unwrap().to_owned()).collect();
        vec![Accepted::new(recipients, None, String::from_utf8(raw_message(request)).unwrap())]
    }

    fn accept(&self, id: &str) -> HttpReply {
        accepted(id)
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let (status, code) = match answer {
            Answer::RefuseMessage => (400, "MessageRejected"),
            Answer::Busy => (500, "InternalFailure"),
            Answer::RefuseCredentials => (403, "SignatureDoesNotMatch"),
            Answer::RateLimit(_) => (429, "TooManyRequestsException"),
            Answer::Unavailable => (503, "ServiceUnavailable"),
            other => panic!("no refusal: {other:?}"),
        };
        let retry_after = match answer {
            // RFC 6585 section 4; SES documents no header.
            Answer::RateLimit(retry_after) => retry_after.as_secs().to_string(),
            _ => String::new(),
        };
        // The request is signed with the secret and does not contain it, so the text cannot repeat it.
        let text = "not ada.lovelace@example.com to bob.builder@example.org";
        let headers = [("x-amzn-ErrorType", code), ("Retry-After", &retry_after)];
        let headers = if retry_after.is_empty() { &headers[..1] } else { &headers };
        HttpReply::answer(status, headers, json!({ "message": text }).to_string())
    }
}

struct SesTest;

impl SesTest {
    fn to(&self, url: String) -> SesBuilder {
        Ses::builder(&sdk_config()).region("eu-west-1").endpoint_url(url)
    }
}

impl TransportUnderTest for SesTest {
    type Transport = Ses;
    type Peer = ScriptedHttp;

    async fn start(&self, limit: Duration) -> (Ses, ScriptedHttp) {
        let peer = ScriptedHttp::start(Api).await;
        let mut timeouts = Timeouts::default();
        (timeouts.connect, timeouts.request, timeouts.response) = (limit, limit, limit);
        (self.to(peer.url()).timeouts(timeouts).build().unwrap(), peer)
    }

    async fn unreachable(&self) -> Ses {
        // The listener is closed at once, so the port is free.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        self.to(format!("http://127.0.0.1:{port}")).build().unwrap()
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn unsupported(&self) -> Option<Email> {
        // An attached message is not encoded, so it must not contain NUL.
        let odd = Attachment::new("a", "message/rfc822", b"Subject: a\0\r\n".to_vec()).unwrap();
        Some(email().to("bob.builder@example.org").attach(odd).build().unwrap())
    }
}

postrider_transport::transport_tests!(SesTest);
