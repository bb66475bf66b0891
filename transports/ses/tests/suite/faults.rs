//! Network faults at each stage of a call.

use std::net::TcpListener;
use std::time::Duration;

use aws_sdk_sesv2::config::{ProvideCredentials, SharedCredentialsProvider};
use postrider_ses::{Ses, Stage};
use postrider_transport::Transport;
use postrider_transport::testkit::HttpReply;

use crate::support::{
    IN_DOUBT, MESSAGE_PERMANENT, UNAVAILABLE, builder, classification, error, large_mail, long_timeouts, mail,
    outgoing, peer, sdk_config, send_failing, ses,
};

#[tokio::test]
async fn a_break_before_the_whole_request_is_not_in_doubt() {
    for act in [HttpReply::ResetUnread, HttpReply::ResetAfter(64 * 1024)] {
        let peer = peer([act.clone()]).await;
        let ses = ses(&peer);
        let failure = send_failing(&ses, &peer, &large_mail()).await;
        assert_eq!(classification(&failure), UNAVAILABLE, "{act:?}: {failure}");
        assert_eq!(error(&failure).stage(), Stage::Request, "{act:?}");
        assert!(peer.seen().is_empty(), "{act:?}");
        assert!(ses.send(&mail()).await.is_ok(), "{act:?}");
    }
}

#[tokio::test]
async fn a_closed_port_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ses = Ses::builder(&sdk_config()).region("eu-west-1").endpoint_url(format!("http://{free}")).build().unwrap();
    let failure = ses.send(&mail()).await.unwrap_err();
    assert_eq!(classification(&failure), UNAVAILABLE, "{failure}");
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn a_break_after_the_whole_request_is_in_doubt() {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    for (what, act) in [
        ("closed", HttpReply::Close),
        ("half a head", HttpReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        ("half a body", HttpReply::Raw(format!("{}{{\"MessageId\":\"x", head(40)).into_bytes())),
        ("a whole id, half a body", HttpReply::Raw(format!("{}{{\"MessageId\":\"x\"}}", head(400)).into_bytes())),
        ("no HTTP", HttpReply::Raw(b"220 mail.example.com ESMTP\r\n".to_vec())),
        ("binary", HttpReply::Raw((0..=255).collect())),
        (
            "oversized",
            HttpReply::Raw(
                format!("{}{{\"MessageId\":\"x\"{}}}", head(1 << 20), " ".repeat((1 << 20) - 17)).into_bytes(),
            ),
        ),
        ("an endless head", HttpReply::Raw(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(4 << 20)).into_bytes())),
    ] {
        let peer = peer([act]).await;
        let ses = ses(&peer);
        let failure = send_failing(&ses, &peer, &mail()).await;
        assert_eq!(classification(&failure), IN_DOUBT, "{what}: {failure}");
        assert_eq!(error(&failure).stage(), Stage::Response, "{what}");
        assert_eq!(peer.seen().len(), 1, "{what}");
        assert!(failure.reply().is_none_or(|reply| reply.len() < 8192), "{what}");
        assert!(ses.send(&mail()).await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn an_incomplete_refusal_is_a_refusal() {
    let cut = "HTTP/1.1 400 Bad Request\r\nx-amzn-ErrorType: BadRequestException:http://x/\r\nContent-Length: 99\r\n\r\n{\"mess";
    let peer = peer([HttpReply::Raw(cut.into())]).await;
    let failure = send_failing(&ses(&peer), &peer, &mail()).await;
    assert_eq!(
        (classification(&failure), error(&failure).code()),
        (MESSAGE_PERMANENT, Some("BadRequestException")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_timeout_before_the_whole_request_is_not_in_doubt() {
    let peer = peer([HttpReply::HangUnread]).await;
    let mut timeouts = long_timeouts();
    timeouts.request = Duration::from_millis(300);
    let ses = builder(&peer).timeouts(timeouts).build().unwrap();
    let failure = send_failing(&ses, &peer, &large_mail()).await;
    assert_eq!(classification(&failure), UNAVAILABLE, "{failure}");
    assert!(error(&failure).is_timeout() && error(&failure).stage() == Stage::Request);
    assert!(peer.seen().is_empty());
}

#[tokio::test]
async fn a_timeout_after_the_whole_request_is_in_doubt() {
    for act in [
        HttpReply::Hang,
        // The connection stays open within the response.
        HttpReply::answer(200, &[("Transfer-Encoding", "chunked")], ""),
    ] {
        let peer = peer([act.clone()]).await;
        let mut timeouts = long_timeouts();
        timeouts.response = Duration::from_millis(300);
        let ses = builder(&peer).timeouts(timeouts).build().unwrap();
        let failure = send_failing(&ses, &peer, &mail()).await;
        assert_eq!(classification(&failure), IN_DOUBT, "{act:?}: {failure}");
        assert_eq!(error(&failure).stage(), Stage::Response, "{act:?}");
        assert_eq!(peer.seen().len(), 1, "{act:?}");
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    #[derive(Debug)]
    struct NoCredentials;
    impl ProvideCredentials for NoCredentials {
        fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let error = aws_credential_types::provider::error::CredentialsError::not_loaded("nobody is\n  logged in");
            aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
        }
    }
    let peer = peer([]).await;
    let config =
        sdk_config().into_builder().credentials_provider(SharedCredentialsProvider::new(NoCredentials)).build();
    let ses = Ses::builder(&config).region("eu-west-1").endpoint_url(peer.url()).build().unwrap();
    let failure = send_failing(&ses, &peer, &mail()).await;
    assert_eq!(classification(&failure), UNAVAILABLE, "{failure}");
    assert!(failure.to_string().contains("nobody is logged in"), "{failure}");
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn an_attempt_without_recipients_is_not_sent() {
    let peer = peer([]).await;
    let mail = outgoing(mail().message().clone()).with_recipients(Vec::new());
    let failure = send_failing(&ses(&peer), &peer, &mail).await;
    assert_eq!((classification(&failure), peer.connections()), (MESSAGE_PERMANENT, 0), "{failure}");
}
