//! Mails that SES does not support are refused when they are enqueued.

use postrider_transport::{Attachment, Class, EmailBuilder, Transport, Unsupported};

use crate::support::{email, outgoing, peer, ses};

fn many(count: usize) -> EmailBuilder {
    (0..count).fold(email(), |builder, index| builder.bcc(format!("r{index}@example.org")))
}

fn to() -> EmailBuilder {
    email().to("bob@example.org")
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let large = vec![0xff; 31 << 20];
    for (builder, text) in [
        (many(51), "50 recipients"),
        (to().null_envelope_from(), "null reverse-path"),
        (email().to("пошта@example.org"), "outside ASCII"),
        (to().reply_to("пошта@example.org"), "outside ASCII"),
        (to().envelope_from("пошта@example.org".parse().unwrap()), "outside ASCII"),
        (to().tag("order confirmation"), "letters, digits"),
        (to().metadata("name", "Ada Lovelace"), "letters, digits"),
        (to().metadata("name", ""), "letters, digits"),
        (to().metadata("name", "x".repeat(257)), "letters, digits"),
        (to().tag("welcome").metadata("tag", "x"), "named tag"),
        (to().header("Precedence", "bulk").header("precedence", "list"), "precedence more than once"),
        (
            to().size_limit(usize::MAX).attach(Attachment::new("a.bin", "application/octet-stream", large).unwrap()),
            "40 MB",
        ),
    ] {
        let email = builder.build().unwrap();
        let peer = peer([]).await;
        let ses = ses(&peer);
        for failure in [ses.check(&email).unwrap_err(), ses.send(&outgoing(email)).await.unwrap_err()] {
            assert!(failure.downcast_ref::<Unsupported>().is_some(), "{text}: {failure}");
            assert_eq!(failure.class(), Class::Permanent, "{text}");
            assert!(failure.to_string().contains(text), "{text}: {failure}");
        }
        assert_eq!(peer.connections(), 0, "{text}");
    }
}

#[tokio::test]
async fn mail_at_the_limits_is_sent() {
    for builder in [
        many(50),
        email().to("ada@bücher.example"),
        to().tag("welcome").tag("Autumn_2026").metadata("user", "x".repeat(256)),
        to().header("Precedence", "bulk").header("X-Twice", "a").header("X-Twice", "b"),
        to().text("Zürich, Ελλάδα, 東京").subject("Grüße"),
    ] {
        let email = builder.build().unwrap();
        let peer = peer([]).await;
        let ses = ses(&peer);
        ses.check(&email).unwrap();
        ses.send(&outgoing(email)).await.unwrap();
        assert_eq!(peer.seen().len(), 1);
    }
}
