//! The wait that a reply asks for.

use std::time::Duration;

use super::words::Words;

/// The longest wait that is honoured.
pub(super) const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the wait in `try again in 15 seconds`, `retry after 5 minutes` or `greylisted for 00:04:30`, at most a day. Other
/// durations are ignored, as in `10 messages per 24 hours`.
pub(super) fn parse(words: &Words) -> Option<Duration> {
    let words: Vec<&str> = words.as_slice().iter().map(String::as_str).filter(|word| !word.starts_with('#')).collect();
    let asks_to_retry = |word: &&str| {
        ["again", "retry", "wait", "resend", "later", "back"].contains(word)
            || word.starts_with("greylist")
            || word.starts_with("graylist")
    };
    if !words.iter().any(asks_to_retry) {
        return None;
    }
    (0..words.len()).find_map(|at| {
        let wait = parse_duration(&words[at..])?;
        let before = words[at.saturating_sub(3)..at].iter().rev();
        // The nearest word decides: `in 5 minutes` is a wait, `in the last 5 minutes` is not.
        before
            .take_while(|word| !["last", "past", "per", "every", "each", "of", "within"].contains(word))
            .find(|word| ["in", "after", "for", "wait", "least", "another", "about"].contains(word))?;
        (!wait.is_zero()).then_some(wait.min(MAX))
    })
}

/// Parses `15 seconds`, `15s`, `5 min` or `00 04 30` (from `00:04:30`).
fn parse_duration(words: &[&str]) -> Option<Duration> {
    let first = words.first()?;
    let digits = first.find(|c: char| !c.is_ascii_digit()).unwrap_or(first.len());
    let (number, suffix) = first.split_at(digits);
    let count: u64 = number.parse().ok()?;
    if let [hours, minutes, seconds, ..] = words
        && [hours, minutes, seconds].iter().all(|part| part.len() == 2)
        && let (Ok(hours), Ok(minutes), Ok(seconds)) =
            (hours.parse::<u64>(), minutes.parse::<u64>(), seconds.parse::<u64>())
    {
        return Some(Duration::from_secs(hours * 3600 + minutes * 60 + seconds));
    }
    let unit = if suffix.is_empty() { words.get(1)? } else { suffix };
    let unit = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 60 * 60,
        "day" | "days" => 24 * 60 * 60,
        _ => return None,
    };
    count.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_to_wait_are_read() {
        for (text, seconds) in [
            ("Please try again in 15 seconds.", Some(15)),
            ("retry after 5 minutes", Some(300)),
            ("wait 3600 seconds before you retry", Some(3600)),
            ("Greylisted for 5 minutes", Some(300)),
            ("Greylisting in action, please come back in 00:04:30", Some(270)),
            ("Greylisted, try again in 300s", Some(300)),
            ("please retry in 5 min", Some(300)),
            ("You must wait at least 2 hours and try again", Some(7200)),
            ("try again in 3 days", Some(86_400)),
            ("try again in 99999999999999999999 days", None),
            ("try again in 18446744073709551615 days", None),
            ("Try again later", None),
            ("only 10 messages per 24 hours, try again later", None),
            ("limit of 500 in the last 24 hours reached, try again later", None),
            ("blocked for 24 hours", None),
            ("try again in 0 seconds", None),
            ("see https://example.com/in/5/minutes and try again", None),
        ] {
            assert_eq!(parse(&Words::new(text.lines())).map(|wait| wait.as_secs()), seconds, "{text}");
        }
    }
}
