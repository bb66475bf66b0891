use std::error::Error;

use postrider_transport::UrlErrorKind;

use crate::{Smtp, SmtpConfigError};

fn read(url: &str) -> Result<String, SmtpConfigError> {
    Smtp::from_url(url).map(|smtp| smtp.redacted_url())
}

#[test]
fn every_form_is_read() {
    for (url, meant) in [
        ("smtp://mx.example.com", "smtp://mx.example.com:25?tls=required"),
        ("smtp://mx.example.com/", "smtp://mx.example.com:25?tls=required"),
        ("smtp://ada:pw@mx.example.com", "smtp://ada:***@mx.example.com:587?tls=required"),
        ("smtp://ada:pw@mx.example.com:2525", "smtp://ada:***@mx.example.com:2525?tls=required"),
        ("smtps://ada:pw@mx.example.com", "smtps://ada:***@mx.example.com:465"),
        ("smtps://mx.example.com:4465?pool=3", "smtps://mx.example.com:4465"),
        ("smtp://mx.example.com?tls=opportunistic", "smtp://mx.example.com:25?tls=opportunistic"),
        ("smtp://mx.example.com?tls=none", "smtp://mx.example.com:25?tls=none"),
        ("smtp://localhost:1025", "smtp://localhost:1025?tls=opportunistic"),
        ("smtp://mail.localhost", "smtp://mail.localhost:25?tls=opportunistic"),
        ("smtp://127.0.0.9", "smtp://127.0.0.9:25?tls=opportunistic"),
        ("smtp://[::1]:1025", "smtp://[::1]:1025?tls=opportunistic"),
        ("smtp://[2001:db8::1]", "smtp://[2001:db8::1]:25?tls=required"),
        ("smtp://localhost?tls=required", "smtp://localhost:25?tls=required"),
        ("smtp://b%C3%BCcher.example", "smtp://xn--bcher-kva.example:25?tls=required"),
        (
            "smtp://ada%40example.com:p%40ss%2F@mx.example.com",
            "smtp://a***%40example.com:***@mx.example.com:587?tls=required",
        ),
        (
            "smtp://a:b@mx.example.com?auth=login&helo=out.example.com&pool=4&tls=none",
            "smtp://a:***@mx.example.com:587?tls=none",
        ),
    ] {
        assert_eq!(read(url).as_deref(), Ok(meant), "{url}");
    }
}

#[test]
fn credentials_are_decoded() {
    let smtp = Smtp::from_url("smtp://a%40b:p%40s%3As%2Fw%25@localhost").unwrap();
    let credentials = smtp.pool_config().credentials.as_ref().unwrap();
    assert_eq!((credentials.username.as_str(), credentials.secret.as_str()), ("a@b", "p@s:s/w%"));
}

#[test]
fn refused_urls_give_the_reason_and_repeat_nothing() {
    use UrlErrorKind::*;
    let value = |option, expected: &str| InvalidValue { option, expected: expected.to_owned() };
    let unknown = || UnknownOption { known: vec!["tls", "pool", "helo", "ca", "auth"] };
    for (url, kind) in [
        ("http://ada:hunter2@mx.example.com", Scheme),
        ("smtp://ada:hunter2@", NoHost),
        ("smtp://ada:hunter2@mx.example.com/inbox", Path),
        ("smtp://a%20b.example", Host),
        ("smtp://:hunter2@mx.example.com", Other("has a password without a user name")),
        ("smtp://ada:12?hunter2@mx.example.com", unknown()),
        ("smtp://mx.example.com?hunter2=1", unknown()),
        ("smtp://mx.example.com?TLS=none", unknown()),
        ("smtp://mx.example.com?tls=hunter2", value("tls", "required, opportunistic or none")),
        ("smtp://mx.example.com?pool=hunter2", value("pool", "a number")),
        ("smtp://mx.example.com?auth=hunter2", value("auth", "plain, login or xoauth2")),
        ("smtp://mx.example.com?tls=none&tls=required", DuplicateOption { option: "tls" }),
        ("smtps://mx.example.com?tls=none", Other("has the option tls, which smtps:// does not take")),
    ] {
        let found = read(url).unwrap_err();
        let SmtpConfigError::Url(error) = &found else { panic!("{url}: {found:?}") };
        assert_eq!(*error.kind(), kind, "{url}");
        let shown = format!("{found} {found:?} {:?}", found.source());
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }
    for (url, error) in [
        ("smtp://mx.example.com?pool=0", SmtpConfigError::Zero { what: "the number of connections" }),
        ("smtp://mx.example.com?helo=a%20b", SmtpConfigError::HelloName),
        ("smtp://mx.example.com?helo=a%0D%0AQUIT", SmtpConfigError::HelloName),
        ("smtp://mx.example.com?auth=plain", SmtpConfigError::NoCredentials),
        (
            "smtp://mx.example.com?ca=/no/such/file.pem",
            SmtpConfigError::RootCertificateFile(std::io::ErrorKind::NotFound),
        ),
    ] {
        assert_eq!(read(url).unwrap_err(), error, "{url}");
    }
}

#[test]
fn the_password_is_never_shown() {
    let builder = Smtp::builder_from_url("smtp://ada:hunter2@localhost").unwrap();
    let builder_shown = format!("{builder:?}");
    let smtp = builder.build().unwrap();
    let shown = format!("{builder_shown} {smtp:?} {} {:?}", smtp.redacted_url(), smtp.pool_config());
    assert!(!shown.contains("hunter2"), "{shown}");
}
