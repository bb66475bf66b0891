//! The transport expressions of the command line: a URL, or a call that combines transports.
//!
//! ```text
//! TRANSPORT = URL | NAME "(" WORD … TRANSPORT … ")"
//! ```
//!
//! Words are separated by whitespace. No error repeats a word, because it can be part of a password.

use std::time::Duration;

use postrider::Address;

use crate::parsers;

/// A parsed expression.
#[derive(Debug)]
pub(crate) enum TransportExpr<'a> {
    /// The whole expression is a URL.
    Url(&'a str),
    /// A URL within a call. The number counts the URLs of the expression from 1.
    NumberedUrl {
        number: usize,
        url: &'a str,
    },
    Failover(AtLeastTwo<TransportExpr<'a>>),
    RoundRobin(AtLeastTwo<Weighted<'a>>),
    Redirect {
        to: Address,
        inner: Box<TransportExpr<'a>>,
    },
    Timeout {
        limit: Duration,
        inner: Box<TransportExpr<'a>>,
    },
    RateLimit {
        messages: u32,
        period: Duration,
        inner: Box<TransportExpr<'a>>,
    },
}

#[derive(Debug)]
pub(crate) struct Weighted<'a> {
    pub(crate) weight: u32,
    pub(crate) transport: TransportExpr<'a>,
}

#[derive(Debug)]
pub(crate) struct AtLeastTwo<T> {
    pub(crate) first: Box<T>,
    pub(crate) rest: Vec<T>,
}

/// The maximum nesting of calls. It keeps the recursion within the stack.
const MAX_DEPTH: usize = 16;

const UNKNOWN_CALL: &str =
    "only failover, round-robin, redirect, timeout and rate-limit can stand before a parenthesis";

/// Parses an expression. A text that does not start with a call is a URL up to its end, with any characters.
pub(crate) fn parse(text: &str) -> Result<TransportExpr<'_>, String> {
    let text = text.trim();
    let name = text.split(|c: char| c == '(' || c.is_whitespace()).next().unwrap_or_default();
    if !text.contains('(') || name.contains(':') {
        return Ok(TransportExpr::Url(text));
    }
    let mut parser = Parser { rest: text, urls: 0 };
    let expr = parser.transport(0)?;
    match parser.next_word() {
        None => Ok(expr),
        Some(_) => Err("there is text after the closing parenthesis".to_owned()),
    }
}

struct Parser<'a> {
    rest: &'a str,
    /// The URLs read so far.
    urls: usize,
}

impl<'a> Parser<'a> {
    /// Reads a parenthesis, or the text up to the next parenthesis or whitespace.
    fn next_word(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let parenthesis = usize::from(rest.starts_with(['(', ')']));
        let end = rest.find(|c: char| "()".contains(c) || c.is_whitespace()).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end.max(parenthesis));
        self.rest = rest;
        Some(word).filter(|word| !word.is_empty())
    }

    /// Skips the parenthesis if it is next. Returns whether it was.
    fn skip(&mut self, parenthesis: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(parenthesis);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn transport(&mut self, depth: usize) -> Result<TransportExpr<'a>, String> {
        let word = self.next_word().unwrap_or_default();
        if !self.skip('(') {
            return match word {
                "" | ")" => Err("a transport is missing".to_owned()),
                "(" => Err(UNKNOWN_CALL.to_owned()),
                url => {
                    self.urls += 1;
                    Ok(TransportExpr::NumberedUrl { number: self.urls, url })
                }
            };
        }
        if depth == MAX_DEPTH {
            return Err(format!("the nesting is deeper than {MAX_DEPTH} levels"));
        }
        let depth = depth + 1;
        match word {
            "failover" => self.list("failover", depth, Self::transport).map(TransportExpr::Failover),
            "round-robin" => self.list("round-robin", depth, Self::weighted).map(TransportExpr::RoundRobin),
            "redirect" => {
                let form = "redirect needs an address and a transport: redirect(ADDRESS URL)";
                let to = self.next_word().and_then(|word| word.parse().ok()).ok_or(form)?;
                Ok(TransportExpr::Redirect { to, inner: self.last_transport(form, depth)? })
            }
            "timeout" => {
                let form = "timeout needs a duration and a transport: timeout(60s URL)";
                let limit = self.next_word().and_then(|word| parsers::positive_duration(word).ok()).ok_or(form)?;
                Ok(TransportExpr::Timeout { limit, inner: self.last_transport(form, depth)? })
            }
            "rate-limit" => {
                let form = "rate-limit needs a number of messages, a period and a transport: rate-limit(14/1s URL)";
                let (messages, period) = self.next_word().and_then(rate).ok_or(form)?;
                Ok(TransportExpr::RateLimit { messages, period, inner: self.last_transport(form, depth)? })
            }
            word if word.contains(':') => Err("in a URL within parentheses, write ( and ) as %28 and %29".to_owned()),
            _ => Err(UNKNOWN_CALL.to_owned()),
        }
    }

    /// Reads a transport with its weight, `3*URL`. Without a weight it is 1.
    fn weighted(&mut self, depth: usize) -> Result<Weighted<'a>, String> {
        let rest = self.rest.trim_start();
        let weight = match rest.split_once('*') {
            Some((weight, rest)) if !weight.is_empty() && weight.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.rest = rest;
                if rest.starts_with(char::is_whitespace) {
                    return Err("there is a space after the * of a weight: write round-robin(3*URL URL)".to_owned());
                }
                weight.parse().map_err(|_| "a weight is too large".to_owned())?
            }
            _ => 1,
        };
        Ok(Weighted { weight, transport: self.transport(depth)? })
    }

    /// Reads items up to the closing parenthesis of the call `name`.
    fn list<T>(
        &mut self,
        name: &str,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<T, String>,
    ) -> Result<AtLeastTwo<T>, String> {
        let first = Box::new(item(self, depth)?);
        let mut rest = Vec::new();
        while !self.skip(')') {
            if self.rest.trim_start().is_empty() {
                return Err(format!("the parenthesis of {name} is not closed"));
            }
            rest.push(item(self, depth)?);
        }
        if rest.is_empty() {
            return Err(format!("{name} needs at least two transports: {name}(URL URL)"));
        }
        Ok(AtLeastTwo { first, rest })
    }

    /// Reads a transport and the closing parenthesis. `form` is the error if there is none.
    fn last_transport(&mut self, form: &str, depth: usize) -> Result<Box<TransportExpr<'a>>, String> {
        let expr = self.transport(depth)?;
        if self.skip(')') { Ok(Box::new(expr)) } else { Err(form.to_owned()) }
    }
}

