//! The words of a reply, and the phrases that are looked for in them.
//!
//! What differs from mail to mail is taken out first, so that a word in somebody's address or in a link is never read as the
//! server's: addresses, links, host names and IP addresses each leave a mark in their place.

use std::net::IpAddr;

/// In the place of a mail address.
const ADDRESS: &str = "#address";
/// In the place of a link.
const LINK: &str = "#link";
/// In the place of a host's or a domain's name.
const HOST: &str = "#host";
/// In the place of an IP address or a network.
const IP: &str = "#ip";

/// Words beyond this say nothing new, and a server could make them cost time.
const MAX_WORDS: usize = 400;

/// How many words a gap in a phrase may span.
const MAX_GAP: usize = 10;

/// Operators of lists of addresses and domains that servers ask before they take mail. Their names are kept where they stand in
/// a host's name, since they are often the only word there is.
const LISTS: &[&str] = &[
    "abuseat",
    "barracudacentral",
    "cbl",
    "dnsbl",
    "dnswl",
    "hostkarma",
    "invaluement",
    "mailspike",
    "proofpoint",
    "psbl",
    "rbl",
    "sorbs",
    "spamcop",
    "spameatingmonkey",
    "spamhaus",
    "spamrats",
    "surbl",
    "surriel",
    "uceprotect",
    "uribl",
    "xbl",
    "sbl",
    "pbl",
    "dbl",
    "zen",
];

/// The words of a text, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(crate) fn new<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut words = Vec::new();
        for line in lines {
            for chunk in line.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | ';' | '|' | '<' | '>')) {
                if words.len() >= MAX_WORDS {
                    return Self(words);
                }
                read(chunk, &mut words);
            }
        }
        Self(words)
    }

    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// Adds the words of one chunk of text, in which there is no white space.
fn read(chunk: &str, words: &mut Vec<String>) {
    let chunk = chunk.trim_matches(|c: char| matches!(c, '(' | ')' | '{' | '}' | '\'' | '.' | '!' | '?' | '*' | '`'));
    let chunk = chunk.trim_end_matches([':', '-', '=']);
    if chunk.is_empty() {
        return;
    }
    let lower = chunk.to_lowercase();
    if lower.contains("://") || lower.starts_with("www.") {
        words.push(LINK.to_owned());
        let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        lists_in(rest.split(['/', '?', '#']).next().unwrap_or_default(), words);
        return;
    }
    if lower.contains('@') {
        words.push(ADDRESS.to_owned());
        return;
    }
    // `:` and `=` often join a word and a value: `ip=192.0.2.1`, `Failure:Access`.
    if let Some(ip) = ip(&lower) {
        words.push(ip.to_owned());
        return;
    }
    for piece in lower.split(['=', ':', '/', '(', ')', '[', ']', '{', '}', '!', '?', '*', '#', '+', '\\', '~']) {
        let piece = piece.trim_matches(|c: char| !c.is_alphanumeric());
        if ip(piece).is_some() {
            words.push(IP.to_owned());
        } else if is_host(piece) {
            words.push(HOST.to_owned());
            lists_in(piece, words);
        } else {
            let parts = piece.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
            words.extend(parts.map(|part| part.replace(['\'', '’'], "")).filter(|part| !part.is_empty()));
        }
    }
}

fn lists_in(host: &str, words: &mut Vec<String>) {
    let labels = host.split(['.', ':', '-']).filter(|label| LISTS.contains(label));
    words.extend(labels.map(str::to_owned));
}

/// An address, a network, or an address with a port.
fn ip(text: &str) -> Option<&'static str> {
    let bare = text.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let bare = bare.strip_prefix("ipv6:").unwrap_or(bare);
    let bare = bare.split(['/', ']', '%']).next().unwrap_or_default();
    let with_port = || bare.rsplit_once(':').and_then(|(address, _)| address.parse::<std::net::Ipv4Addr>().ok());
    (bare.parse::<IpAddr>().is_ok() || with_port().is_some()).then_some(IP)
}

/// A name with a dot between labels, of which the last is a word. Abbreviations (`e.g`) and versions (`v1.2`) are none.
fn is_host(text: &str) -> bool {
    let Some((rest, last)) = text.rsplit_once('.') else { return false };
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    last.len() >= 2 && last.chars().all(char::is_alphabetic) && rest.split('.').all(label) && rest.len() >= 2
}

