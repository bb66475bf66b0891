//! Hides who a mail is for, in whatever is shown to more than the operator.

use std::borrow::Cow;

/// Replaces the local part of everything in `text` that looks like a mail address: `ada@example.com` becomes
/// `a***@example.com`, `jo@example.com` `***@example.com`. Servers repeat addresses in their replies; this goes over a reply before it is logged.
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
        // The first letter helps to tell two apart, unless it is nearly all there is.
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

/// Where the local part that ends `before` begins.
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
    fn masks_every_address_and_nothing_else() {
        assert_eq!(mask_addresses("no address here"), "no address here");
        assert_eq!(mask_addresses("ada@a.example,bob@b.example"), "a***@a.example,b***@b.example");
        assert_eq!(mask_addresses("to:\"ada lovelace\"@a.example."), "to:a***@a.example.");
        assert_eq!(mask_addresses(r#"<"ada \"the\" countess"@a.example>"#), "<a***@a.example>");
        assert_eq!(mask_addresses("пошта@a.example"), "п***@a.example");
        assert_eq!(mask_addresses("x@a.example jo@a.example"), "***@a.example ***@a.example");
        assert_eq!(mask_addresses("@ 5 @@"), "@ 5 @@");
    }
}
