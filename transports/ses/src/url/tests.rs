use aws_sdk_sesv2::config::ProvideCredentials;

use super::{UrlErrorKind, parse};
use crate::{Ses, SesConfigError};

#[test]
fn every_form_is_read() {
    let plain = parse("ses://default").unwrap();
    assert!(plain.credentials.is_none() && plain.region.is_none() && plain.endpoint.is_none());
    assert!(parse(" ses://default/ ").is_ok());

    let full = parse(
        "ses://AKIDEXAMPLE:wJalr%2FK7%2BEXAMPLE@default?region=eu-west-1&configuration_set=my-set\
         &feedback_address=bounces%40example.com&endpoint=http%3A%2F%2F127.0.0.1%3A5000&session_token=a%2Fb%3D",
    )
    .unwrap();
    let credentials = full.credentials.unwrap();
    assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("AKIDEXAMPLE", "wJalr/K7+EXAMPLE"));
    assert_eq!(credentials.session_token(), Some("a/b="));
    assert_eq!(full.region.as_deref(), Some("eu-west-1"));
    assert_eq!(full.configuration_set.as_deref(), Some("my-set"));
    assert_eq!(full.feedback.unwrap().as_str(), "bounces@example.com");
    assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
}

#[test]
fn refused_urls_give_the_reason_and_repeat_nothing() {
    use UrlErrorKind::*;
    let credentials = || Other("must have both an access key and its secret, or neither");
    let host = || Other("must have the host default; another endpoint goes after the ? as endpoint=URL");
    let text = |option| InvalidValue { option, expected: "text without control characters".to_owned() };
    for (url, kind) in [
        ("smtp://a:hunter2@default", Scheme),
        ("ses://a:hunter2@", NoHost),
        ("ses://a:hunter2@email.example.com", host()),
        ("ses://a:hunter2@default:443", Other("has a port, which it does not take")),
        ("ses://a:hunter2@default/hunter2", Path),
        ("ses://hunter2@default", credentials()),
        ("ses://:hunter2@default", credentials()),
        ("ses://default?session_token=hunter2", credentials()),
        (
            "ses://default?hunter2=x",
            UnknownOption {
                known: vec!["region", "configuration_set", "feedback_address", "endpoint", "session_token"],
            },
        ),
        ("ses://default?region=a&region=hunter2", DuplicateOption { option: "region" }),
        ("ses://default?region=", text("region")),
        ("ses://default?configuration_set=hunter2%00", text("configuration_set")),
        (
            "ses://default?feedback_address=hunter2",
            InvalidValue { option: "feedback_address", expected: "a mail address".to_owned() },
        ),
    ] {
        let refused = parse(url).map(drop).unwrap_err();
        assert_eq!(*refused.kind(), kind, "{url}");
        let shown = format!("{refused} {refused:?} {}", SesConfigError::from(refused.clone()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn the_client_uses_the_url() {
    let url = "ses://AKIDEXAMPLE:hunter2@default?region=eu-west-1&configuration_set=my-set&session_token=hunter3";
    let builder = Ses::builder_from_url(url).await.unwrap();
    let ses = builder.clone().build().unwrap();
    assert_eq!(ses.configuration_set.as_deref(), Some("my-set"));
    assert_eq!(ses.client.config().region().unwrap().as_ref(), "eu-west-1");
    let shown = format!("{ses:?} {builder:?}");
    assert!(!shown.contains("hunter") && shown.contains("my-set"), "{shown}");

    let provider = parse(url).unwrap().sdk().await.credentials_provider().unwrap();
    let credentials = provider.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "AKIDEXAMPLE");
    assert_eq!((credentials.secret_access_key(), credentials.session_token()), ("hunter2", Some("hunter3")));
}

#[tokio::test]
async fn values_that_cannot_be_used_fail_the_build() {
    for (url, error) in [
        ("ses://a:b@default?region=x.example.com", SesConfigError::Region),
        ("ses://a:b@default?region=eu-west-1&configuration_set=a%20b", SesConfigError::ConfigurationSet),
        ("ses://a:b@default?region=eu-west-1&endpoint=ftp%3A%2F%2Fx", SesConfigError::Endpoint),
        ("ses://a:b@default?region=eu-west-1&endpoint=http%3A%2F%2Fa%3Ab%40x", SesConfigError::Endpoint),
    ] {
        assert_eq!(Ses::from_url(url).await.map(drop), Err(error), "{url}");
    }
}
