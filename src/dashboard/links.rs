//! The addresses of a mail's links, so that a viewer can check them without opening one.

use std::collections::HashSet;

use html5gum::{Token, Tokenizer};

use super::deliveries::cut;

/// How many links are listed.
const SHOWN: usize = 100;

/// Lists each link once, in the order of the HTML.
pub(super) fn list(html: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut links = Vec::new();
    for token in Tokenizer::new(html) {
        // Never an error: a text can always be read.
        let Ok(Token::StartTag(tag)) = token else { continue };
        if !matches!(tag.name.as_slice(), b"a" | b"area") {
            continue;
        }
        let href = tag.attributes.iter().find(|(name, _)| name.as_slice() == b"href");
        let Some((_, href)) = href else { continue };
        let link = cut(String::from_utf8_lossy(href.as_slice()).trim(), 1_000);
        if !link.is_empty() && links.len() < SHOWN && seen.insert(link.clone()) {
            links.push(link);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_a_browser_reads_them() {
        let html = "<a href=https://a.example/?x=1&amp;y=2>1</a> <A title='>' HREF='https://b.example'>2</A>
            <!-- <a href=https://comment.example> --> <p title='<a href=https://title.example>'>
            <a href=\" https://b.example \">again</a> <a name=anchor> <area href='mailto:ada@example.com'>
            <script>'<a href=https://script.example>'</script> <article href=https://c.example>";
        let links = list(html);
        assert_eq!(links[..3], ["https://a.example/?x=1&y=2", "https://b.example", "mailto:ada@example.com"]);
        assert!(!links.iter().any(|link| link.contains("comment") || link.contains("title") || link.contains("c.ex")));
    }

    #[test]
    fn the_list_is_bounded() {
        let html: String =
            (0..1_000).map(|number| format!("<a href=https://{number}.example/{}>", "x".repeat(5_000))).collect();
        let links = list(&html);
        assert_eq!(links.len(), SHOWN);
        assert!(links.iter().all(|link| link.chars().count() <= 1_001));
    }
}
