//! Masks mail addresses in logs and errors.

use std::borrow::Cow;

/// Masks the local part of each mail address in `text`: `ada@example.com` becomes `a***@example.com`.
///
/// A local part of one or two characters is masked entirely. Servers repeat addresses in their replies, so mask a reply before you log it.
///
/// ```
/// use postrider_transport::mask_addresses;
///
/// assert_eq!(mask_addresses("550 <ada@example.com>: unknown"), "550 <a***@example.com>: unknown");
/// ```
pub fn mask_addresses(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, after) = (&rest[..at], &rest[at..]);
        let start = local_part_start(before);
        let local = &before[start..];
        out.push_str(&before[..start]);
        // The first letter helps to tell addresses apart. Of a short local part it would show too much.
        let mut letters = local.chars().filter(|c| *c != '"');
        if let Some(first) = letters.next() {
            if letters.nth(1).is_some() {
                out.push(first);
            }
            out.push_str("***");
        }
        out.push('@');
        rest = &after[1..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The start of the local part at the end of `before`.
fn local_part_start(before: &str) -> usize {
    if let Some(inner) = before.strip_suffix('"') {
        // A quote inside a quoted local part has a backslash before it (RFC 5322 section 3.2.4).
        let opening = |(index, _): &(usize, &str)| !inner[..*index].ends_with('\\');
        return inner.rmatch_indices('"').find(opening).map_or(0, |(index, _)| index);
    }
    before
        .char_indices()
        .rev()
        .take_while(|(_, c)| {
            !c.is_whitespace() && !matches!(c, '<' | '>' | '(' | ')' | ',' | ';' | ':' | '"' | '@' | '[' | ']')
        })
        .last()
        .map_or(before.len(), |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::mask_addresses;

    #[test]
    fn every_address_is_masked() {
        assert_eq!(mask_addresses("no address here"), "no address here");
        assert_eq!(mask_addresses("ada@a.example,bob@b.example"), "a***@a.example,b***@b.example");
        assert_eq!(mask_addresses("to:\"ada lovelace\"@a.example."), "to:a***@a.example.");
        assert_eq!(mask_addresses(r#"<"ada \"the\" countess"@a.example>"#), "<a***@a.example>");
        assert_eq!(mask_addresses("пошта@a.example"), "п***@a.example");
        assert_eq!(mask_addresses("x@a.example jo@a.example"), "***@a.example ***@a.example");
        assert_eq!(mask_addresses("@ 5 @@"), "@ 5 @@");
    }
}
