//! The trace context of a request: the header `traceparent`.

use std::fmt;
use std::str::FromStr;

/// The place of a request in a distributed trace: the value of the header `traceparent` (W3C Trace Context, version 00).
///
/// Stored with a delivery, it tells which request enqueued it. Print it to pass it on:
///
/// ```
/// use postrider_transport::TraceParent;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
/// let parent: TraceParent = header.parse()?;
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), header);
/// # Ok::<(), postrider_transport::TraceParentError>(())
/// ```
///
/// A header that does not parse must be ignored (section "Versioning of traceparent"): `header.parse().ok()`. The header `tracestate`,
/// which holds data of tracing systems, is not kept: a link to a span does not need it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// The length of its text in characters.
    pub const LENGTH: usize = 55;

    /// The flag of a trace whose caller may have recorded it (Level 1, section "Sampled flag").
    const SAMPLED: u8 = 0b01;
    /// The flag of a trace id whose last seven octets are random (Level 2, section "Random Trace ID Flag").
    const RANDOM: u8 = 0b10;

    /// Creates it from the ids of a trace and of the span that is the parent. `None` if an id is zero, which the standard forbids.
    ///
    /// Of the flags, those for "sampled" (1) and "random trace id" (2) are kept. The others are cleared, as the standard requires.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Option<Self> {
        let are_ids = trace_id != [0; 16] && parent_id != [0; 8];
        are_ids.then_some(Self { trace_id, parent_id, flags: flags & (Self::SAMPLED | Self::RANDOM) })
    }

    /// The id of the trace. Not zero.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span that is the parent. Not zero.
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// The flags.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, parent_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.parent_id));
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses the value of the header. Of a later version than 00, only the fields of version 00 are read (section "Versioning of
/// traceparent").
impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let error = |what| Err(TraceParentError(what));
        let octets = text.as_bytes();
        let Some((fields, rest)) = octets.split_first_chunk::<{ Self::LENGTH }>() else {
            return error("it has fewer than 55 characters");
        };
        let [v0, v1, b'-', ids @ .., b'-', f0, f1] = fields else {
            return error("its fields are not separated by dashes");
        };
        let Some((trace_id, [b'-', parent_id @ ..])) = ids.split_first_chunk::<32>() else {
            return error("its fields are not separated by dashes");
        };
        let (Some([version]), Some(trace_id), Some(parent_id), Some([flags])) =
            (hex(&[*v0, *v1]), hex(trace_id), hex(parent_id), hex(&[*f0, *f1]))
        else {
            return error("a field has other characters than 0 to 9 and a to f");
        };
        let flags = match (version, rest) {
            (0xff, _) => return error("there is no version ff"),
            (0, []) => flags,
            (0, _) => return error("it has more than 55 characters"),
            (_, [] | [b'-', ..]) => flags & Self::SAMPLED,
            _ => return error("its fields are not separated by dashes"),
        };
        Self::new(trace_id, parent_id, flags).ok_or(TraceParentError("an id is zero"))
    }
}

/// Reads two lower-case hexadecimal digits for each octet. `None` if there is another character, or
/// another number of digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |character: u8| match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut octets = [0; N];
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        *octet = digit(*high)? << 4 | digit(*low)?;
    }
    Some(octets)
}

/// Why a text is not the value of a header `traceparent`. The text of the error does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParentError(&'static str);

impl fmt::Display for TraceParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a traceparent of W3C Trace Context: {}", self.0)
    }
}

impl std::error::Error for TraceParentError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "b7ad6b7169203331";

    /// W3C Trace Context, section "Versioning of traceparent".
    #[test]
    fn a_valid_text_is_read_and_printed_as_version_00() {
        for (text, flags) in [
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-01"), 1),
            (format!("00-{TRACE}-{SPAN}-03"), 3),
            (format!("00-{TRACE}-{SPAN}-ff"), 3),
            (format!("01-{TRACE}-{SPAN}-01"), 1),
            (format!("cc-{TRACE}-{SPAN}-03-what-the-future-will-be-like"), 1),
            (format!("fe-{TRACE}-{SPAN}-01-"), 1),
        ] {
            let parent: TraceParent = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-{flags:02x}"), "{text}");
            assert_eq!((parent.flags(), parent.is_sampled()), (flags, flags & 1 == 1), "{text}");
            assert_eq!(TraceParent::new(parent.trace_id(), parent.parent_id(), parent.flags()), Some(parent));
            assert_eq!(parent.to_string().len(), TraceParent::LENGTH);
        }
        assert_eq!(format!("00-{TRACE}-{SPAN}-01").parse::<TraceParent>().map(|p| p.parent_id()[1]), Ok(0xad));
    }

    #[test]
    fn an_invalid_text_is_refused_with_the_reason() {
        for (text, reason) in [
            (String::new(), "fewer"),
            (format!("00-{TRACE}-{SPAN}"), "fewer"),
            (format!("00-{TRACE}-{SPAN}-1"), "fewer"),
            (format!("00-{TRACE}-{SPAN}-01-"), "more"),
            (format!("00-{TRACE}-{SPAN}-01 "), "more"),
            (format!("01-{TRACE}-{SPAN}-01.what"), "dashes"),
            (format!("00-{TRACE}_{SPAN}-01"), "dashes"),
            (format!("00_{TRACE}-{SPAN}-01"), "dashes"),
            (format!("00-{TRACE}-{SPAN}_01"), "dashes"),
            (format!("ff-{TRACE}-{SPAN}-01"), "version ff"),
            (format!("0g-{TRACE}-{SPAN}-01"), "characters"),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), "characters"),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), "characters"),
            (format!("00-{TRACE}-{SPAN}-0A"), "characters"),
            (format!("00-{TRACE}-{}é-01", &SPAN[2..]), "characters"),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), "zero"),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), "zero"),
        ] {
            let error = text.parse::<TraceParent>().expect_err(&text).to_string();
            assert!(error.contains(reason) && !error.contains(TRACE), "{text}: {error}");
        }
        assert_eq!(TraceParent::new([0; 16], [1; 8], 1), None);
        assert_eq!(TraceParent::new([1; 16], [0; 8], 1), None);
    }
}
