//! Value parsers for command-line arguments.

use std::time::{Duration, SystemTime};

use postrider::transport::Recipient;
use postrider::{Address, DeliveryId, Filter, PrunedPart, State};

pub(crate) fn delivery_id(text: &str) -> Result<DeliveryId, &'static str> {
    text.parse().map_err(|_| "a delivery id is a UUID, as printed by enqueue and list")
}

pub(crate) fn state(text: &str) -> Result<State, String> {
    text.parse().map_err(|_| format!("the states are {}", State::ALL.map(State::as_str).join(", ")))
}

pub(crate) fn finished_state(text: &str) -> Result<State, String> {
    match text.parse() {
        Ok(state) if State::is_finished(state) => Ok(state),
        _ => Err("it must be sent, dead, in_doubt, cancelled or dismissed".to_owned()),
    }
}

pub(crate) fn pruned_part(text: &str) -> Result<PrunedPart, &'static str> {
    match text {
        "messages" => Ok(PrunedPart::Messages),
        "history" => Ok(PrunedPart::History),
        "deliveries" => Ok(PrunedPart::Deliveries),
        _ => Err("it must be messages, history or deliveries"),
    }
}

pub(crate) fn address(text: &str) -> Result<Recipient, String> {
    let address: Address = text.parse().map_err(|error| format!("{error}"))?;
    Ok(Recipient::from(&address))
}

/// Parses a time with a zone, a date, which is its beginning in UTC, or a duration, which is subtracted from the current time.
pub(crate) fn time_ago(text: &str) -> Result<SystemTime, String> {
    if text.len() == "2030-12-31".len()
        && let Ok(midnight) = rfc3339(&format!("{text}T00:00:00Z"))
    {
        return Ok(midnight);
    }
    match (rfc3339(text), duration(text)) {
        (Ok(time), _) => Ok(time),
        (_, Ok(age)) => SystemTime::now().checked_sub(age).ok_or_else(|| "it is too long ago".to_owned()),
        (Err(form), Err(_)) => Err(format!("{form}, or is a duration before now, such as 90m or 2d")),
    }
}

/// Parses a duration of at most a hundred years.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= CENTURY => Ok(duration),
        Ok(_) => Err("it is longer than a hundred years".to_owned()),
        Err(error) => Err(format!("{error}; examples of durations are 500ms, 5s, 2h, 1h30m, 5d")),
    }
}

/// Parses a duration of at least one millisecond.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_millis(1))
}

/// Parses the duration of a lease: at least 100 milliseconds.
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_millis(100))
}

fn at_least(text: &str, min: Duration) -> Result<Duration, String> {
    match duration(text)? {
        duration if duration >= min => Ok(duration),
        _ => Err(format!("it must be at least {}", humantime::format_duration(min))),
    }
}

pub(crate) fn address_or_domain(text: &str) -> Result<String, &'static str> {
    Filter::parse_recipient(text).map_err(|_| "it must be an address, or a domain with @ before it")
}

pub(crate) fn factor(text: &str) -> Result<f64, &'static str> {
    finite(text).filter(|factor| *factor >= 1.0).ok_or("it must be a number of at least 1")
}

pub(crate) fn jitter(text: &str) -> Result<f64, &'static str> {
    finite(text).filter(|jitter| (0.0..=1.0).contains(jitter)).ok_or("it must be a number from 0 to 1")
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Parses a time with a zone (RFC 3339 section 5.6): in UTC, or with an offset.
pub(crate) fn rfc3339(text: &str) -> Result<SystemTime, &'static str> {
    const FORM: &str = "a time has the form 2030-12-31T18:00:00Z or 2030-12-31T18:00:00+02:00";
    let utc = |text: &str| {
        let text = text.to_ascii_uppercase();
        // The parser ignores any text after the first Z.
        let ends_at_first_z = text.strip_suffix('Z').is_some_and(|rest| !rest.contains('Z'));
        humantime::parse_rfc3339(&text).ok().filter(|_| ends_at_first_z).ok_or(FORM)
    };
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at > "2030-12-31".len()) else {
        return utc(text);
    };
    let (local, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':').ok_or(FORM)?;
    let two_digits = |text: &str, below: u64| match text.parse::<u64>() {
        Ok(number) if text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) && number < below => Ok(number),
        _ => Err(FORM),
    };
    let offset_by = Duration::from_secs(60 * (60 * two_digits(hours, 24)? + two_digits(minutes, 60)?));
    let local = utc(&format!("{local}Z"))?;
    let time = if offset.starts_with('+') { local.checked_sub(offset_by) } else { local.checked_add(offset_by) };
    time.ok_or(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output;

    #[test]
    fn a_time_with_an_offset_is_the_same_moment() {
        let utc = rfc3339("2030-12-31T18:00:00Z").unwrap();
        for same in [
            "2030-12-31T20:00:00+02:00",
            "2030-12-31T12:30:00-05:30",
            "2030-12-31t18:00:00.000z",
            "2031-01-01T00:00:00+06:00",
        ] {
            assert_eq!(rfc3339(same), Ok(utc), "{same}");
        }
        assert_eq!(output::rfc3339(utc), "2030-12-31T18:00:00.000Z");
    }

    #[test]
    fn an_invalid_time_is_refused() {
        for bad in [
            "",
            "now",
            "2030-12-31",
            "2030-12-31T18:00:00",
            "2030-12-31T18:00:00+2:00",
            "2030-12-31T18:00:00+0200",
            "2030-12-31T18:00:00+02:60",
            "2030-12-31T18:00:00++2:00",
            "2030-12-31T18:00:00Z+02:00",
            "2030-13-31T18:00:00Z",
            "1969-12-31T23:00:00Z",
            "2030-12-31T18:00:00+é:00",
        ] {
            assert!(rfc3339(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(factor("1"), Ok(1.0));
        assert!(["0.9", "NaN", "inf", "x", "-1"].iter().all(|bad| factor(bad).is_err()));
        assert!(["-0.1", "1.1", "NaN"].iter().all(|bad| jitter(bad).is_err()));
        assert!(lease("99ms").is_err() && lease("100ms").is_ok());
        assert!(positive_duration("0s").is_err() && duration("0s").is_ok());
        assert!(duration("99years").is_ok() && duration("101years").is_err() && duration("500000000000years").is_err());
    }
}
