//! The links of a mail's HTML as texts, so that a viewer can check them without opening one.

use std::collections::HashSet;

use html5gum::{Token, Tokenizer};

use super::deliveries::cut;

/// How many links are listed.
const SHOWN: usize = 100;

/// The longest address and the longest text in characters.
const LONGEST: usize = 1_000;

/// The links of a document.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Each link once, in the order of the HTML.
    pub(super) shown: Vec<Link>,
    /// How many more there are.
    pub(super) more: usize,
}

/// Where a link leads, and what a reader sees of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Link {
    pub(super) url: String,
    /// The text between the tags, with the alternative texts of images. It can be empty.
    pub(super) text: String,
}

/// Lists the links.
pub(super) fn list(html: &str) -> Links {
    let mut found = Found::default();
    // The link whose text is being read. HTML does not nest them: the next one ends it (HTML Standard section 13.2.6.4.7).
    let mut open: Option<Link> = None;
    for token in Tokenizer::new(html) {
        // Never an error: a text can always be read.
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                let attribute = |wanted: &[u8]| {
                    let found = tag.attributes.iter().find(|(name, _)| name.as_slice() == wanted);
                    found.map(|(_, value)| String::from_utf8_lossy(value.as_slice()).trim().to_owned())
                };
                match tag.name.as_slice() {
                    b"a" => {
                        found.push(open.take());
                        open = attribute(b"href").map(|url| Link { url, text: String::new() });
                    }
                    b"area" => {
                        let text = attribute(b"alt").unwrap_or_default();
                        found.push(attribute(b"href").map(|url| Link { url, text }));
                    }
                    b"img" => add(&mut open, &attribute(b"alt").unwrap_or_default()),
                    // An element between two words.
                    _ => add(&mut open, " "),
                }
            }
            Token::EndTag(tag) if tag.name.as_slice() == b"a" => found.push(open.take()),
            Token::String(text) => add(&mut open, &String::from_utf8_lossy(text.as_slice())),
            Token::EndTag(_) | Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    found.push(open);
    found.links
}

fn add(open: &mut Option<Link>, text: &str) {
    // White space is collapsed later, so more is kept than shown.
    if let Some(link) = open.as_mut().filter(|link| link.text.len() < 16 * LONGEST) {
        link.text.push_str(text);
    }
}

#[derive(Default)]
struct Found {
    links: Links,
    seen: HashSet<Link>,
}

impl Found {
    fn push(&mut self, link: Option<Link>) {
        let Some(link) = link.filter(|link| !link.url.is_empty()) else { return };
        let text = link.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let link = Link { url: cut(&link.url, LONGEST), text: cut(&text, LONGEST) };
        if self.links.shown.len() == SHOWN {
            self.links.more += usize::from(!self.seen.contains(&link));
        } else if self.seen.insert(link.clone()) {
            self.links.shown.push(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(html: &str) -> Vec<(String, String)> {
        list(html).shown.into_iter().map(|link| (link.url, link.text)).collect()
    }

    #[test]
    fn links_are_read_as_a_browser_reads_them() {
        let html = "<a href=https://a.example/?x=1&amp;y=2>1</a> <A title='>' HREF='https://b.example'>2</A>
            <!-- <a href=https://comment.example> --> <p title='<a href=https://title.example>'>
            <a href=\" https://b.example \">2</a> <a name=anchor> <area href='mailto:ada@example.com' alt=Write>
            <article href=https://c.example> <script>'<a href=https://script.example>'</script>";
        let links = shown(html);
        let expected =
            [("https://a.example/?x=1&y=2", "1"), ("https://b.example", "2"), ("mailto:ada@example.com", "Write")];
        assert_eq!(links[..3], expected.map(|(url, text)| (url.to_owned(), text.to_owned())));
        assert!(!links.iter().any(|(url, _)| ["comment", "title", "c.ex"].iter().any(|other| url.contains(other))));
    }

    #[test]
    fn a_link_has_the_text_that_a_reader_sees() {
        for (html, text) in [
            ("<a href=x>Your\n  <b>bank</b>&amp;<br>Co</a>", "Your bank& Co"),
            ("<a href=x><img src=y alt='The logo'></a>", "The logo"),
            ("<a href=x></a>after", ""),
            ("<a href=x>never closed", "never closed"),
            ("<a href=x>https://bank.example<!-- hidden --></a>", "https://bank.example"),
        ] {
            assert_eq!(shown(html), [("x".to_owned(), text.to_owned())], "{html}");
        }
        let two = shown("<a href=x>one<a href=y>two</a>three");
        assert_eq!(two, [("x", "one"), ("y", "two")].map(|(url, text)| (url.to_owned(), text.to_owned())));
    }

    #[test]
    fn the_list_is_bounded() {
        let long = "x".repeat(5_000);
        let html: String =
            (0..1_000).map(|number| format!("<a href=https://{number}.example/{long}>{number}{long}</a>")).collect();
        let links = list(&html);
        assert_eq!((links.shown.len(), links.more), (SHOWN, 900));
        assert!(links.shown.iter().all(|link| link.url.chars().count() <= 1_001 && link.text.chars().count() <= 1_001));
    }
}