/// Words that are looked for one after the other.
///
/// A word may end in `*`, which stands for any ending, and may be several, parted by `|`; `…` stands for up to ten words. The
/// marks `#address`, `#link`, `#host` and `#ip` stand for what was taken out, and are passed over unless they are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phrase {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Whether other words may come before it.
    gap: bool,
    /// Any of these; an ending that is open has `true`.
    any: Vec<(String, bool)>,
}

impl Part {
    fn is(&self, word: &str) -> bool {
        self.any.iter().any(|(text, open)| if *open { word.starts_with(text.as_str()) } else { word == text })
    }
}

impl Phrase {
    pub(crate) fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut gap = false;
        for word in text.to_lowercase().replace("...", " … ").split_whitespace() {
            if word == "…" {
                gap = true;
                continue;
            }
            let any = word.split('|').map(|word| {
                let (word, open) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
                (word.replace(['\'', '’'], ""), open)
            });
            parts.push(Part { gap, any: any.collect() });
            gap = false;
        }
        Self { text: text.to_owned(), parts }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the words have it.
    pub(crate) fn is_in(&self, words: &Words) -> bool {
        let words = words.as_slice();
        !self.parts.is_empty() && (0..words.len()).any(|start| follows(&self.parts, &words[start..], true))
    }
}

fn follows(parts: &[Part], words: &[String], first: bool) -> bool {
    let Some((part, rest)) = parts.split_first() else { return true };
    let gap = if part.gap && !first { MAX_GAP } else { 0 };
    let mut skipped = 0;
    for (index, word) in words.iter().enumerate() {
        if part.is(word) && follows(rest, &words[index + 1..], false) {
            return true;
        }
        // What was taken out stands between words without parting them, but nothing begins with it.
        if first || (!word.starts_with('#') && skipped == gap) {
            return false;
        }
        skipped += usize::from(!word.starts_with('#'));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        Words::new(text.lines()).0.join(" ")
    }

    #[test]
    fn what_differs_from_mail_to_mail_is_taken_out() {
        for (text, left) in [
            ("<spam@full.example>: Recipient address rejected", "#address recipient address rejected"),
            ("see http://www.example.com/spam/blocked?ip=1", "see #link"),
            (
                "blocked using zen.spamhaus.org; https://www.spamhaus.org/q/192.0.2.1",
                "blocked using #host zen spamhaus #link spamhaus",
            ),
            ("mail.example.com[192.0.2.1]:25 said", "#host #ip 25 said"),
            ("Client host [192.0.2.1] blocked", "client host #ip blocked"),
            ("[2001:db8::1] has exceeded within 2001:db8::/32 range", "#ip has exceeded within #ip range"),
            ("You've reached it, doesn't it?", "youve reached it doesnt it"),
            ("(RTR:RD)", "rtr rd"),
            ("MI:SFQ,127.0.0.1", "mi sfq #ip"),
            ("Failure:Access_denied=yes", "failure access denied yes"),
            ("Boîte pleine (quota)", "boîte pleine quota"),
        ] {
            assert_eq!(words(text), left, "{text}");
        }
    }

    #[test]
    fn phrases_are_found_where_they_stand() {
        let is = |phrase: &str, text: &str| Phrase::new(phrase).is_in(&Words::new(text.lines()));
        assert!(is("user|mailbox unknown", "550 <a@example.com>: User unknown in table"));
        assert!(is("over quota", "mailbox is over\nquota"));
        assert!(!is("over quota", "moreover quota"));
        assert!(is("blacklist*", "is blacklisted by"));
        assert!(is("your ip … block*", "Your IP 192.0.2.1 has been blocked"));
        assert!(is("user … locked", "User bob@example.org temporary locked"));
        assert!(is("user temporary", "User bob@example.org temporary locked"), "a mark does not part words");
        assert!(is("from #ip", "messages from 192.0.2.1 will"));
        assert!(!is("from #ip", "messages from him 192.0.2.1 will"));
        assert!(!is("one … two", &format!("one {} two", "word ".repeat(MAX_GAP + 1))), "a gap has an end");
        assert!(is("one … two", &format!("one {} two", "word ".repeat(MAX_GAP))));
        assert!(is("you've reached", "you’ve reached") && is("one...two", "one or two"));
        assert!(!is("", "anything"));
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(Words::new(std::iter::once("a ".repeat(100_000).as_str())).0.len(), MAX_WORDS);
    }
}