/// Parses a number of messages and a period: `14/1s`.
fn rate(word: &str) -> Option<(u32, Duration)> {
    let (messages, period) = word.split_once('/')?;
    let messages = messages.parse().ok().filter(|messages| *messages > 0)?;
    Some((messages, parsers::positive_duration(period).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an expression in its source form, with `number=` before each numbered URL.
    fn format_expr(expr: &TransportExpr<'_>) -> String {
        fn join<T>(list: &AtLeastTwo<T>, format: impl Fn(&T) -> String) -> String {
            let items = [&*list.first].into_iter().chain(&list.rest);
            items.map(format).collect::<Vec<_>>().join(" ")
        }
        match expr {
            TransportExpr::Url(url) => (*url).to_owned(),
            TransportExpr::NumberedUrl { number, url } => format!("{number}={url}"),
            TransportExpr::Failover(list) => format!("failover({})", join(list, format_expr)),
            TransportExpr::RoundRobin(list) => {
                let format_weighted = |item: &Weighted<'_>| format!("{}*{}", item.weight, format_expr(&item.transport));
                format!("round-robin({})", join(list, format_weighted))
            }
            TransportExpr::Redirect { to, inner } => format!("redirect({} {})", to.as_str(), format_expr(inner)),
            TransportExpr::Timeout { limit, inner } => format!("timeout({limit:?} {})", format_expr(inner)),
            TransportExpr::RateLimit { messages, period, inner } => {
                format!("rate-limit({messages}/{period:?} {})", format_expr(inner))
            }
        }
    }

    #[test]
    fn expressions_are_parsed() {
        for (text, parsed) in [
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
            assert_eq!(parse(text).map(|expr| format_expr(&expr)), Ok(parsed.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_mistake_and_repeats_no_word() {
        for (text, why) in [
            ("failover()", "is missing"),
            ("failover(h0rse://a)", "two transports"),
            ("failover(h0rse://a h0rse://b", "not closed"),
            ("failover(h0rse://a h0rse://b))", "after the closing"),
            ("failover(h0rse://a h0rse://b) h0rse://c", "after the closing"),
            ("failover(h0rse://a(b) h0rse://b)", "%28"),
            ("failover(h0rse://a h0rse(h0rse://b))", "only failover, round-robin"),
            ("h0rse(h0rse://a)", "only failover, round-robin"),
            ("(h0rse://a)", "only failover, round-robin"),
            ("failover(( h0rse://a)", "only failover, round-robin"),
            ("round-robin(h0rse://a)", "two transports"),
            ("round-robin(3* h0rse://a h0rse://b)", "a space after the *"),
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
            let error = parse(text).expect_err(text);
            assert!(error.contains(why) && !error.contains("h0rse"), "{text}: {error}");
        }
        let nested = |depth| format!("{}a://b{}", "timeout(1s ".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(parse(&nested(MAX_DEPTH + 1)).is_err_and(|error| error.contains("deep")));
        assert!(parse(&nested(100_000)).is_err());
    }
}
