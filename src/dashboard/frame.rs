//! The HTML of a mail, as a document for a sandboxed frame.
//!
//! Three things keep it harmless. The frame has an empty `sandbox` attribute, and the document's own policy has the directive `sandbox`: no
//! scripts, no forms, no origin, no navigation of the page around it. The policy allows inline styles and `data:` images, and nothing from
//! the network. And the elements that make browsers connect in spite of a policy are disabled here.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use postrider_transport::Attachment;

/// The content security policy of the document.
pub(super) const POLICY: &str = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The largest image that is shown inline, in bytes.
const MAX_IMAGE: usize = 2 * 1024 * 1024;

/// The largest document in bytes: a hostile mail could name one image a thousand times.
const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The beginnings of the names of elements that make a browser connect in spite of a policy: `link` by preconnect and DNS prefetch, `meta` by
/// a refresh and by allowing the prefetch again. For elements that load a document, Chromium connects before it asks the policy.
const DISABLED: [&str; 9] = ["link", "meta", "base", "iframe", "frame", "object", "embed", "portal", "fencedframe"];

/// Elements that connect when they are pressed: Chromium connects before the frame's navigation is refused.
const LINKS: [&str; 2] = ["a", "area"];

/// Makes a disabled link look like a link.
const STYLE: &str = "<style>x-a{color:#0b57b0;text-decoration:underline}</style>";

/// Prepares the HTML of a mail: shows its inline images, and disables what connects.
pub(super) fn document(html: &str, attachments: &[Attachment]) -> String {
    let html = disable(html);
    // At the end: before a doctype, it would change how the document is laid out.
    show_images(&html, attachments) + STYLE
}

/// Renames the disabled elements, so that they have no meaning. Where the text is not a tag, only the text changes.
fn disable(html: &str) -> String {
    let mut out = String::with_capacity(html.len() + 64);
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at + 1);
        out.push_str(before);
        let is_link = |text: &str| LINKS.into_iter().any(|name| is_tag(text, name));
        rest = match tag.strip_prefix('/') {
            // Otherwise all that follows a link would look like one.
            Some(name) if is_link(name) => {
                out.push('/');
                name
            }
            _ => tag,
        };
        let starts_with = |name: &str| rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if DISABLED.into_iter().any(starts_with) || is_link(rest) {
            out.push_str("x-");
        }
    }
    out.push_str(rest);
    out
}

/// Whether a text begins with the name of a tag, and not with a longer one: what ends a name is in the HTML Standard, section 13.2.5.8.
fn is_tag(text: &str, name: &str) -> bool {
    let is_name = text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let next = text.get(name.len()..).and_then(|rest| rest.chars().next());
    is_name && next.is_none_or(|c| c.is_ascii_whitespace() || matches!(c, '/' | '>'))
}

/// Replaces the `cid:` URL of each inline image (RFC 2392) by its content.
fn show_images(html: &str, attachments: &[Attachment]) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = find_cid(rest) {
        let (before, url) = rest.split_at(at);
        out.push_str(before);
        let (scheme, url) = url.split_at("cid:".len());
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | '<' | '&' | ';' | ',');
        let (id, after) = url.split_at(url.find(is_end).unwrap_or(url.len()));
        let image = image(id, attachments).filter(|image| out.len() + image.content().len() * 4 / 3 < MAX_DOCUMENT);
        match image {
            Some(image) => {
                out.push_str("data:");
                out.push_str(&media_type(image));
                out.push_str(";base64,");
                STANDARD.encode_string(image.content(), &mut out);
            }
            None => {
                out.push_str(scheme);
                out.push_str(id);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn find_cid(html: &str) -> Option<usize> {
    html.as_bytes().windows(4).position(|window| window.eq_ignore_ascii_case(b"cid:"))
}

fn image<'a>(id: &str, attachments: &'a [Attachment]) -> Option<&'a Attachment> {
    let id: Cow<'_, str> = percent_decode_str(id).decode_utf8().ok()?;
    let found = attachments.iter().find(|attachment| attachment.content_id() == Some(id.as_ref()))?;
    let is_image = found.content_type().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("image/"));
    (is_image && found.content().len() <= MAX_IMAGE).then_some(found)
}

/// The media type without parameters, and without what could end the URL.
fn media_type(image: &Attachment) -> String {
    let essence = image.content_type().split(';').next().unwrap_or_default();
    essence.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '-' | '.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_that_connect_are_renamed_in_any_case() {
        for (html, expected) in [
            ("<link rel=preconnect href=//x>", "<x-link rel=preconnect href=//x>"),
            ("<LiNk>", "<x-LiNk>"),
            ("<<link>", "<<x-link>"),
            ("<meta http-equiv=refresh>", "<x-meta http-equiv=refresh>"),
            ("<base href=//x>", "<x-base href=//x>"),
            ("<iframe src=//x></iframe><FRAMESET>", "<x-iframe src=//x></iframe><x-FRAMESET>"),
            ("<object data=//x><embed src=//x>", "<x-object data=//x><x-embed src=//x>"),
            ("<p>a < b</p>é<", "<p>a < b</p>é<"),
            ("<a href=//x><A\nhref=//x><a/href=//x>", "<x-a href=//x><x-A\nhref=//x><x-a/href=//x>"),
            ("<article><address><abbr>", "<article><address><abbr>"),
            ("<area href=//x>", "<x-area href=//x>"),
            ("<a href=//x>1</a> 2 </A ></abbr></article><", "<x-a href=//x>1</x-a> 2 </x-A ></abbr></article><"),
        ] {
            assert_eq!(disable(html), expected);
        }
    }

    #[test]
    fn inline_images_are_shown_and_other_urls_are_left() {
        let logo = |id: &str| Attachment::inline(id, "logo.png", "image/png; name=x", *b"png").unwrap();
        let page = Attachment::inline("page", "page.html", "text/html", *b"<script>").unwrap();
        let all = [logo("logo"), logo("logo2"), logo("a%b"), page];
        let data = "data:image/png;base64,cG5n";
        for (html, expected) in [
            ("<img src=\"cid:logo\"> <img src='CID:logo2'>", format!("<img src=\"{data}\"> <img src='{data}'>")),
            ("<img src=cid:a%25b>", format!("<img src={data}>")),
            ("url(cid:logo)", format!("url({data})")),
            ("cid:", "cid:".to_owned()),
            ("<b id=\"cid:page\">é cid:nobody", "<b id=\"cid:page\">é cid:nobody".to_owned()),
        ] {
            assert_eq!(document(html, &all), expected + STYLE);
        }
    }

    #[test]
    fn a_mail_cannot_make_its_document_huge() {
        let image = Attachment::inline("i", "i.png", "image/png", vec![0; MAX_IMAGE]).unwrap();
        let html = "<img src=cid:i>".repeat(100);
        assert!(document(&html, &[image]).len() < MAX_DOCUMENT + html.len());
    }
}
