//! Signatures, verified by mail-auth and by dkimpy.

use std::cell::RefCell;

use postrider_transport::{Attachment, Dkim, Email, EmailBuilder, ListUnsubscribe, Mime, Outgoing};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::authenticator::Dns;
use crate::mails::{email, outgoing};
use crate::python::Python;

const RSA: &str = include_str!("../keys/rsa-pkcs1.pem");
const RSA_4096: &str = include_str!("../keys/rsa-4096.pem");
const ED25519: &str = include_str!("../keys/ed25519.pem");
/// The private key of RFC 8463 appendix A.
const BRISBANE: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";

fn both() -> [Dkim; 2] {
    [Dkim::new("example.com", "rsa", RSA).unwrap(), Dkim::new("example.com", "ed25519", ED25519).unwrap()]
}

fn base() -> EmailBuilder {
    Email::builder().from("Ada <ada@example.com>").to("bob@example.org").subject("Hello")
}

/// Mails that are hard to sign, each with the reason.
fn hard() -> Vec<(&'static str, Outgoing<Email>)> {
    let file = |kind: &str, content: &[u8]| Attachment::new("a b.dat", kind, content).unwrap();
    let many = (0..500).fold(base(), |mail, n| mail.cc((format!("Näme {n}"), format!("r{n}@example.org"))));
    let unsubscribe = ListUnsubscribe::one_click(format!("https://example.com/{}", "a".repeat(300))).unwrap();
    let mails = [
        ("an empty body", base().text("")),
        ("a body of empty lines", base().text("\n\n\n")),
        ("a body of spaces", base().text(" \n\t \n")),
        ("one part", base().text("Hi!\n")),
        ("no line end", base().text("Hi!")),
        ("empty lines behind", base().text("Hi!\n\n\n")),
        ("white space", base().text("a  b\t\tc  \n \n\n  d\n")),
        ("dots", base().text(".\n..\n.a\n")),
        ("an empty HTML", base().html("")),
        ("two parts", base().text("Hi!").html("<p>Hi!")),
        ("beyond ASCII", base().subject("Grüße 你好").text("trüb\n").html("<p>📬")),
        ("many parts", base().text("a").html("<p>").attach(file("text/csv", b"1\n")).attach(file("a/b", &[0; 2_000]))),
        ("a message", base().text("a").attach(file("message/rfc822", b"Subject: x  y \n\n.\n\n  z \n\n"))),
        ("a message in 8bit", base().text("a").attach(file("message/rfc822", "Subject: x\n\nü\n".as_bytes()))),
        ("500 recipients", many.text("Hi!\n")),
        ("a long subject", base().subject("A subject of many words. ".repeat(60).trim_end()).text("a\n")),
        ("a long word", base().subject("x".repeat(1_500)).text("a\n")),
        ("no subject", base().subject("").text("a\n")),
        ("spaces in the subject", base().subject("  a   b  ").text("a\n")),
        (
            "many headers",
            base()
                .sender("office@example.com")
                .reply_to("one@example.com")
                .reply_to("Two <two@example.com>")
                .header("References", (0..40).map(|n| format!("<{n}-and-a-long-one@example.com> ")).collect::<String>())
                .header("In-Reply-To", "<0-and-a-long-one@example.com>")
                .header("X-Same", "1")
                .header("X-Same", "2")
                .header("List-Id", "Näws <news.example.com>")
                .list_unsubscribe(unsubscribe)
                .metadata("user", "7")
                .tag("welcome")
                .text("a\n"),
        ),
        ("a header twice", base().header("References", "<a@b>").header("references", "<c@d>").text("a\n")),
        ("an address beyond ASCII", base().to("пошта@example.org").text("a\n")),
    ];
    mails.map(|(what, mail)| (what, outgoing(mail.build().unwrap()))).into()
}

