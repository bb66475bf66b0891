//! The stored form `email/1`.

use postrider_transport::{Attachment, Blob, BlobHash, Email, Encoded, Message};
use proptest::prelude::*;

use super::{full, read};

#[test]
fn the_stored_form_round_trips() {
    let email = full();
    let encoded = email.encode().unwrap();
    assert_eq!(encoded.format, "email/1");
    assert_eq!(Email::decode(&encoded).unwrap(), email);
}

#[test]
fn the_stored_form_of_another_program_is_decoded() {
    let body = r#"{"from":"Shop <shop@example.com>","to":["ada@example.com",{"name":"Bob","address":"bob@example.com"}],
        "subject":"Hi","text":"Dear \u00e9\n\"Bob\"","html":null,
        "attachments":[{"file_name":"a","content_type":"text/plain","content":"aGk="}]}
        "#;
    let email = read(body).unwrap();
    assert_eq!(email.from().name(), Some("Shop"));
    assert_eq!(email.recipients().len(), 2);
    assert_eq!(email.text(), Some("Dear é\n\"Bob\""));
    assert_eq!(email.html(), None);
    assert_eq!(email.attachments()[0].content(), b"hi");
}

/// The exact form of docs/sql.md. Other versions and other programs rely on it.
#[test]
fn texts_stand_beside_the_object_as_they_are() {
    let email = Email::builder().from("shop@example.com").to("ada@example.com").subject("\"Hi\"");
    let email = email.text("Dear \"Ada\",\n\\é\n").html("<p>\0</p>");
    let email = email.attach(Attachment::new("a", "text/plain", *b"hi").unwrap()).build().unwrap();
    let body = concat!(
        r#"{"from":"shop@example.com","to":["ada@example.com"],"subject":"\"Hi\"","html":"<p>\u0000</p>","#,
        r#""attachments":[{"file_name":"a","content_type":"text/plain","content":"aGk="}]}"#,
    );
    let encoded = email.encode().unwrap();
    assert_eq!(encoded.body, body);
    assert_eq!((encoded.text.as_deref(), encoded.html.as_deref()), (Some("Dear \"Ada\",\n\\é\n"), None));
    assert!(encoded.blobs.is_empty());
    assert_eq!(Email::decode(&encoded).unwrap(), email);
    let summary = email.summary();
    assert_eq!((summary.subject.as_deref(), summary.tags.len()), (Some("\"Hi\""), 0));
}

