//! Answers as SES, and what stands before it, gives them.

use postrider_transport::Transport;
use postrider_transport::testkit::HttpReply;

use crate::support::{
    IN_DOUBT, LATER, MISCONFIGURED, Meaning, NEVER, OUT_OF_ORDER, UNVERIFIED, error, mail, meaning, peer, refused, ses,
    wait,
};

type Row = (u16, &'static [(&'static str, &'static str)], &'static str, Meaning, Option<&'static str>, &'static str);

/// Status, headers, body; what it means; the name of the error; where the form is from.
const ANSWERS: &[Row] = &[
    (
        400,
        &[("x-amzn-ErrorType", "MessageRejected"), ("x-amzn-RequestId", "r-1")],
        r#"{"message":"Email address is not verified. The following identities failed the check in region EU-WEST-1: bob@example.org"}"#,
        LATER,
        Some("MessageRejected"),
        "developer guide, error messages returned by the API",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "MessageRejected")],
        r#"{"message":"Email address is not verified. The following identities failed the check in region EU-WEST-1: bob@example.org, shop@example.com"}"#,
        UNVERIFIED,
        Some("MessageRejected"),
        "developer guide, error messages returned by the API",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "MessageRejected")],
        r#"{"message":"Email address is not verified."}"#,
        UNVERIFIED,
        Some("MessageRejected"),
        "developer guide, error messages returned by the API",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "MailFromDomainNotVerifiedException")],
        "{}",
        UNVERIFIED,
        Some("MailFromDomainNotVerifiedException"),
        "API reference v2, SendEmail",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "TeapotException")],
        r#"{"message":"nobody knows"}"#,
        NEVER,
        Some("TeapotException"),
        "no documentation has it: not sure",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "MessageRejected:http://internal.amazon.com/coral/com.amazonaws.services.ses.v2/")],
        r#"{"message":"Transaction failed: Expected disposition, got null"}"#,
        NEVER,
        Some("MessageRejected"),
        "aws-sdk issues; the form of the header: Smithy, AWS restJson1, operation error serialization",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "BadRequestException")],
        r#"{"message":"Missing final '@domain'"}"#,
        NEVER,
        Some("BadRequestException"),
        "API reference v2, SendEmail",
    ),
    (
        404,
        &[("x-amzn-ErrorType", "NotFoundException")],
        r#"{"message":"Configuration set <x> does not exist."}"#,
        MISCONFIGURED,
        Some("NotFoundException"),
        "API reference v2, SendEmail",
    ),
    (
        400,
        &[("x-amzn-ErrorType", "SendingPausedException")],
        r#"{"message":"Email sending is disabled for the account."}"#,
        MISCONFIGURED,
        Some("SendingPausedException"),
        "API reference v2, SendEmail",
    ),
    (
        429,
        &[("x-amzn-ErrorType", "TooManyRequestsException")],
        r#"{"message":"Maximum sending rate exceeded."}"#,
        wait(2),
        Some("TooManyRequestsException"),
        "developer guide, errors related to the sending quotas",
    ),
    (
        400,
        &[],
        r#"{"__type":"com.amazon.coral.availability#ThrottlingException","message":"Daily message quota exceeded."}"#,
        wait(3600),
        Some("ThrottlingException"),
        "developer guide, errors related to the sending quotas; the form of the type: Smithy, AWS restJson1",
    ),
    (
        429,
        &[("x-amzn-ErrorType", "TooManyRequestsException"), ("Retry-After", "30")],
        r#"{"message":"Too Many Requests"}"#,
        wait(30),
        Some("TooManyRequestsException"),
        "RFC 9110 section 10.2.3",
    ),
    (
        429,
        &[
            ("x-amzn-ErrorType", "TooManyRequestsException"),
            ("Date", "Tue, 24 Nov 2026 10:00:00 GMT"),
            ("Retry-After", "Tue, 24 Nov 2026 10:01:30 GMT"),
        ],
        r#"{"message":"Too Many Requests"}"#,
        wait(90),
        Some("TooManyRequestsException"),
        "RFC 9110 section 10.2.3",
    ),
    (
        429,
        &[("x-amzn-ErrorType", "TooManyRequestsException"), ("Retry-After", "0")],
        r#"{"message":"Too Many Requests"}"#,
        wait(2),
        Some("TooManyRequestsException"),
        "no bound, and no order to come back at once",
    ),
    (
        403,
        &[("x-amzn-ErrorType", "InvalidClientTokenId")],
        r#"{"message":"The security token included in the request is invalid."}"#,
        MISCONFIGURED,
        Some("InvalidClientTokenId"),
        "AWS, common errors",
    ),
    (
        403,
        &[("x-amzn-ErrorType", "AccessDeniedException")],
        r#"{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: ses:SendEmail"}"#,
        MISCONFIGURED,
        Some("AccessDeniedException"),
        "AWS, common errors; developer guide, policies",
    ),
    (500, &[("x-amzn-ErrorType", "InternalFailure")], "{}", LATER, Some("InternalFailure"), "AWS, common errors"),
    (
        503,
        &[("x-amzn-ErrorType", "ServiceUnavailableException")],
        "{}",
        OUT_OF_ORDER,
        Some("ServiceUnavailableException"),
        "AWS, common errors",
    ),
    (
        502,
        &[("Content-Type", "text/html")],
        "<html><h1>502 Bad Gateway</h1></html>",
        IN_DOUBT,
        None,
        "nginx's own page",
    ),
    (
        504,
        &[("Content-Type", "text/html")],
        "<html><h1>504 Gateway Time-out</h1></html>",
        IN_DOUBT,
        None,
        "nginx's own page",
    ),
    (503, &[], "no healthy upstream", OUT_OF_ORDER, None, "Envoy's own text"),
    (500, &[], "oops", IN_DOUBT, None, "nobody in particular"),
    (
        407,
        &[("Content-Type", "text/html")],
        "<html>log in first</html>",
        MISCONFIGURED,
        None,
        "RFC 9110 section 15.5.8",
    ),
    (413, &[("Content-Type", "text/html")], "<html>too large</html>", NEVER, None, "RFC 9110 section 15.5.14"),
    (302, &[("Location", "http://127.0.0.1:1/login")], "", MISCONFIGURED, None, "RFC 9110 section 15.4.3"),
    (200, &[("Content-Type", "text/html")], "<html>Welcome to this hotel</html>", IN_DOUBT, None, "a captive portal"),
    (200, &[], "{}", IN_DOUBT, None, "API reference v2, SendEmail: an acceptance has a MessageId"),
    (200, &[], r#"{"MessageId":""}"#, IN_DOUBT, None, "the same"),
    (200, &[], r#"{"MessageId":7}"#, IN_DOUBT, None, "the same"),
];

#[tokio::test]
async fn each_answer_means_what_the_table_says_and_is_asked_for_once() {
    for (status, headers, body, expected, code, source) in ANSWERS {
        let peer = peer([HttpReply::answer(*status, headers, body)]).await;
        let ses = ses(&peer);
        let failure = refused(&ses, &peer, &mail()).await;
        let row = format!("{status} {body} ({source}): {failure}");
        assert_eq!(meaning(&failure), *expected, "{row}");
        assert_eq!(error(&failure).code(), *code, "{row}");
        let not_ses = code.is_none() && matches!(status, 302 | 404);
        assert_eq!(failure.is_sure(), !(not_ses || *code == Some("TeapotException")), "{row}");
        assert_eq!(error(&failure).status(), Some(*status), "{row}");
        // The AWS configuration wanted five attempts.
        assert_eq!(peer.seen().len(), 1, "{row}");
        assert_eq!(ses.send(&mail()).await.unwrap().provider_id.as_deref(), Some("next"), "{row}");
    }
}

#[tokio::test]
async fn an_acceptance_may_have_no_id_of_the_message() {
    for body in ["{}", r#"{"MessageId":null}"#] {
        let peer = peer([HttpReply::answer(200, &[("x-amzn-RequestId", "r-1")], body)]).await;
        let receipt = ses(&peer).send(&mail()).await.unwrap();
        assert_eq!(receipt.provider_id, None, "{body}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_to_the_letter_and_shown_masked() {
    let (status, headers, body, ..) = ANSWERS[0];
    let peer = peer([HttpReply::answer(status, headers, body)]).await;
    let failure = refused(&ses(&peer), &peer, &mail()).await;
    assert_eq!(failure.reply(), Some(format!("400 {body}").as_str()));
    assert_eq!(error(&failure).request_id(), Some("r-1"));
    assert_eq!(
        failure.to_string(),
        "SES answered 400 MessageRejected: Email address is not verified. The following identities failed the check in \
         region EU-WEST-1: b***@example.org (request r-1)"
    );
}
