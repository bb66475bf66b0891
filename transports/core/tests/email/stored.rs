//! The stored form `email/1`.

use postrider_transport::{Attachment, Email, Encoded, Message};
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
fn long_texts_follow_the_object_unescaped() {
    let email = Email::builder().from("shop@example.com").to("ada@example.com").subject("\"Hi\"");
    let email = email
        .text("Dear \"Ada\",\n\\é\n")
        .html("<p>\0</p>")
        .attach(Attachment::new("a", "text/plain", *b"hi").unwrap());
    let email = email.build().unwrap();
    let body = concat!(
        r#"{"from":"shop@example.com","to":["ada@example.com"],"subject":"\"Hi\"","text":16,"html":"<p>\u0000</p>","#,
        r#""attachments":[{"file_name":"a","content_type":"text/plain","content":4}]}"#,
        "\nDear \"Ada\",\n\\é\n\naGk="
    );
    assert_eq!(email.encode().unwrap().body, body);
    assert_eq!(read(body).unwrap(), email);
}

/// Text, HTML, attachments: in this order, with any order of the fields in the object.
#[test]
fn long_texts_have_a_fixed_order() {
    let part = |name: &str, content: &[u8]| Attachment::new(name, "text/plain", content).unwrap();
    let email = Email::builder().from("shop@example.com").to("ada@example.com").text("One\n").html("<p>");
    let email = email.attach(part("a", b"")).attach(part("b", b"hi")).build().unwrap();
    let trailing = "\nOne\n\n<p>\n\naGk=";
    let written = concat!(
        r#"{"from":"shop@example.com","to":["ada@example.com"],"subject":"","text":4,"html":3,"attachments":["#,
        r#"{"file_name":"a","content_type":"text/plain","content":0},"#,
        r#"{"file_name":"b","content_type":"text/plain","content":4}]}"#,
    );
    let reordered = concat!(
        r#" {"attachments":[{"content":0,"file_name":"a","content_type":"text/plain"},"#,
        r#"{"content":4,"file_name":"b","content_type":"text/plain"}],"html":3,"text":4,"#,
        r#""to":["ada@example.com"],"from":"shop@example.com"}"#,
    );
    assert_eq!(email.encode().unwrap().body, format!("{written}{trailing}"));
    for object in [written, reordered] {
        assert_eq!(read(&format!("{object}{trailing}")).unwrap(), email);
    }
    let mixed = reordered.replacen(r#""html":3"#, r#""html":"<p>""#, 1);
    assert_eq!(read(&format!("{mixed}\nOne\n\n\naGk=")).unwrap(), email);
}

#[test]
fn long_texts_of_a_wrong_length_are_refused() {
    let of = |text: &str, trailing: &str| {
        read(&format!(r#"{{"from":"shop@example.com","to":["ada@example.com"],"text":{text}}}{trailing}"#))
    };
    assert_eq!(of("2", "\né").unwrap().text(), Some("é"));
    assert_eq!(of("0", "\n").unwrap().text(), Some(""));
    assert_eq!(of("\"a\"", "\n\t\r ").unwrap().text(), Some("a"));
    for (text, trailing) in [
        ("3", "\né"),
        ("1", "\né"),
        ("2", "é"),
        ("1", "\né!"),
        ("0", ""),
        ("0", "\n\n"),
        ("2", "\né\n"),
        ("2", " \né"),
        ("2", "\r\né"),
        ("\"a\"", "\u{c}"),
        ("2", "\nabc"),
        ("\"a\"", "\nabc"),
        ("\"a\"", "{}"),
        ("-1", "\na"),
        ("1.0", "\na"),
        ("18446744073709551615", "\na"),
        ("18446744073709551616", "\na"),
        ("true", "\na"),
        ("[1]", "\na"),
    ] {
        let error = of(text, trailing).unwrap_err();
        assert!(!error.is_unknown_format() && !error.to_string().contains("abc"), "{text} {trailing:?}: {error}");
    }
    let array = r#"["shop@example.com",null,[],["ada@example.com"],[],[],"","hi"]"#;
    for other in ["", " ", "\n", "7", "[]", "null", "\"a\"", array] {
        assert!(read(other).is_err(), "{other:?}");
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
        text in proptest::option::of(TEXT), html in TEXT, value in "\\PC{0,40}", file in "\\PC{1,20}", content in any::<Vec<u8>>(),
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
        if let Ok(attachment) = Attachment::new(file, "application/octet-stream", content) {
            builder = builder.attach(attachment);
        }
        if let Ok(email) = builder.build() {
            let encoded = email.encode().unwrap();
            prop_assert!(!encoded.body.contains('\0'), "PostgreSQL cannot store NUL");
            prop_assert_eq!(Email::decode(&encoded).unwrap(), email);
            let mut ends = encoded.body.char_indices().map(|(end, _)| end).collect::<Vec<_>>();
            let end = ends.swap_remove(cut.index(ends.len()));
            let truncated = Encoded { body: encoded.body[..end].to_owned(), ..encoded };
            prop_assert!(Email::decode(&truncated).is_err(), "a truncated form was decoded");
        }
    }
}
