//! The words of a reply.
//!
//! Mail addresses, links, host names and IP addresses are replaced by placeholders. A word in an address or in a link is
//! therefore never taken for the server's.

use std::net::IpAddr;

/// The placeholder of a mail address.
const ADDRESS: &str = "#address";
/// The placeholder of a link.
const LINK: &str = "#link";
/// The placeholder of a host or domain name.
const HOST: &str = "#host";
/// The placeholder of an IP address or a network.
const IP: &str = "#ip";

/// Further words are ignored, so that a long reply costs no time.
const MAX_WORDS: usize = 400;

/// Operators and names of DNS blocklists and allowlists. A host name or a link is replaced by its placeholder, but these words in it
/// are kept: often no other word of the reply gives the reason.
const BLOCKLISTS: &[&str] = &[
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

/// Words in lower case, with placeholders.
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
                push_words(chunk, &mut words);
            }
        }
        Self(words)
    }

    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// Adds the words of a chunk of text without white space.
fn push_words(chunk: &str, words: &mut Vec<String>) {
    let chunk = chunk.trim_matches(|c: char| matches!(c, '(' | ')' | '{' | '}' | '\'' | '.' | '!' | '?' | '*' | '`'));
    let chunk = chunk.trim_end_matches([':', '-', '=']);
    if chunk.is_empty() {
        return;
    }
    let lower = chunk.to_lowercase();
    if lower.contains("://") || lower.starts_with("www.") {
        words.push(LINK.to_owned());
        let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        push_blocklists(rest.split(['/', '?', '#']).next().unwrap_or_default(), words);
        return;
    }
    if lower.contains('@') {
        words.push(ADDRESS.to_owned());
        return;
    }
    if is_ip(&lower) {
        words.push(IP.to_owned());
        return;
    }
    // `:` and `=` often join a word and a value: `ip=192.0.2.1`, `Failure:Access`.
    for piece in lower.split(['=', ':', '/', '(', ')', '[', ']', '{', '}', '!', '?', '*', '#', '+', '\\', '~']) {
        let piece = piece.trim_matches(|c: char| !c.is_alphanumeric());
        if is_ip(piece) {
            words.push(IP.to_owned());
        } else if is_host(piece) {
            words.push(HOST.to_owned());
            push_blocklists(piece, words);
        } else {
            let parts = piece.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
            words.extend(parts.map(|part| part.replace(['\'', '’'], "")).filter(|part| !part.is_empty()));
        }
    }
}

fn push_blocklists(host: &str, words: &mut Vec<String>) {
    let labels = host.split(['.', ':', '-']).filter(|label| BLOCKLISTS.contains(label));
    words.extend(labels.map(str::to_owned));
}

/// Whether it is an IP address, a network, or an IPv4 address with a port.
fn is_ip(text: &str) -> bool {
    let bare = text.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let bare = bare.strip_prefix("ipv6:").unwrap_or(bare);
    let bare = bare.split(['/', ']', '%']).next().unwrap_or_default();
    let with_port = || bare.rsplit_once(':').and_then(|(address, _)| address.parse::<std::net::Ipv4Addr>().ok());
    bare.parse::<IpAddr>().is_ok() || with_port().is_some()
}

/// Whether it is a name of labels with dots, of which the last has letters only. Abbreviations (`e.g`) and versions (`v1.2`) are not.
fn is_host(text: &str) -> bool {
    let Some((rest, last)) = text.rsplit_once('.') else { return false };
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    last.len() >= 2 && last.chars().all(char::is_alphabetic) && rest.split('.').all(label) && rest.len() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        Words::new(text.lines()).0.join(" ")
    }

    #[test]
    fn addresses_links_hosts_and_ips_become_placeholders() {
        for (text, expected) in [
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
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn long_texts_are_truncated() {
        assert_eq!(Words::new(std::iter::once("a ".repeat(100_000).as_str())).0.len(), MAX_WORDS);
    }
}
