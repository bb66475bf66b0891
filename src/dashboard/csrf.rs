//! Refuses requests that another site makes in an operator's name.
//!
//! The rules are those of OWASP's cheat sheet on cross-site request forgery: Fetch Metadata first, Origin where a browser does not send it,
//! and a token in addition (a double-submit cookie). The cookie alone would not be enough, since a sibling domain can set it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

const COOKIE: &str = "postrider-csrf";

/// The hexadecimal digits of a token: 128 bits.
const LENGTH: usize = 32;

/// The value that a form and the cookie have in common.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn new() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// The token of the request's cookie.
    pub(super) fn of_cookie(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
        values.find(|value| is_token(value)).map(|value| Self(value.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is(&self, other: &str) -> bool {
        bool::from(self.0.as_bytes().ct_eq(other.as_bytes()))
    }

    /// The header that sets the cookie. `Lax`, so that a page that is opened from a chat or a mail keeps the token of the other tabs.
    pub(super) fn set_cookie(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", self.0)).ok()
    }
}

fn is_token(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the browser says that the request comes from a page of this host.
///
/// `Sec-Fetch-Site` is sent to trustworthy URLs alone: HTTPS and loopback (W3C Fetch Metadata, section 2.3). A request with neither header
/// is refused: each browser of the last years sends Origin with a `POST`.
pub(super) fn is_same_origin(parts: &Parts, trusted: &[String]) -> bool {
    if let Some(site) = parts.headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = parts.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else { return false };
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the host in the URI.
    let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    let is_own = matches!((of_origin, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b));
    is_own || trusted.iter().any(|trusted| trusted.trim_end_matches('/').eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_a_page_of_this_host_may_post() {
        let host = ("host", "ops.example.com:8080");
        let trusted = ["https://ops.example.com".to_owned()];
        for (headers, expected) in [
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (vec![host, ("origin", "http://ops.example.com:8080")], true),
            (vec![host, ("origin", "http://OPS.example.com:8080")], true),
            (vec![host, ("origin", "https://ops.example.com")], true),
            (vec![host, ("sec-fetch-site", "same-site"), ("origin", "http://ops.example.com:8080")], false),
            (vec![host, ("sec-fetch-site", "cross-site"), ("origin", "https://ops.example.com")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "http://ops.example.com")], false),
            (vec![host, ("origin", "http://ops.example.com:8080.evil.example")], false),
            (vec![host], false),
            (vec![("origin", "http://")], false),
        ] {
            assert_eq!(is_same_origin(&parts(&headers), &trusted), expected, "{headers:?}");
        }
    }

    #[test]
    fn only_a_whole_token_of_the_right_cookie_is_read() {
        let token = Token::new();
        let cookie = format!("a=b; postrider-csrf={}; c", token.as_str());
        assert!(Token::of_cookie(&parts(&[("cookie", &cookie)]).headers) == Some(token.clone()));
        assert!(
            token.is(token.as_str()) && !token.is("") && !token.is(&token.as_str().to_uppercase().replace('0', "1"))
        );
        for bad in ["", "postrider-csrf=", "postrider-csrf=x", "x-postrider-csrf=00000000000000000000000000000000"] {
            assert!(Token::of_cookie(&parts(&[("cookie", bad)]).headers).is_none(), "{bad}");
        }
    }
}