#[test]
fn a_text_in_the_object_and_beside_it_is_refused() {
    let both = |object: &str, text: Option<&str>, html: Option<&str>| {
        let mut encoded =
            Encoded::new("email/1", format!(r#"{{"from":"shop@example.com","to":["ada@example.com"]{object}}}"#));
        (encoded.text, encoded.html) = (text.map(str::to_owned), html.map(str::to_owned));
        Email::decode(&encoded)
    };
    assert_eq!(both(r#","text":"a""#, None, Some("b")).unwrap().html(), Some("b"));
    assert_eq!(both(r#","text":null"#, Some("a"), None).unwrap().text(), Some("a"));
    assert!(both(r#","text":"a""#, Some("a"), None).unwrap_err().to_string().contains("text twice"));
    assert!(both(r#","html":"a""#, None, Some("b")).unwrap_err().to_string().contains("HTML twice"));
}

/// PostgreSQL's `encode` and MySQL's `TO_BASE64` wrap lines.
#[test]
fn an_attachment_in_base64_may_have_line_ends() {
    let stored = |content: &str| {
        let attachment = format!(r#"{{"file_name":"a","content_type":"text/plain","content":"{content}"}}"#);
        let body = r#"{"from":"shop@example.com","to":["ada@example.com"],"text":"a","attachments":["#;
        Email::decode(&Encoded::new("email/1", format!("{body}{attachment}]}}")))
    };
    for content in ["aGkg", "aG\\nkg\\n", "\\r\\naGkg\\r\\n"] {
        assert_eq!(stored(content).unwrap().attachments()[0].content(), b"hi ", "{content}");
    }
    for content in ["aG kg", "aGk", "aGkg=", "aG\\tkg", "a-_g"] {
        assert!(stored(content).is_err(), "{content}");
    }
}

/// A large attachment is stored by its hash, and once however often the mail carries it.
#[test]
fn large_attachments_are_kept_by_their_hash() {
    let (logo, small) = (vec![7; 4096], vec![7; 4095]);
    let part = |name: &str, content: &[u8]| Attachment::new(name, "image/png", content).unwrap();
    let email = Email::builder().from("shop@example.com").to("ada@example.com").text("a");
    let email = email.attach(part("a", &logo)).attach(part("b", &small)).attach(part("c", &logo)).build().unwrap();
    let encoded = email.encode().unwrap();
    let hash = BlobHash::of(&logo);
    assert_eq!(encoded.blobs, [Blob::new(logo)]);
    assert_eq!(encoded.body.matches(&format!(r#""sha256":"{hash}""#)).count(), 2);
    assert_eq!(encoded.size(), encoded.body.len() + 1 + 4096);
    assert_eq!(Email::decode(&encoded).unwrap(), email);

    let mut missing = encoded.clone();
    missing.blobs.clear();
    let mut other = encoded.clone();
    other.blobs = vec![Blob::new(*b"another")];
    let mut wrong = encoded.clone();
    wrong.body = wrong.body.replace(&hash.to_string(), "abc");
    let mut twice = encoded.clone();
    twice.body = twice.body.replacen(r#""sha256""#, r#""content":"aGk=","sha256""#, 1);
    let mut neither = encoded;
    neither.body = neither.body.replacen(&format!(r#","sha256":"{hash}""#), "", 1);
    for broken in [missing, other, wrong, twice, neither] {
        assert!(!Email::decode(&broken).unwrap_err().is_unknown_format(), "{}", broken.body);
    }
}

#[test]
fn a_body_that_is_not_one_object_is_refused() {
    let good = r#"{"from":"shop@example.com","to":["ada@example.com"],"text":"a"}"#;
    assert!(read(&format!(" \n{good}\t\r\n ")).is_ok());
    let array = r#"["shop@example.com",null,[],["ada@example.com"],[],[],"","hi"]"#;
    for other in ["", " ", "\n", "7", "[]", "null", "\"a\"", array] {
        assert!(read(other).is_err(), "{other:?}");
    }
    for behind in ["{}", "x", "\u{c}", "\nabc"] {
        let error = read(&format!("{good}{behind}")).unwrap_err();
        assert!(!error.is_unknown_format() && !error.to_string().contains("abc"), "{behind:?}: {error}");
    }
    for (field, value) in [("text", "7"), ("html", "true"), ("text", "[1]")] {
        let body = format!(r#"{{"from":"shop@example.com","to":["ada@example.com"],"{field}":{value}}}"#);
        assert!(read(&body).is_err(), "{body}");
    }
}

#[test]
fn malformed_or_unknown_forms_are_refused_and_not_repeated() {
    let good = full().encode().unwrap();
    let cases = [
        Encoded::new("email/2", &*good.body),
        Encoded::new("email/1", &good.body[..good.body.len() / 2]),
        Encoded::new("email/1", good.body.replacen("\"subject\"", "\"subjekt\"", 1)),
        Encoded::new("email/1", good.body.replace("ada@example.com", "ada@example.com\\r\\nBcc: eve@example.com")),
        Encoded::new("email/1", ""),
    ];
    for case in cases {
        let error = Email::decode(&case).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!shown.contains("ada") && !shown.contains("Dear reader"), "{shown}");
    }
}

/// Text with line ends, characters that JSON escapes, and NUL.
const TEXT: &str = "(\\PC|[\\x00-\\x1f\"\\\\\\n]){0,60}";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_mail_round_trips_through_the_stored_form(
        name in "\\PC{0,30}", local in "[a-z0-9.+_-]{1,20}", subject in "\\PC{0,60}",
        text in proptest::option::of(TEXT), html in TEXT, value in "\\PC{0,40}", file in "\\PC{1,20}", content in any::<Vec<u8>>(), copies in prop_oneof![Just(1), Just(100)],
        metadata in "\\PC{0,30}", recipients in 1usize..6, cut in any::<prop::sample::Index>(),
    ) {
        let mut builder = Email::builder()
            .from((name, format!("{local}@example.com")))
            .subject(subject)
            .html(html)
            .header("X-Value", value)
            .metadata("key", metadata);
        if let Some(text) = text {
            builder = builder.text(text);
        }
        for n in 0..recipients {
            builder = builder.to(format!("{local}{n}@example.com"));
        }
        if let Ok(attachment) = Attachment::new(file, "application/octet-stream", content.repeat(copies)) {
            builder = builder.attach(attachment);
        }
        if let Ok(email) = builder.build() {
            let encoded = email.encode().unwrap();
            let columns = [Some(&encoded.body), encoded.text.as_ref(), encoded.html.as_ref()];
            prop_assert!(columns.into_iter().flatten().all(|text| !text.contains('\0')), "PostgreSQL cannot store NUL");
            prop_assert_eq!(Email::decode(&encoded).unwrap(), email);
            let mut ends = encoded.body.char_indices().map(|(end, _)| end).collect::<Vec<_>>();
            let end = ends.swap_remove(cut.index(ends.len()));
            let mut truncated = encoded.clone();
            truncated.body.truncate(end);
            prop_assert!(Email::decode(&truncated).is_err(), "a truncated form was decoded");
        }
    }
}
