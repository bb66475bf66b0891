//! The filter of a list, in the query of its URL. The names are those of the options of `postrider list`.

use std::time::{Duration, SystemTime};

use form_urlencoded::Serializer;

use crate::{Filter, State};

/// The number of deliveries on a page.
pub(super) const PAGE: u32 = 50;

/// The largest number that is counted.
pub(super) const COUNT_LIMIT: u32 = 1_000;

/// The longest value in characters.
const MAX_LENGTH: usize = 1_000;

/// A field of the filter.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// An example, or how to write it.
    pub(super) hint: &'static str,
    pub(super) value: String,
    pub(super) error: Option<String>,
}

/// Name, label and hint of each text field.
const FIELDS: [(&str, &str, &str); 12] = [
    ("to", "Recipient", "ada@example.com or @example.com"),
    ("subject", "Subject begins with", ""),
    ("error", "Last error contains", ""),
    ("template_id", "Template", ""),
    ("tag", "Tag", ""),
    ("key", "Idempotency key", ""),
    ("provider_id", "Id at the next hop", ""),
    ("transport", "Transport of the last attempt", "smtp or failover/ses"),
    ("since", "Enqueued since", "2d or 2030-12-31T18:00Z"),
    ("until", "Enqueued before", "2d or 2030-12-31T18:00Z"),
    ("finished_since", "Finished since", "2d or 2030-12-31T18:00Z"),
    ("finished_until", "Finished before", "2d or 2030-12-31T18:00Z"),
];

/// A filter as a person has set it.
pub(super) struct ListQuery {
    pub(super) state: Option<State>,
    pub(super) fields: Vec<Field>,
    pub(super) oldest_first: bool,
    /// The filter without a page.
    pub(super) filter: Filter,
    pub(super) after: Option<postrider_transport::DeliveryId>,
    pub(super) before: Option<postrider_transport::DeliveryId>,
    /// The names of values without a field in the form that cannot be read.
    pub(super) invalid: Vec<&'static str>,
}

impl ListQuery {
    /// Reads a query. Unknown names are ignored; a value that cannot be read is an error.
    pub(super) fn parse(query: &str, now: SystemTime) -> Self {
        let text = |(name, label, hint)| Field { name, label, hint, value: String::new(), error: None };
        let mut parsed = Self {
            state: None,
            fields: FIELDS.into_iter().map(text).collect(),
            oldest_first: false,
            filter: Filter::new().limit(PAGE),
            after: None,
            before: None,
            invalid: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            match name.as_ref() {
                "state" | "order" | "after" | "before" if value.is_empty() => {}
                "state" => parsed.state = parsed.read("state", value.parse().ok()),
                "order" => {
                    let oldest_first = (value == "oldest").then_some(true);
                    let order = oldest_first.or((value == "newest").then_some(false));
                    parsed.oldest_first = parsed.read("order", order).unwrap_or_default();
                }
                "after" => parsed.after = parsed.read("after", value.parse().ok()),
                "before" => parsed.before = parsed.read("before", value.parse().ok()),
                name => {
                    if let Some(field) = parsed.fields.iter_mut().find(|field| field.name == name) {
                        field.value = value.chars().take(MAX_LENGTH).collect();
                    }
                }
            }
        }
        parsed.filter.state = parsed.state;
        parsed.filter.newest_first = !parsed.oldest_first;
        for field in &mut parsed.fields {
            if !field.value.is_empty() {
                field.error = apply(&mut parsed.filter, field.name, &field.value, now).err();
            }
        }
        parsed
    }

    /// Notes the name of a value that could not be read.
    fn read<T>(&mut self, name: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.invalid.push(name);
        }
        value
    }

    pub(super) fn is_valid(&self) -> bool {
        self.invalid.is_empty() && self.fields.iter().all(|field| field.error.is_none())
    }

    /// Whether any condition is set.
    pub(super) fn is_filtered(&self) -> bool {
        self.state.is_some() || self.fields.iter().any(|field| !field.value.is_empty())
    }

    /// Whether a condition is set that has a field in the form.
    pub(super) fn has_fields(&self) -> bool {
        self.fields.iter().any(|field| !field.value.is_empty())
    }

    /// The query of the first page, without a question mark. Everything in it is escaped.
    pub(super) fn first_page(&self) -> String {
        self.serialize(self.state, None)
    }

    /// The query of the first page with another state.
    pub(super) fn with_state(&self, state: Option<State>) -> String {
        self.serialize(state, None)
    }

    /// The query of the page after or before a delivery.
    pub(super) fn next_to(&self, cursor: &'static str, id: postrider_transport::DeliveryId) -> String {
        self.serialize(self.state, Some((cursor, id)))
    }

    fn serialize(
        &self,
        state: Option<State>,
        cursor: Option<(&'static str, postrider_transport::DeliveryId)>,
    ) -> String {
        let mut out = Serializer::new(String::new());
        if let Some(state) = state {
            out.append_pair("state", state.as_str());
        }
        for field in self.fields.iter().filter(|field| !field.value.is_empty()) {
            out.append_pair(field.name, &field.value);
        }
        if self.oldest_first {
            out.append_pair("order", "oldest");
        }
        if let Some((name, id)) = cursor {
            out.append_pair(name, &id.to_string());
        }
        out.finish()
    }
}