/// Signs each mail for SMTP and for SES, with each kind of key.
#[tokio::test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
async fn every_signature_verifies() {
    let (dns, mut python) = (Dns::example(), Python::start());
    for (what, mail) in hard() {
        for dkim in both().into_iter().flat_map(|dkim| [dkim.clone(), dkim.without_date_and_message_id()]) {
            let signed = Mime::new().with_dkim(dkim.clone()).render(&mail).unwrap();
            assert_eq!(dns.verify(&signed).await, ["pass"], "mail-auth, {what}, {dkim:?}");
            assert_eq!(python.verify(&signed, &dns.0), ["pass"], "dkimpy, {what}, {dkim:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
async fn every_form_of_a_key_is_read() {
    let (dns, mut python) = (Dns::example(), Python::start());
    let (_, mail) = hard().swap_remove(3);
    for (selector, key) in [
        ("rsa", RSA),
        ("rsa", include_str!("../keys/rsa-pkcs8.pem")),
        ("rsa4096", RSA_4096),
        ("ed25519", ED25519),
        ("brisbane", BRISBANE),
        ("brisbane", &format!("\n  {BRISBANE}\n")),
        ("rsa", &RSA.replace('\n', "\r\n")),
    ] {
        let dkim = Dkim::new("example.com", selector, key).unwrap();
        let signed = Mime::new().with_dkim(dkim).render(&mail).unwrap();
        assert_eq!(dns.verify(&signed).await, ["pass"], "{selector}");
        assert_eq!(python.verify(&signed, &dns.0), ["pass"], "{selector}");
    }
}

#[test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
fn a_signature_over_any_mail_verifies() {
    let (dns, python) = (Dns::example(), RefCell::new(Python::start()));
    let [_, dkim] = both();
    let mime = Mime::new().with_dkim(dkim);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runner
        .run(&email(), |email| {
            let signed = mime.render(&outgoing(email)).unwrap();
            let told = || String::from_utf8_lossy(&signed).into_owned();
            prop_assert_eq!(runtime.block_on(dns.verify(&signed)), ["pass"], "mail-auth:\n{}", told());
            prop_assert_eq!(python.borrow_mut().verify(&signed, &dns.0), ["pass"], "dkimpy:\n{}", told());
            Ok(())
        })
        .unwrap();
}

/// RFC 6376 section 8.15: a second copy of a signed field, above or below, breaks the signature.
#[tokio::test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
async fn changed_mails_do_not_verify() {
    let (dns, mut python) = (Dns::example(), Python::start());
    let (_, mail) = hard().into_iter().find(|(what, _)| *what == "many headers").unwrap();
    let plain = String::from_utf8(Mime::new().render(&mail).unwrap()).unwrap();
    let names: Vec<_> = plain.split("\r\n\r\n").next().unwrap().lines().filter(|line| !line.starts_with(' ')).collect();
    for dkim in both() {
        let signed = String::from_utf8(Mime::new().with_dkim(dkim).render(&mail).unwrap()).unwrap();
        let mut changed = vec![signed.replacen("\r\n\r\na", "\r\n\r\nb", 1)];
        for field in &names {
            let name = field.split(':').next().unwrap();
            // Custom headers are not signed.
            if name.starts_with("X-") {
                continue;
            }
            changed.push(format!("{name}: <eve@example.com>\r\n{signed}"));
            changed.push(signed.replacen("\r\n\r\n", &format!("\r\n{name}: <eve@example.com>\r\n\r\n"), 1));
            changed.push(signed.replacen(&format!("\r\n{name}: "), &format!("\r\n{name}: x"), 1));
        }
        for mail in changed {
            assert_ne!(dns.verify(mail.as_bytes()).await, ["pass"], "mail-auth:\n{mail}");
            assert_ne!(python.verify(mail.as_bytes(), &dns.0), ["pass"], "dkimpy:\n{mail}");
        }
        // Other folds and trace headers do not break the signature.
        let carried = format!("Received: from a by b\r\n{}\r\n\r\n", signed.replacen(", ", ",\r\n\t", 1));
        assert_eq!(dns.verify(carried.as_bytes()).await, ["pass"]);
        assert_eq!(python.verify(carried.as_bytes(), &dns.0), ["pass"]);
    }
}

fn listed(signed: &[u8]) -> Vec<String> {
    let text = String::from_utf8(signed.to_vec()).unwrap().replace("\r\n ", "");
    let signature = text.lines().next().unwrap().strip_prefix("DKIM-Signature:").unwrap();
    let names = signature.split(';').find_map(|tag| tag.trim().strip_prefix("h=")).unwrap();
    names.split(':').map(str::to_owned).collect()
}

#[test]
fn only_present_fields_are_listed() {
    for (what, mail) in hard() {
        let signed = Mime::new().with_dkim(both()[1].clone()).render(&mail).unwrap();
        let text = String::from_utf8_lossy(&signed).to_ascii_lowercase();
        let names = listed(&signed);
        for name in ["from", "to", "subject", "date", "message-id", "mime-version", "content-type"] {
            assert!(names.iter().any(|own| own == name), "{what}: {name}");
        }
        for name in &names {
            let occurs = text.split("\r\n\r\n").next().unwrap().matches(&format!("\r\n{name}:")).count();
            assert!(occurs > 0, "{what}: {name} is not there");
            assert_eq!(names.iter().filter(|own| *own == name).count(), occurs + 1, "{what}: {name}");
        }
        // RFC 8058 section 4.
        let unsubscribes = text.contains("\r\nlist-unsubscribe:");
        for name in ["list-unsubscribe", "list-unsubscribe-post"] {
            assert_eq!(names.iter().any(|own| own == name), unsubscribes, "{what}");
        }
        let ses = Mime::new().with_dkim(both()[1].clone().without_date_and_message_id()).render(&mail).unwrap();
        assert!(listed(&ses).iter().all(|name| name != "date" && name != "message-id"), "{what}");
    }
}

#[test]
fn every_attempt_has_the_same_signature() {
    let (_, mail) = hard().swap_remove(3);
    for dkim in both() {
        let mime = Mime::new().with_dkim(dkim);
        assert_eq!(mime.render(&mail).unwrap(), mime.render(&mail.clone().with_attempt(9, 3)).unwrap());
    }
}

#[test]
fn unusable_keys_are_refused_and_never_shown() {
    let of = |key: &str| Dkim::new("example.com", "s", key).map(drop).unwrap_err().to_string();
    for (key, why) in [
        (include_str!("../keys/rsa-1024.pem"), "2048"),
        (include_str!("../keys/ec.pem"), "neither an RSA nor an Ed25519"),
        (include_str!("../keys/encrypted.pem"), "passphrase"),
        (include_str!("../keys/rsa.pub.pem"), "no private key"),
        (&RSA[..RSA.len() / 2], "cannot be read"),
        ("bm8ga2V5", "neither PEM nor"),
        ("", "neither PEM nor"),
    ] {
        assert!(of(key).contains(why), "{}", of(key));
    }
    assert!(Dkim::rsa("example.com", "s", ED25519).unwrap_err().to_string().contains("RSA key is required"));
    assert!(Dkim::ed25519("example.com", "s", RSA).unwrap_err().to_string().contains("Ed25519 key is required"));
    for (domain, selector) in
        [("", "s"), ("exa mple", "s"), ("a..b", "s"), ("a.b", ""), ("a.b", "s;d=c"), ("a.b", "s\r\n")]
    {
        assert!(Dkim::new(domain, selector, BRISBANE).is_err(), "{domain} {selector}");
    }
    let shown = format!("{:?}", Dkim::new("bücher.example", "a.b", BRISBANE).unwrap());
    assert!(shown.contains("xn--bcher-kva.example") && !shown.contains("nWGx"), "{shown}");
}
