//! Media types (RFC 2045 section 5.1).

/// A parsed media type.
#[cfg_attr(not(feature = "mime"), allow(dead_code, reason = "without this feature, media types are only checked"))]
pub(crate) struct MediaType<'a> {
    /// `type/subtype`.
    pub(crate) essence: &'a str,
    pub(crate) parameters: Vec<(&'a str, String)>,
}

#[cfg_attr(not(feature = "mime"), allow(dead_code, reason = "as above"))]
impl<'a> MediaType<'a> {
    /// Parses a media type. `None` if it is malformed.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let essence = essence.trim();
        let (kind, subtype) = essence.split_once('/')?;
        let mut parameters = Vec::new();
        rest = rest.trim_start();
        while !rest.is_empty() {
            let (name, value) = rest.split_once('=')?;
            let name = name.trim();
            let (value, more) = match value.trim_start().strip_prefix('"') {
                Some(quoted) => quoted_string(quoted)?,
                None => {
                    let value = value.trim_start();
                    let end = value.find([';', ' ']).unwrap_or(value.len());
                    if !is_token(&value[..end]) {
                        return None;
                    }
                    (value[..end].to_owned(), &value[end..])
                }
            };
            if !is_token(name) {
                return None;
            }
            parameters.push((name, value));
            rest = match more.trim_start() {
                "" => "",
                more => more.strip_prefix(';')?.trim_start(),
            };
        }
        (is_token(kind) && is_token(subtype)).then_some(Self { essence, parameters })
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.essence.split('/').next().is_some_and(|own| own.eq_ignore_ascii_case(kind))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }
}

/// Parses a quoted string after its first quote. Returns its value and the text after the last quote.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// Whether the text is a token (RFC 2045 section 5.1).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_parsed_or_refused() {
        for (text, parameters) in [
            ("text/plain", &[][..]),
            ("text/csv; charset=utf-8", &[("charset", "utf-8")]),
            ("text/csv;charset=\"utf-8\" ;", &[("charset", "utf-8")]),
            ("text/csv ; header=present; x=\"a \\\"b\\\"\"", &[("header", "present"), ("x", "a \"b\"")]),
        ] {
            let media_type = MediaType::parse(text).unwrap();
            assert!(media_type.is("TEXT") && !media_type.has("boundary"));
            let read: Vec<_> = media_type.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(read, parameters, "{text}");
        }
        for bad in [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain; =",
            "text/plain; a",
            "text/plain; a=",
            "text/plain; a=\"",
            "text/plain; a=\"b\"c",
            "text/plain;; a=b",
            "te xt/plain",
            "text/plain; a b=c",
            "text/plain; a=b c=d",
        ] {
            assert!(MediaType::parse(bad).is_none(), "{bad}");
        }
    }
}
