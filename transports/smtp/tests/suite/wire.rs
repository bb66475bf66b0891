//! The octets that travel.

use postrider_transport::Transport;

use crate::support::{Act, At, Peer, assert_carried, email, mail, mail_to, outgoing, smtp};

#[tokio::test]
async fn the_message_arrives_to_the_octet() {
    for pipelining in [false, true] {
        let peer = Peer::start(pipelining).await;
        let smtp = smtp(&peer);
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
            // The peer takes doubled dots away and compares with what was rendered.
            assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        }
        assert_eq!(peer.connections(), 1);
        assert!(!peer.heard_any("QUIT"), "a line of a message was taken for a command");
    }
}

#[tokio::test]
async fn with_pipelining_the_envelope_travels_together() {
    let peer = Peer::start(true).await;
    smtp(&peer).send(&mail_to(5)).await.unwrap();
    assert!(peer.accepted()[0].in_one, "the end of the message came after the message");
    for heard in peer.heard() {
        let together = heard.line.starts_with("MAIL") || heard.line.starts_with("RCPT");
        assert_eq!(heard.with_more, together, "{heard:?}");
    }
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_its_answer() {
    let peer = Peer::start(false).await;
    let smtp = smtp(&peer);
    peer.once(At::RcptNo(3), Act::Say("550 5.1.1 unknown"));
    smtp.send(&mail_to(5)).await.unwrap();
    peer.once(At::Rcpt, Act::Say("550 5.1.1 unknown"));
    smtp.send(&mail()).await.unwrap_err();
    smtp.send(&mail()).await.unwrap();
    let heard = peer.heard();
    assert!(heard.iter().all(|heard| !heard.with_more), "{heard:?}");
    let data = heard.iter().filter(|heard| heard.line == "DATA").count();
    assert_eq!(data, 2, "DATA was said for nobody");
    assert_eq!(heard.iter().filter(|heard| heard.line == "RSET").count(), 1);
}

#[tokio::test]
async fn nothing_is_asked_before_a_connection_is_used_again() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    for _ in 0..3 {
        smtp.send(&mail()).await.unwrap();
    }
    let verbs: Vec<_> = peer.heard().into_iter().map(|heard| heard.line[..4].to_owned()).collect();
    let one = ["MAIL", "RCPT", "DATA"];
    assert_eq!(verbs, [&["EHLO"][..], &one, &one, &one].concat());
}
