//! Removes credentials and addresses from texts for standard error.

use postrider_transport::mask_addresses;

/// Removes the credentials of a URL, and masks addresses in the text before it. A password can contain any character, so everything between
/// the first `://` and the last `@` is removed.
pub(crate) fn redact(text: &str) -> String {
    match text.split_once("://") {
        None => mask_addresses(text).into_owned(),
        Some((before, after)) => {
            let after = after.rsplit_once('@').map_or(after.to_owned(), |(_, host)| format!("***@{host}"));
            format!("{}://{after}", mask_addresses(before))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_addresses_are_redacted() {
        for (text, redacted) in [
            ("smtp://ada:sec/r@et@host:25 is odd", "smtp://***@host:25 is odd"),
            ("unexpected 'smtps://a:b c@d@host'", "unexpected 'smtps://***@host'"),
            ("to ada@example.com: no", "to a***@example.com: no"),
            ("ada@example.com by smtp://host", "a***@example.com by smtp://host"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redact(text), redacted);
        }
    }
}
