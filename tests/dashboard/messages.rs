//! The content of a mail.

use axum::http::{StatusCode, header};
use mail_parser::{MessageParser, MimeHeaders};
use postrider::store::NewRow;
use postrider::transport::{Attachment, Encoded, Recipient};
use postrider::{DeliveryId, Prune, State, Store};

use crate::fixture::{email, full, mail};
use crate::site::Site;

#[tokio::test]
async fn each_form_of_the_message_is_shown() {
    let site = Site::new();
    let id = site.enqueue(full()).await;
    let path = format!("/deliveries/{id}/message");
    let html = site.page(&path).await;
    assert!(html.contains("<iframe class=\"mail\" sandbox=\"\" src=\"message.html\""), "{html}");
    for text in
        ["Bob &#60;bob@example.org&#62;", "carol@example.net", "X-Shop", "Metadata order", "invoice.pdf", "1.5 kB"]
    {
        assert!(html.contains(text), "{text}: {html}");
    }
    let linked = site.enqueue(mail().html("<a href='javascript:x()//\"><b>'>Click</a>").build().unwrap()).await;
    let linked = site.page(&format!("/deliveries/{linked}/message")).await;
    assert!(linked.contains("<code><bdi>javascript:x()//&#34;&#62;&#60;b&#62;</bdi></code>"), "{linked}");
    assert!(linked.contains("<td><bdi>Click</bdi></td>") && !linked.contains("href=\"javascript"), "{linked}");
    let text = site.page(&format!("{path}?show=text")).await;
    assert!(text.contains("<pre class=\"content\"") && text.contains("It is on its way."));
    let stored = site.page(&format!("{path}?show=stored")).await;
    assert!(stored.contains("Format: email/1"), "{stored}");
    let frame = site.get(&format!("/deliveries/{id}/message.html")).await;
    let shown = "<h1>It is on its way.</h1><img src=\"data:image/png;base64,cG5n\">";
    assert!(frame.text().starts_with(shown), "{}", frame.text());
    // A mail without HTML shows its text first.
    let plain = site.enqueue(email()).await;
    assert!(site.page(&format!("/deliveries/{plain}/message")).await.contains("It is on its way."));
}

/// The parser is independent of this project.
#[tokio::test]
async fn the_source_is_a_mail_that_another_parser_reads() {
    let site = Site::new();
    let id = site.enqueue(full()).await;
    let reply = site.get(&format!("/deliveries/{id}/message.eml")).await;
    assert_eq!(reply.header(header::CONTENT_DISPOSITION), format!("attachment; filename=\"{id}.eml\""));
    let parsed = MessageParser::default().parse(&reply.bytes).unwrap();
    assert_eq!(parsed.subject(), Some("Your order"));
    assert_eq!(parsed.body_text(0).unwrap().trim_end(), "It is on its way.");
    assert_eq!(parsed.message_id(), Some(format!("{id}@example.com").as_str()));
    let names: Vec<_> = parsed.attachments().filter_map(|part| part.attachment_name()).collect();
    assert!(names.contains(&"invoice.pdf"), "{names:?}");
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("carol"), "a hidden recipient is in the source");
    let page = site.page(&format!("/deliveries/{id}/message?show=source")).await;
    assert!(page.contains("Subject: Your order"), "{page}");
}

#[tokio::test]
async fn the_structure_and_the_size_are_those_of_the_source() {
    let site = Site::new();
    let id = site.enqueue(full()).await;
    let page = site.page(&format!("/deliveries/{id}/message?show=structure")).await;
    let source = site.get(&format!("/deliveries/{id}/message.eml")).await.bytes;
    let size = format!("<dt>Size as sent</dt><dd>{}.{} kB</dd>", source.len() / 1_000, source.len() % 1_000 / 100);
    assert!(page.contains(&size), "{size}: {page}");
    let mut rest = page.as_str();
    for (level, text) in [
        (0, "multipart/mixed"),
        (1, "multipart/alternative"),
        (2, "text/plain; charset=utf-8"),
        (2, "multipart/related"),
        (3, "text/html; charset=utf-8"),
        (3, "image/png"),
        (1, "application/pdf"),
    ] {
        let row = format!("<tr class=\"level-{level}\"><td>{level}</td><th scope=\"row\"><bdi>{text}</bdi></th>");
        rest = rest.split_once(&row).unwrap_or_else(|| panic!("no {row} after that: {page}")).1;
    }
    assert!(rest.contains("<bdi>invoice.pdf</bdi>") && rest.contains("<td>1.5 kB</td>"), "{rest}");
}

#[tokio::test]
async fn attachments_are_downloaded_and_never_shown() {
    let site = Site::new();
    let evil = "../../x\u{202e}gnp.html";
    let attachment = Attachment::new(evil, "text/html", *b"<script>alert(1)</script>").unwrap();
    let id = site.enqueue(mail().attach(attachment).build().unwrap()).await;
    let reply = site.get(&format!("/deliveries/{id}/attachments/1")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.bytes, b"<script>alert(1)</script>");
    assert_eq!(reply.header(header::CONTENT_TYPE), "application/octet-stream");
    assert_eq!(reply.header(header::CONTENT_DISPOSITION), "attachment; filename=\"xgnp.html\"");
    assert!(reply.header(header::CONTENT_SECURITY_POLICY).starts_with("sandbox;"));
}

#[tokio::test]
async fn a_deleted_message_and_one_of_another_type_are_explained() {
    let site = Site::new();
    let id = site.enqueue(full()).await;
    site.drain(Vec::new()).await;
    let prune = Prune::messages(std::time::Duration::ZERO).state(State::Sent);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(site.outbox.prune(&prune).await.unwrap(), 1);
    for end in ["message", "message.html", "message.eml", "attachments/1"] {
        let reply = site.get(&format!("/deliveries/{id}/{end}")).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{end}");
        assert!(reply.text().contains("The message is deleted"), "{}", reply.text());
    }
    let reply = site.submit(&format!("/deliveries/{id}/resend")).await;
    assert!(reply.location().contains("done=deleted"));

    let id = DeliveryId::new();
    let row = NewRow::new(id, Encoded::new("push/1", "{\"<b>\": 1}"), vec![Recipient::new("device-1")]);
    site.outbox.store().insert(vec![row]).await.unwrap();
    let page = site.page(&format!("/deliveries/{id}/message")).await;
    assert!(page.contains("Format: push/1") && page.contains("&#60;b&#62;"), "{page}");
    assert_eq!(site.get(&format!("/deliveries/{id}/message.eml")).await.status, StatusCode::BAD_REQUEST);
}
