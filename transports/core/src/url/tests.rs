use super::{TransportUrl, UrlError, UrlErrorKind};

fn parse(text: &str) -> Result<TransportUrl, UrlError> {
    TransportUrl::parse(text, &["test", "tests"])
}

#[test]
fn every_part_is_decoded() {
    let mut url = parse(" tests://a%40b:p%40s%3As%2Fw%25@b%C3%BCcher.example:2525/?name=a%2Fb%3D+c ").unwrap();
    assert_eq!((url.scheme(), url.username(), url.password()), ("tests", Some("a@b"), Some("p@s:s/w%")));
    assert_eq!((url.host(), url.port()), ("xn--bcher-kva.example", Some(2525)));
    assert_eq!((url.option("name").as_deref(), url.option("name")), (Some("a/b= c"), None));
    assert_eq!(url.finish(), Ok(()));
}

#[test]
fn missing_parts_are_none() {
    let mut url = parse("test://host").unwrap();
    assert_eq!((url.username(), url.password(), url.port()), (None, None, None));
    assert_eq!(url.option("name"), None);
    assert_eq!(parse("test://:@host").unwrap().username(), None);
}

#[test]
fn a_password_keeps_special_characters() {
    for password in [
        "p w", "p^w", "p|w", "{p}", "<p>", "p`w", "p\\w", "p\"w", "p+w", "p&w=1", "p;w,x", "p$w!*'()", "100%", "%zz",
        "pä", "p:w", "p@w",
    ] {
        let url = parse(&format!("test://ada:{password}@host")).unwrap();
        assert_eq!((url.username(), url.password(), url.host()), (Some("ada"), Some(password), "host"), "{password}");
    }
}

#[test]
fn hosts_are_domains_or_addresses() {
    for (text, host) in [
        ("test://DEFAULT", "default"),
        ("test://127.0.0.1", "127.0.0.1"),
        ("test://[::1]:25", "[::1]"),
        ("test://a_b.example", "a_b.example"),
    ] {
        assert_eq!(parse(text).unwrap().host(), host, "{text}");
    }
}

#[test]
fn errors_give_the_reason_and_repeat_nothing() {
    use UrlErrorKind::*;
    for (text, kind) in [
        ("hunter2", Malformed),
        ("test://ada:hunter2@[host", Malformed),
        ("other://ada:hunter2@host", Scheme),
        ("test://ada:hunter2@", NoHost),
        ("test://:25", NoHost),
        ("test:///hunter2", NoHost),
        ("test:hunter2", NoHost),
        ("test://hunter2%20b.example", Host),
        ("test://hunter2%2Fb.example", Host),
        ("test://K@hunter2,", Host),
        ("test://K@hunter2,test://K@host", Path),
        ("test://ada:hunter2@host:99999", Port),
        ("test://ada:hunter2@host:0", Port),
        ("test://ada:hunter2/x@host", Port),
        ("test://ada:hunter2?x@host", Port),
        ("test://ada:hunter2#x@host", Port),
        ("test://ada:12#hunter2@host", Path),
        ("test://ada:12/hunter2@host", Path),
        ("test://ada:hunter2@host/inbox", Path),
        ("test://ada:hunter2@host#inbox", Path),
        ("test://ada:hunter2%FF@host", Credentials),
        ("test://ada:hunter2%0D%0A@host", Credentials),
        ("test://ada%00:hunter2@host", Credentials),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(*error.kind(), kind, "{text}");
        assert_secret_free(&error);
    }
}

#[test]
fn options_that_are_not_taken_exactly_once_are_refused() {
    use UrlErrorKind::*;
    let read = |text| -> Result<_, UrlError> {
        let mut url = parse(text)?;
        let pool: Option<u32> = url.parsed("pool", "a number")?;
        let tls = url.choice("tls", &[("required", 2), ("optional", 1), ("none", 0)])?;
        url.finish()?;
        Ok((pool, tls))
    };
    assert_eq!(read("test://host"), Ok((None, None)));
    assert_eq!(read("test://host?tls=none&pool=3"), Ok((Some(3), Some(0))));
    let value = |option, expected: &str| InvalidValue { option, expected: expected.to_owned() };
    let unknown = || UnknownOption { known: vec!["pool", "tls"] };
    for (text, kind) in [
        ("test://host?hunter2=1", unknown()),
        ("test://host?TLS=none", unknown()),
        ("test://ada:12?hunter2@host", unknown()),
        ("test://host?hunter2=1&hunter2=2", unknown()),
        ("test://host?tls=none&tls=hunter2", DuplicateOption { option: "tls" }),
        ("test://host?tls=hunter2", value("tls", "required, optional or none")),
        ("test://host?pool=hunter2", value("pool", "a number")),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(*error.kind(), kind, "{text}");
        assert_secret_free(&error);
    }
}

#[test]
fn errors_read_as_sentences() {
    for (text, shown) in [
        ("other://host", "the test URL must begin with test:// or tests://"),
        ("test://", "the test URL has no host"),
        ("test://host?a=1", "the test URL has an option after the ?, and this transport has none"),
    ] {
        assert_eq!(parse(text).and_then(TransportUrl::finish).unwrap_err().to_string(), shown);
    }
    let url = parse("test://host").unwrap();
    assert_eq!(url.error(UrlErrorKind::Other("has no cheese")).to_string(), "the test URL has no cheese");
}

#[test]
fn debug_shows_the_scheme_alone() {
    let url = parse("test://hunter2:hunter2@hunter2.example?a=hunter2").unwrap();
    assert_eq!(format!("{url:?}"), r#"TransportUrl { scheme: "test", .. }"#);
}

fn assert_secret_free(error: &UrlError) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
}
