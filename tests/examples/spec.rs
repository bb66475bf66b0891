//! Checks requests against a provider's specification. A field that the specification does not list is an error.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// A text with this minimum and maximum number of characters.
    Text(usize, usize),
    /// A text that is not empty and has none of these characters.
    Without(&'static [char]),
    /// A text that is in quotes if it has one of these characters.
    Quoted(&'static [char]),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// An address (RFC 5321) without a name.
    Address,
    /// An address, or `Name <address>`.
    Mailbox,
    /// At most this many mailboxes in one text, separated by commas.
    Mailboxes(usize),
    /// Content in base64 that is not empty.
    Base64,
    /// A boolean.
    Flag,
    /// An array of this form with this minimum and maximum length.
    List(usize, usize, &'static Form),
    /// An object with any names, whose values have this form.
    Map(&'static Form),
    /// An object with these fields and no others.
    Object(&'static [Field]),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    name: &'static str,
    form: Form,
    required: bool,
}

/// A required field.
pub(crate) const fn must(name: &'static str, form: Form) -> Field {
    Field { name, form, required: true }
}

/// An optional field.
pub(crate) const fn may(name: &'static str, form: Form) -> Field {
    Field { name, form, required: false }
}

/// Any text.
pub(crate) const TEXT: Form = Form::Text(0, usize::MAX);
/// Any text that is not empty.
pub(crate) const SOME_TEXT: Form = Form::Text(1, usize::MAX);

impl Form {
    /// Returns each error in a value, with its path.
    pub(crate) fn faults(&self, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check("request", value, &mut faults);
        faults
    }

    fn check(&self, at: &str, value: &Value, faults: &mut Vec<String>) {
        let fine = match self {
            Self::List(least, most, form) => match value.as_array() {
                Some(values) => {
                    for (place, value) in values.iter().enumerate() {
                        form.check(&format!("{at}[{place}]"), value, faults);
                    }
                    (*least..=*most).contains(&values.len())
                }
                None => false,
            },
            Self::Map(form) => match value.as_object() {
                Some(fields) => {
                    for (name, value) in fields {
                        form.check(&format!("{at}.{name}"), value, faults);
                    }
                    true
                }
                None => false,
            },
            Self::Object(fields) => return check_object(at, fields, value, faults),
            Self::Flag => value.is_boolean(),
            text => value.as_str().is_some_and(|value| text.holds(value)),
        };
        if !fine {
            faults.push(format!("{at} is not {self:?}"));
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Text(least, most) => (*least..=*most).contains(&text.chars().count()),
            Self::Without(characters) => !text.is_empty() && !text.contains(*characters),
            Self::Quoted(characters) => {
                !text.contains(*characters) || text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
            Self::OneOf(texts) => texts.contains(&text),
            Self::Address => is_address(text),
            Self::Mailbox => {
                is_address(text.strip_suffix('>').and_then(|text| text.split_once(" <")).map_or(text, |it| it.1))
            }
            Self::Mailboxes(most) => {
                let all: Vec<_> = text.split(", ").collect();
                all.len() <= *most && all.iter().all(|one| Self::Mailbox.holds(one))
            }
            Self::Base64 => STANDARD.decode(text).is_ok_and(|content| !content.is_empty()),
            _ => false,
        }
    }
}

fn check_object(at: &str, fields: &[Field], value: &Value, faults: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        faults.push(format!("{at} is no object"));
        return;
    };
    let known: BTreeSet<_> = fields.iter().map(|field| field.name).collect();
    faults.extend(
        object.keys().filter(|name| !known.contains(name.as_str())).map(|name| format!("{at}.{name} is unknown")),
    );
    for field in fields {
        let at = format!("{at}.{}", field.name);
        match object.get(field.name) {
            Some(value) => field.form.check(&at, value, faults),
            None if field.required => faults.push(format!("{at} is missing")),
            None => {}
        }
    }
}

fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"<>,;\"()".contains(c);
    text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
        && text.chars().all(plain)
}

#[test]
fn a_form_finds_each_error() {
    use serde_json::json;
    const FORM: Form = Form::Object(&[
        must("to", Form::List(1, 2, &Form::Mailbox)),
        may("kind", Form::OneOf(&["a", "b"])),
        may("content", Form::Base64),
        may("headers", Form::Map(&TEXT)),
    ]);
    let fine = json!({"to": ["A B <a@x.example>"], "kind": "a", "content": "eA==", "headers": {"X-A": ""}});
    assert_eq!(FORM.faults(&fine), [""; 0]);
    for (value, fault) in [
        (json!({"kind": "a"}), "request.to is missing"),
        (json!({"to": ["a@x.example"], "knd": "a"}), "request.knd is unknown"),
        (json!({"to": []}), "request.to is not"),
        (json!({"to": ["a@x.example", "b@x.example", "c@x.example"]}), "request.to is not"),
        (json!({"to": ["a@x.example", "nobody"]}), "request.to[1] is not"),
        (json!({"to": "a@x.example"}), "request.to is not"),
        (json!({"to": ["a@x.example"], "kind": "c"}), "request.kind is not"),
        (json!({"to": ["a@x.example"], "content": "?"}), "request.content is not"),
        (json!({"to": ["a@x.example"], "headers": {"X-A": 1}}), "request.headers.X-A is not"),
        (json!([]), "request is no object"),
    ] {
        let faults = FORM.faults(&value);
        assert!(faults.len() == 1 && faults[0].starts_with(fault), "{value}: {faults:?}");
    }
}
