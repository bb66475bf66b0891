//! Checks requests against a provider's specification. A field that the specification does not list is an error.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The schema of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema {
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
    Boolean,
    /// An array with this minimum and maximum length, whose items have this schema.
    List(usize, usize, &'static Schema),
    /// An object with any names, whose values have this schema.
    Map(&'static Schema),
    /// An object with these fields and no others.
    Object(&'static [Field]),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    name: &'static str,
    schema: Schema,
    required: bool,
}

/// A required field.
pub(crate) const fn required(name: &'static str, schema: Schema) -> Field {
    Field { name, schema, required: true }
}

/// An optional field.
pub(crate) const fn optional(name: &'static str, schema: Schema) -> Field {
    Field { name, schema, required: false }
}

/// Any text.
pub(crate) const TEXT: Schema = Schema::Text(0, usize::MAX);
/// Any text that is not empty.
pub(crate) const NON_EMPTY: Schema = Schema::Text(1, usize::MAX);

impl Schema {
    /// Returns each error in a value, with its path.
    pub(crate) fn errors(&self, value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.check("request", value, &mut errors);
        errors
    }

    fn check(&self, at: &str, value: &Value, errors: &mut Vec<String>) {
        let valid = match self {
            Self::List(min, max, schema) => match value.as_array() {
                Some(values) => {
                    for (place, value) in values.iter().enumerate() {
                        schema.check(&format!("{at}[{place}]"), value, errors);
                    }
                    (*min..=*max).contains(&values.len())
                }
                None => false,
            },
            Self::Map(schema) => match value.as_object() {
                Some(fields) => {
                    for (name, value) in fields {
                        schema.check(&format!("{at}.{name}"), value, errors);
                    }
                    true
                }
                None => false,
            },
            Self::Object(fields) => return check_object(at, fields, value, errors),
            Self::Boolean => value.is_boolean(),
            text => value.as_str().is_some_and(|value| text.matches(value)),
        };
        if !valid {
            errors.push(format!("{at} is not {self:?}"));
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Text(min, max) => (*min..=*max).contains(&text.chars().count()),
            Self::Without(characters) => !text.is_empty() && !text.contains(*characters),
            Self::Quoted(characters) => {
                !text.contains(*characters) || text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
            Self::OneOf(texts) => texts.contains(&text),
            Self::Address => is_address(text),
            Self::Mailbox => {
                is_address(text.strip_suffix('>').and_then(|text| text.split_once(" <")).map_or(text, |it| it.1))
            }
            Self::Mailboxes(max) => {
                let all: Vec<_> = text.split(", ").collect();
                all.len() <= *max && all.iter().all(|one| Self::Mailbox.matches(one))
            }
            Self::Base64 => STANDARD.decode(text).is_ok_and(|content| !content.is_empty()),
            _ => false,
        }
    }
}

fn check_object(at: &str, fields: &[Field], value: &Value, errors: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        errors.push(format!("{at} is not an object"));
        return;
    };
    let known: BTreeSet<_> = fields.iter().map(|field| field.name).collect();
    errors.extend(
        object.keys().filter(|name| !known.contains(name.as_str())).map(|name| format!("{at}.{name} is unknown")),
    );
    for field in fields {
        let at = format!("{at}.{}", field.name);
        match object.get(field.name) {
            Some(value) => field.schema.check(&at, value, errors),
            None if field.required => errors.push(format!("{at} is missing")),
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
fn a_schema_finds_each_error() {
    use serde_json::json;
    const SCHEMA: Schema = Schema::Object(&[
        required("to", Schema::List(1, 2, &Schema::Mailbox)),
        optional("kind", Schema::OneOf(&["a", "b"])),
        optional("content", Schema::Base64),
        optional("headers", Schema::Map(&TEXT)),
    ]);
    let valid = json!({"to": ["A B <a@x.example>"], "kind": "a", "content": "eA==", "headers": {"X-A": ""}});
    assert_eq!(SCHEMA.errors(&valid), [""; 0]);
    for (value, error) in [
        (json!({"kind": "a"}), "request.to is missing"),
        (json!({"to": ["a@x.example"], "knd": "a"}), "request.knd is unknown"),
        (json!({"to": []}), "request.to is not"),
        (json!({"to": ["a@x.example", "b@x.example", "c@x.example"]}), "request.to is not"),
        (json!({"to": ["a@x.example", "nobody"]}), "request.to[1] is not"),
        (json!({"to": "a@x.example"}), "request.to is not"),
        (json!({"to": ["a@x.example"], "kind": "c"}), "request.kind is not"),
        (json!({"to": ["a@x.example"], "content": "?"}), "request.content is not"),
        (json!({"to": ["a@x.example"], "headers": {"X-A": 1}}), "request.headers.X-A is not"),
        (json!([]), "request is not an object"),
    ] {
        let errors = SCHEMA.errors(&value);
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{value}: {errors:?}");
    }
}
