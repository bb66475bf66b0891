//! The octets on the wire.

use postrider_transport::Transport;

use crate::support::{Action, At, TestServer, assert_delivered, email, mail, mail_to, outgoing, smtp};

#[tokio::test]
async fn the_message_arrives_octet_for_octet() {
    for pipelining in [false, true] {
        let server = TestServer::start(pipelining).await;
        let smtp = smtp(&server);
        for text in [
            ".",
            "..",
            ".\n.\n.",
            "a\n.\nQUIT\n",
            ".a\n..b\n...c",
            "ends with lines\n\n\n",
            "no end",
            "\n\n.begins with lines",
            "\r\n.\r\n",
            "a line of many dots: .......................................................................................",
            "trüb\n.trüb",
            "",
        ] {
            let mail = outgoing(email().to("bob@example.org").text(text).build().unwrap());
            let receipt = smtp.send(&mail).await.unwrap();
            // The server removes doubled dots. The rest must equal the rendered message.
            assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        }
        assert_eq!(server.connections(), 1);
        assert!(!server.received_any("QUIT"), "a line of a message was taken for a command");
    }
}

#[tokio::test]
async fn with_pipelining_the_envelope_is_one_group() {
    let server = TestServer::start(true).await;
    smtp(&server).send(&mail_to(5)).await.unwrap();
    assert!(server.accepted()[0].in_one_read, "the end of the message was written separately");
    for received in server.received() {
        let together = received.line.starts_with("MAIL") || received.line.starts_with("RCPT");
        assert_eq!(received.pipelined, together, "{received:?}");
    }
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_its_reply() {
    let server = TestServer::start(false).await;
    let smtp = smtp(&server);
    server.once(At::RcptNumber(3), Action::Reply("550 5.1.1 unknown"));
    smtp.send(&mail_to(5)).await.unwrap();
    server.once(At::Rcpt, Action::Reply("550 5.1.1 unknown"));
    smtp.send(&mail()).await.unwrap_err();
    smtp.send(&mail()).await.unwrap();
    let received = server.received();
    assert!(received.iter().all(|received| !received.pipelined), "{received:?}");
    let data = received.iter().filter(|received| received.line == "DATA").count();
    assert_eq!(data, 2, "DATA was sent without a recipient");
    assert_eq!(received.iter().filter(|received| received.line == "RSET").count(), 1);
}

#[tokio::test]
async fn reuse_needs_no_extra_command() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    for _ in 0..3 {
        smtp.send(&mail()).await.unwrap();
    }
    let verbs: Vec<_> = server.received().into_iter().map(|received| received.line[..4].to_owned()).collect();
    let one = ["MAIL", "RCPT", "DATA"];
    assert_eq!(verbs, [&["EHLO"][..], &one, &one, &one].concat());
}
