//! Responses of SES, and of proxies in front of it.

use postrider_transport::Transport;
use postrider_transport::testkit::HttpReply;

use crate::support::{
    Classification, IN_DOUBT, MESSAGE_PERMANENT, MESSAGE_TRANSIENT, MISCONFIGURED, SENDER_UNVERIFIED, UNAVAILABLE,
    classification, error, mail, peer, send_failing, ses, throttled,
};

/// A response and its classification.
struct Row {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    expected: Classification,
    /// The error code. `None` if the response is not from SES.
    code: Option<&'static str>,
    /// Where the format of the response is documented.
    source: &'static str,
}

const RESPONSES: &[Row] = &[
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "MessageRejected"), ("x-amzn-RequestId", "r-1")],
        body: r#"{"message":"Email address is not verified. The following identities failed the check in region EU-WEST-1: bob@example.org"}"#,
        expected: MESSAGE_TRANSIENT,
        code: Some("MessageRejected"),
        source: "developer guide, error messages returned by the API",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "MessageRejected")],
        body: r#"{"message":"Email address is not verified. The following identities failed the check in region EU-WEST-1: bob@example.org, shop@example.com"}"#,
        expected: SENDER_UNVERIFIED,
        code: Some("MessageRejected"),
        source: "developer guide, error messages returned by the API",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "MessageRejected")],
        body: r#"{"message":"Email address is not verified."}"#,
        expected: SENDER_UNVERIFIED,
        code: Some("MessageRejected"),
        source: "developer guide, error messages returned by the API",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "MailFromDomainNotVerifiedException")],
        body: "{}",
        expected: SENDER_UNVERIFIED,
        code: Some("MailFromDomainNotVerifiedException"),
        source: "API reference v2, SendEmail",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "TeapotException")],
        body: r#"{"message":"nobody knows"}"#,
        expected: MESSAGE_PERMANENT,
        code: Some("TeapotException"),
        source: "undocumented: not sure",
    },
    Row {
        status: 400,
        headers: &[(
            "x-amzn-ErrorType",
            "MessageRejected:http://internal.amazon.com/coral/com.amazonaws.services.ses.v2/",
        )],
        body: r#"{"message":"Transaction failed: Expected disposition, got null"}"#,
        expected: MESSAGE_PERMANENT,
        code: Some("MessageRejected"),
        source: "aws-sdk issues; format of the header: Smithy, AWS restJson1, operation error serialization",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "BadRequestException")],
        body: r#"{"message":"Missing final '@domain'"}"#,
        expected: MESSAGE_PERMANENT,
        code: Some("BadRequestException"),
        source: "API reference v2, SendEmail",
    },
    Row {
        status: 404,
        headers: &[("x-amzn-ErrorType", "NotFoundException")],
        body: r#"{"message":"Configuration set <x> does not exist."}"#,
        expected: MISCONFIGURED,
        code: Some("NotFoundException"),
        source: "API reference v2, SendEmail",
    },
    Row {
        status: 400,
        headers: &[("x-amzn-ErrorType", "SendingPausedException")],
        body: r#"{"message":"Email sending is disabled for the account."}"#,
        expected: MISCONFIGURED,
        code: Some("SendingPausedException"),
        source: "API reference v2, SendEmail",
    },
    Row {
        status: 429,
        headers: &[("x-amzn-ErrorType", "TooManyRequestsException")],
        body: r#"{"message":"Maximum sending rate exceeded."}"#,
        expected: throttled(2),
        code: Some("TooManyRequestsException"),
        source: "developer guide, errors related to the sending quotas",
    },
    Row {
        status: 400,
        headers: &[],
        body: r#"{"__type":"com.amazon.coral.availability#ThrottlingException","message":"Daily message quota exceeded."}"#,
        expected: throttled(3600),
        code: Some("ThrottlingException"),
        source: "developer guide, errors related to the sending quotas; format of the type: Smithy, AWS restJson1",
    },
    Row {
        status: 429,
        headers: &[("x-amzn-ErrorType", "TooManyRequestsException"), ("Retry-After", "30")],
        body: r#"{"message":"Too Many Requests"}"#,
        expected: throttled(30),
        code: Some("TooManyRequestsException"),
        source: "RFC 9110 section 10.2.3",
    },
    Row {
        status: 429,
        headers: &[
            ("x-amzn-ErrorType", "TooManyRequestsException"),
            ("Date", "Tue, 24 Nov 2026 10:00:00 GMT"),
            ("Retry-After", "Tue, 24 Nov 2026 10:01:30 GMT"),
        ],
        body: r#"{"message":"Too Many Requests"}"#,
        expected: throttled(90),
        code: Some("TooManyRequestsException"),
        source: "RFC 9110 section 10.2.3",
    },
    Row {
        status: 429,
        headers: &[("x-amzn-ErrorType", "TooManyRequestsException"), ("Retry-After", "0")],
        body: r#"{"message":"Too Many Requests"}"#,
        expected: throttled(2),
        code: Some("TooManyRequestsException"),
        source: "a zero wait is ignored",
    },
    Row {
        status: 403,
        headers: &[("x-amzn-ErrorType", "InvalidClientTokenId")],
        body: r#"{"message":"The security token included in the request is invalid."}"#,
        expected: MISCONFIGURED,
        code: Some("InvalidClientTokenId"),
        source: "AWS, common errors",
    },
    Row {
        status: 403,
        headers: &[("x-amzn-ErrorType", "AccessDeniedException")],
        body: r#"{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: ses:SendEmail"}"#,
        expected: MISCONFIGURED,
        code: Some("AccessDeniedException"),
        source: "AWS, common errors; developer guide, policies",
    },
    Row {
        status: 500,
        headers: &[("x-amzn-ErrorType", "InternalFailure")],
        body: "{}",
        expected: MESSAGE_TRANSIENT,
        code: Some("InternalFailure"),
        source: "AWS, common errors",
    },
    Row {
        status: 503,
        headers: &[("x-amzn-ErrorType", "ServiceUnavailableException")],
        body: "{}",
        expected: UNAVAILABLE,
        code: Some("ServiceUnavailableException"),
        source: "AWS, common errors",
    },
    Row {
        status: 502,
        headers: &[("Content-Type", "text/html")],
        body: "<html><h1>502 Bad Gateway</h1></html>",
        expected: IN_DOUBT,
        code: None,
        source: "nginx's error page",
    },
    Row {
        status: 504,
        headers: &[("Content-Type", "text/html")],
        body: "<html><h1>504 Gateway Time-out</h1></html>",
        expected: IN_DOUBT,
        code: None,
        source: "nginx's error page",
    },
    Row {
        status: 503,
        headers: &[],
        body: "no healthy upstream",
        expected: UNAVAILABLE,
        code: None,
        source: "Envoy's error text",
    },
    Row { status: 500, headers: &[], body: "oops", expected: IN_DOUBT, code: None, source: "an unknown server" },
    Row {
        status: 407,
        headers: &[("Content-Type", "text/html")],
        body: "<html>log in first</html>",
        expected: MISCONFIGURED,
        code: None,
        source: "RFC 9110 section 15.5.8",
    },
    Row {
        status: 413,
        headers: &[("Content-Type", "text/html")],
        body: "<html>too large</html>",
        expected: MESSAGE_PERMANENT,
        code: None,
        source: "RFC 9110 section 15.5.14",
    },
    Row {
        status: 302,
        headers: &[("Location", "http://127.0.0.1:1/login")],
        body: "",
        expected: MISCONFIGURED,
        code: None,
        source: "RFC 9110 section 15.4.3",
    },
    Row {
        status: 200,
        headers: &[("Content-Type", "text/html")],
        body: "<html>Welcome to this hotel</html>",
        expected: IN_DOUBT,
        code: None,
        source: "a captive portal",
    },
    Row {
        status: 200,
        headers: &[],
        body: "{}",
        expected: IN_DOUBT,
        code: None,
        source: "API reference v2, SendEmail: an acceptance has a MessageId",
    },
    Row { status: 200, headers: &[], body: r#"{"MessageId":""}"#, expected: IN_DOUBT, code: None, source: "the same" },
    Row { status: 200, headers: &[], body: r#"{"MessageId":7}"#, expected: IN_DOUBT, code: None, source: "the same" },
];

#[tokio::test]
async fn responses_are_classified_by_the_table_without_retries() {
    for Row { status, headers, body, expected, code, source } in RESPONSES {
        let peer = peer([HttpReply::answer(*status, headers, body)]).await;
        let ses = ses(&peer);
        let failure = send_failing(&ses, &peer, &mail()).await;
        let row = format!("{status} {body} ({source}): {failure}");
        assert_eq!(classification(&failure), *expected, "{row}");
        assert_eq!(error(&failure).code(), *code, "{row}");
        let not_ses = code.is_none() && matches!(status, 302 | 404);
        assert_eq!(failure.is_sure(), !(not_ses || *code == Some("TeapotException")), "{row}");
        assert_eq!(error(&failure).status(), Some(*status), "{row}");
        // The AWS configuration sets five attempts.
        assert_eq!(peer.seen().len(), 1, "{row}");
        assert_eq!(ses.send(&mail()).await.unwrap().provider_id.as_deref(), Some("next"), "{row}");
    }
}

#[tokio::test]
async fn an_acceptance_may_lack_the_message_id() {
    for body in ["{}", r#"{"MessageId":null}"#] {
        let peer = peer([HttpReply::answer(200, &[("x-amzn-RequestId", "r-1")], body)]).await;
        let receipt = ses(&peer).send(&mail()).await.unwrap();
        assert_eq!(receipt.provider_id, None, "{body}");
    }
}

#[tokio::test]
async fn the_reply_is_verbatim_and_display_is_masked() {
    let Row { status, headers, body, .. } = RESPONSES[0];
    let peer = peer([HttpReply::answer(status, headers, body)]).await;
    let failure = send_failing(&ses(&peer), &peer, &mail()).await;
    assert_eq!(failure.reply(), Some(format!("400 {body}").as_str()));
    assert_eq!(error(&failure).request_id(), Some("r-1"));
    assert_eq!(
        failure.to_string(),
        "SES responded with 400 MessageRejected: Email address is not verified. The following identities failed the check in \
         region EU-WEST-1: b***@example.org (request r-1)"
    );
}