/// A link to a list from any page, with one pair or several.
pub(super) fn link(pairs: &[(&str, &str)]) -> String {
    let mut out = Serializer::new(String::new());
    out.extend_pairs(pairs);
    format!("deliveries?{}", out.finish())
}

fn apply(filter: &mut Filter, name: &str, value: &str, now: SystemTime) -> Result<(), String> {
    let text = Some(value.to_owned());
    match name {
        "to" => {
            let recipient = Filter::parse_recipient(value);
            filter.recipient =
                Some(recipient.map_err(|_| "write an address, or a domain with @ before it".to_owned())?);
        }
        "subject" => filter.subject_prefix = text,
        "error" => filter.error = text,
        "template_id" => filter.template_id = text,
        "tag" => filter.tag = text,
        "key" => filter.key = text,
        "provider_id" => filter.provider_id = text,
        "transport" => filter.transport = text,
        "since" => filter.created_from = Some(time(value, now)?),
        "until" => filter.created_before = Some(time(value, now)?),
        "finished_since" => filter.finished_from = Some(time(value, now)?),
        "finished_until" => filter.finished_before = Some(time(value, now)?),
        _ => {}
    }
    if value.contains('\0') {
        return Err("it has a NUL, which no database can store".to_owned());
    }
    Ok(())
}

/// Reads a time in UTC, or a duration before now.
fn time(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    if let Ok(age) = humantime::parse_duration(text) {
        let time = now.checked_sub(age).filter(|time| age <= CENTURY && *time >= SystemTime::UNIX_EPOCH);
        return time.ok_or_else(|| "it is too long ago".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_suffix('Z').unwrap_or(&upper);
    // A date alone is its beginning, and seconds can be left out.
    let whole = match bare.len() {
        10 => format!("{bare}T00:00:00"),
        16 => format!("{bare}:00"),
        _ => bare.to_owned(),
    };
    let is_shown = |time: &SystemTime| !bare.contains('Z') && *time >= SystemTime::UNIX_EPOCH;
    let time = humantime::parse_rfc3339_weak(&whole).ok().filter(is_shown);
    time.ok_or_else(|| "write a time in UTC, 2030-12-31T18:00Z, or a duration before now, 2d or 90m".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_secs(2_000_000_000)
    }

    #[test]
    fn a_query_is_read_and_written_again() {
        let query = "state=dead&to=%40example.com&error=a%26b%3Dc%23&since=2d&order=oldest";
        let parsed = ListQuery::parse(&format!("{query}&unknown=1&after="), now());
        assert!(parsed.is_valid() && parsed.after.is_none());
        assert_eq!(parsed.first_page(), query);
        assert_eq!(parsed.filter.state, Some(State::Dead));
        assert_eq!(parsed.filter.error.as_deref(), Some("a&b=c#"));
        assert!(!parsed.filter.newest_first);
        assert_eq!(parsed.filter.created_from, Some(now() - Duration::from_secs(2 * 86_400)));
    }

    #[test]
    fn times_have_several_forms() {
        let at = |text| time(text, now());
        let expected = UNIX_EPOCH + Duration::from_secs(1_924_970_400);
        for same in ["2030-12-31T18:00:00Z", "2030-12-31T18:00Z", "2030-12-31 18:00", "2030-12-31t18:00:00z"] {
            assert_eq!(at(same), Ok(expected), "{same}");
        }
        assert_eq!(at("2030-12-31"), Ok(expected - Duration::from_secs(18 * 3_600)));
        for bad in [
            "",
            "x",
            "2030-13-01",
            "2030-12-31T18:00+02:00",
            "101years",
            "99years",
            "1969-12-31T23:59Z",
            "2030-12-31T18:00ZZ",
            "é",
            "300000000000years",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_value_is_an_error_of_its_field_and_a_long_one_is_cut() {
        let parsed = ListQuery::parse(&format!("since=yesterday&tag={}", "a".repeat(5_000)), now());
        assert!(!parsed.is_valid());
        let field = |name| parsed.fields.iter().find(|field| field.name == name).unwrap();
        assert!(field("since").error.is_some() && field("tag").error.is_none());
        assert_eq!(field("tag").value.len(), MAX_LENGTH);
        assert!(!ListQuery::parse("to=a%00b", now()).is_valid());
        for name in ["state", "order", "after", "before"] {
            let parsed = ListQuery::parse(&format!("{name}=x"), now());
            assert!(!parsed.is_valid() && parsed.invalid == [name], "{name}");
            assert!(ListQuery::parse(&format!("{name}="), now()).is_valid(), "{name}");
        }
        assert!(!ListQuery::parse("", now()).is_filtered());
    }
}
