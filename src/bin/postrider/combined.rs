//! Transports made of others, as they are written on the command line.
//!
//! ```text
//! TRANSPORT = URL | NAME "(" WORD … TRANSPORT … ")"
//! ```
//!
//! Whitespace parts the words. No error repeats any of them: it may be part of a password.

use std::time::Duration;

use postrider::Address;

use crate::words;

/// What is written, before any of it is opened.
#[derive(Debug)]
pub(crate) enum Plan<'a> {
    /// Alone.
    Url(&'a str),
    /// Among others, with its number among the URLs, from 1 on.
    Part(usize, &'a str),
    Failover(Several<Plan<'a>>),
    RoundRobin(Several<(u32, Plan<'a>)>),
    Redirect(Address, Box<Plan<'a>>),
    Timeout(Duration, Box<Plan<'a>>),
    RateLimit(u32, Duration, Box<Plan<'a>>),
}

/// A first one, and more.
#[derive(Debug)]
pub(crate) struct Several<T> {
    pub(crate) first: Box<T>,
    pub(crate) more: Vec<T>,
}

/// Far more than anybody needs, and far less than the stack holds.
const DEEPEST: usize = 16;

const UNKNOWN: &str =
    "a transport is made of others by failover, round-robin, redirect, timeout or rate-limit, and by nothing else";

/// Reads a transport. One that is not combined is a URL to its end, whatever characters it has.
pub(crate) fn read(text: &str) -> Result<Plan<'_>, String> {
    let text = text.trim();
    let name = text.split(|c: char| c == '(' || c.is_whitespace()).next().unwrap_or_default();
    if !text.contains('(') || name.contains(':') {
        return Ok(Plan::Url(text));
    }
    let mut words = Words { rest: text, urls: 0 };
    let plan = words.transport(0)?;
    match words.next() {
        None => Ok(plan),
        Some(_) => Err("something follows the parenthesis that ends it".to_owned()),
    }
}

struct Words<'a> {
    rest: &'a str,
    urls: usize,
}

impl<'a> Words<'a> {
    /// A parenthesis, or what stands between two of them or whitespace.
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let parenthesis = usize::from(rest.starts_with(['(', ')']));
        let end = rest.find(|c: char| "()".contains(c) || c.is_whitespace()).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end.max(parenthesis));
        self.rest = rest;
        Some(word).filter(|word| !word.is_empty())
    }

    fn takes(&mut self, parenthesis: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(parenthesis);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn transport(&mut self, depth: usize) -> Result<Plan<'a>, String> {
        let word = self.next().unwrap_or_default();
        if !self.takes('(') {
            return match word {
                "" | ")" => Err("a transport is missing".to_owned()),
                "(" => Err(UNKNOWN.to_owned()),
                url => {
                    self.urls += 1;
                    Ok(Plan::Part(self.urls, url))
                }
            };
        }
        if depth == DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} deep"));
        }
        let depth = depth + 1;
        match word {
            "failover" => self.several("failover", depth, Self::transport).map(Plan::Failover),
            "round-robin" => self.several("round-robin", depth, Self::share).map(Plan::RoundRobin),
            "redirect" => {
                let form = "redirect needs an address and a transport: redirect(ADDRESS URL)";
                let to = self.next().and_then(|word| word.parse().ok()).ok_or(form)?;
                Ok(Plan::Redirect(to, self.only(form, depth)?))
            }
            "timeout" => {
                let form = "timeout needs a duration and a transport: timeout(60s URL)";
                let limit = self.next().and_then(|word| words::positive(word).ok()).ok_or(form)?;
                Ok(Plan::Timeout(limit, self.only(form, depth)?))
            }
            "rate-limit" => {
                let form =
                    "rate-limit needs a number of messages for a duration and a transport: rate-limit(14/1s URL)";
                let (messages, period) = self.next().and_then(rate).ok_or(form)?;
                Ok(Plan::RateLimit(messages, period, self.only(form, depth)?))
            }
            word if word.contains(':') => {
                Err("a URL within it must have its parentheses written %28 and %29".to_owned())
            }
            _ => Err(UNKNOWN.to_owned()),
        }
    }

    /// A transport and its weight: `3*URL`, or 1 if it has none.
    fn share(&mut self, depth: usize) -> Result<(u32, Plan<'a>), String> {
        let rest = self.rest.trim_start();
        let weight = match rest.split_once('*') {
            Some((weight, rest)) if !weight.is_empty() && weight.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.rest = rest;
                if rest.starts_with(char::is_whitespace) {
                    return Err("a weight stands right before its transport: round-robin(3*URL URL)".to_owned());
                }
                weight.parse().map_err(|_| "a weight is too large".to_owned())?
            }
            _ => 1,
        };
        Ok((weight, self.transport(depth)?))
    }

    /// What stands before the parenthesis that ends it: two at the least, since one would be alone.
    fn several<T>(
        &mut self,
        name: &str,
        depth: usize,
        mut read: impl FnMut(&mut Self, usize) -> Result<T, String>,
    ) -> Result<Several<T>, String> {
        let first = Box::new(read(self, depth)?);
        let mut more = Vec::new();
        while !self.takes(')') {
            if self.rest.trim_start().is_empty() {
                return Err(format!("the parenthesis of {name} is not closed"));
            }
            more.push(read(self, depth)?);
        }
        if more.is_empty() {
            return Err(format!("{name} needs two transports or more: {name}(URL URL)"));
        }
        Ok(Several { first, more })
    }

    /// The one transport before the parenthesis that ends it.
    fn only(&mut self, form: &str, depth: usize) -> Result<Box<Plan<'a>>, String> {
        let plan = self.transport(depth)?;
        if self.takes(')') { Ok(Box::new(plan)) } else { Err(form.to_owned()) }
    }
}

