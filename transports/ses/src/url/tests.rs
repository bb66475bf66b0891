//! The table of URLs.

use aws_sdk_sesv2::config::ProvideCredentials;

use super::{UrlError, parse};
use crate::{Ses, SesConfigError};

#[test]
fn forms_that_are_read() {
    let plain = parse("ses://default").unwrap();
    assert!(plain.access_key.is_empty() && plain.region.is_none() && plain.endpoint.is_none());
    assert!(parse(" ses://default/ ").is_ok());

    let full = parse(
        "ses://AKIDEXAMPLE:wJalr%2FK7%2BEXAMPLE@default?region=eu-west-1&configuration_set=my-set\
         &feedback_address=bounces%40example.com&endpoint=http%3A%2F%2F127.0.0.1%3A5000&session_token=a%2Fb%3D",
    )
    .unwrap();
    assert_eq!((full.access_key.as_str(), full.secret.as_str()), ("AKIDEXAMPLE", "wJalr/K7+EXAMPLE"));
    assert_eq!(full.session_token.as_deref(), Some("a/b="));
    assert_eq!(full.region.as_deref(), Some("eu-west-1"));
    assert_eq!(full.configuration_set.as_deref(), Some("my-set"));
    assert_eq!(full.feedback.unwrap().as_str(), "bounces@example.com");
    assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
}

#[test]
fn forms_that_are_refused_say_why_and_repeat_nothing() {
    use UrlError::*;
    for (url, error) in [
        ("hunter2", Malformed),
        ("ses://a:hunter2@[default", Malformed),
        ("smtp://a:hunter2@default", Scheme),
        ("ses://a:hunter2@", Host),
        ("ses://a:hunter2@email.example.com", Host),
        ("ses://a:hunter2@default:443", Path),
        ("ses://a:hunter2/rest@default", Path),
        ("ses://a:hunter2@default/hunter2", Path),
        ("ses://a:hunter2@default#hunter2", Path),
        ("ses://a:hunter2%FF@default", Credentials),
        ("ses://a:hunter2%0A@default", Credentials),
        ("ses://hunter2@default", HalfCredentials),
        ("ses://:hunter2@default", HalfCredentials),
        ("ses://default?session_token=hunter2", HalfCredentials),
        ("ses://default?hunter2=x", UnknownKey),
        ("ses://default?region=a&region=hunter2", Twice { key: "region" }),
        ("ses://default?region=", Value { key: "region" }),
        ("ses://default?configuration_set=hunter2%00", Value { key: "configuration_set" }),
        ("ses://default?feedback_address=hunter2", Value { key: "feedback_address" }),
    ] {
        let refused = parse(url).map(drop).unwrap_err();
        assert_eq!(refused, error, "{url}");
        let shown = format!("{refused} {refused:?} {}", SesConfigError::from(refused.clone()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn what_is_read_reaches_the_client() {
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
async fn values_that_cannot_be_used_are_refused_when_it_is_built() {
    for (url, error) in [
        ("ses://a:b@default?region=x.example.com", SesConfigError::Region),
        ("ses://a:b@default?region=eu-west-1&configuration_set=a%20b", SesConfigError::ConfigurationSet),
        ("ses://a:b@default?region=eu-west-1&endpoint=ftp%3A%2F%2Fx", SesConfigError::Endpoint),
        ("ses://a:b@default?region=eu-west-1&endpoint=http%3A%2F%2Fa%3Ab%40x", SesConfigError::Endpoint),
    ] {
        assert_eq!(Ses::from_url(url).await.map(drop), Err(error), "{url}");
    }
}