/// So many messages, at least one, in so long: `14/1s`.
fn rate(word: &str) -> Option<(u32, Duration)> {
    let (messages, period) = word.split_once('/')?;
    let messages = messages.parse().ok().filter(|messages| *messages > 0)?;
    Some((messages, words::positive(period).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was read, written out again.
    fn shown(plan: &Plan<'_>) -> String {
        fn each<T>(several: &Several<T>, shown: impl Fn(&T) -> String) -> String {
            let all = [&*several.first].into_iter().chain(&several.more);
            all.map(shown).collect::<Vec<_>>().join(" ")
        }
        match plan {
            Plan::Url(url) => (*url).to_owned(),
            Plan::Part(number, url) => format!("{number}={url}"),
            Plan::Failover(plans) => format!("failover({})", each(plans, shown)),
            Plan::RoundRobin(shares) => {
                format!("round-robin({})", each(shares, |(weight, plan)| format!("{weight}*{}", shown(plan))))
            }
            Plan::Redirect(to, plan) => format!("redirect({} {})", to.as_str(), shown(plan)),
            Plan::Timeout(limit, plan) => format!("timeout({limit:?} {})", shown(plan)),
            Plan::RateLimit(messages, period, plan) => format!("rate-limit({messages}/{period:?} {})", shown(plan)),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (text, read_as) in [
            ("smtp://a", "smtp://a"),
            (" smtp://ada:p(w) d)@a ", "smtp://ada:p(w) d)@a"),
            ("no scheme", "no scheme"),
            ("failover smtp://a", "failover smtp://a"),
            ("failover(smtp://a ses://b)", "failover(1=smtp://a 2=ses://b)"),
            ("failover\t( smtp://a\n  ses://b\n)\n", "failover(1=smtp://a 2=ses://b)"),
            ("round-robin(3*smtp://a 0*ses://b c://d)", "round-robin(3*1=smtp://a 0*2=ses://b 1*3=c://d)"),
            ("round-robin(smtp://a:1*2@b c://d)", "round-robin(1*1=smtp://a:1*2@b 1*2=c://d)"),
            ("timeout(1m30s smtp://a)", "timeout(90s 1=smtp://a)"),
            ("rate-limit(14/1s smtp://a)", "rate-limit(14/1s 1=smtp://a)"),
            ("redirect(ada@example.com smtp://a)", "redirect(ada@example.com 1=smtp://a)"),
            (
                "failover(timeout(60s rate-limit(5/1s a://b)) round-robin(2*failover(c://d e://f) g://h))",
                "failover(timeout(60s rate-limit(5/1s 1=a://b)) round-robin(2*failover(2=c://d 3=e://f) 1*4=g://h))",
            ),
        ] {
            assert_eq!(read(text).map(|plan| shown(&plan)), Ok(read_as.to_owned()), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_and_nothing_is_repeated() {
        for (text, why) in [
            ("failover()", "is missing"),
            ("failover(h0rse://a)", "two transports"),
            ("failover(h0rse://a h0rse://b", "not closed"),
            ("failover(h0rse://a h0rse://b))", "follows"),
            ("failover(h0rse://a h0rse://b) h0rse://c", "follows"),
            ("failover(h0rse://a(b) h0rse://b)", "%28"),
            ("failover(h0rse://a h0rse(h0rse://b))", "made of others by failover"),
            ("h0rse(h0rse://a)", "made of others by failover"),
            ("(h0rse://a)", "made of others by failover"),
            ("failover(( h0rse://a)", "made of others by failover"),
            ("round-robin(h0rse://a)", "two transports"),
            ("round-robin(3* h0rse://a h0rse://b)", "right before"),
            ("round-robin(99999999999*h0rse://a h0rse://b)", "too large"),
            ("round-robin(3*)", "is missing"),
            ("timeout(h0rse://a)", "timeout(60s URL)"),
            ("timeout(60 h0rse://a)", "timeout(60s URL)"),
            ("timeout(0s h0rse://a)", "timeout(60s URL)"),
            ("timeout(60h0rse h0rse://a)", "timeout(60s URL)"),
            ("timeout(60s h0rse://a h0rse://b)", "timeout(60s URL)"),
            ("timeout(60s h0rse://a", "timeout(60s URL)"),
            ("timeout(60s)", "is missing"),
            ("timeout(60s", "is missing"),
            ("timeout(", "timeout(60s URL)"),
            ("redirect(h0rse h0rse://a)", "redirect(ADDRESS URL)"),
            ("rate-limit(14 h0rse://a)", "rate-limit(14/1s URL)"),
            ("rate-limit(0/1s h0rse://a)", "rate-limit(14/1s URL)"),
            ("rate-limit(14/h0rse h0rse://a)", "rate-limit(14/1s URL)"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why) && !error.contains("h0rse"), "{text}: {error}");
        }
        let deep = |depth| format!("{}a://b{}", "timeout(1s ".repeat(depth), ")".repeat(depth));
        assert!(read(&deep(DEEPEST)).is_ok());
        assert!(read(&deep(DEEPEST + 1)).is_err_and(|error| error.contains("deep")));
        assert!(read(&deep(100_000)).is_err());
    }
}
