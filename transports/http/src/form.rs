//! Multipart form bodies.

use std::fmt;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use postrider_transport::{DeliveryId, Failure, Scope};

use crate::Request;

/// A body in `multipart/form-data` (RFC 7578), for APIs that do not accept JSON.
///
/// The boundary is derived from the delivery id, so the same fields give the same octets at each attempt.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// Creates an empty form.
    pub fn new(delivery: DeliveryId) -> Self {
        // Differs from the boundaries of the MIME message, which a part may contain.
        Self { boundary: format!("form-{}", delivery.as_uuid().simple()), body: Vec::new() }
    }

    /// Adds a field. Several fields may have the same name.
    pub fn add_field(&mut self, name: &str, value: &str) {
        self.add_part(&format!("name=\"{}\"", escape_name(name)), value.as_bytes());
    }

    /// Adds a file with any content.
    pub fn add_file(&mut self, name: &str, file_name: &str, content: &[u8]) {
        let content_type = "Content-Type: application/octet-stream";
        self.add_part(
            &format!("name=\"{}\"; filename=\"{}\"\r\n{content_type}", escape_name(name), escape_name(file_name)),
            content,
        );
    }

    fn add_part(&mut self, head: &str, content: &[u8]) {
        let head = format!("--{}\r\nContent-Disposition: form-data; {head}\r\n\r\n", self.boundary);
        self.body.reserve(head.len() + content.len() + 2);
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
    }

    /// Converts the form into a request.
    ///
    /// # Errors
    /// If the boundary is not a valid header value. This does not occur with any delivery id.
    pub fn into_request(mut self, path: impl Into<String>) -> Result<Request, Failure> {
        let content_type = format!("multipart/form-data; boundary={}", self.boundary);
        let content_type = HeaderValue::try_from(content_type)
            .map_err(|_| Failure::permanent(Scope::Message, "the form has an invalid boundary"))?;
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        Ok(Request { path: path.into(), headers: vec![(CONTENT_TYPE, content_type)], body: self.body.into() })
    }
}

/// Escapes a name as browsers do, so that no character ends it early (RFC 7578 section 2).
fn escape_name(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} bytes)", self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_file_names_are_escaped() {
        let id: DeliveryId = "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00".parse().expect("a valid id");
        let mut form = Form::new(id);
        form.add_field("a\"\r\nb", "1\r\n2");
        form.add_file("f", "x\".txt", b"\0\xff");
        let request = form.into_request("/x").expect("a valid form");
        let boundary = "form-0193f0a17e647cc18f6b3d2f1a5b9c00";
        let mut expected = Vec::new();
        for octets in [
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"a%22%0D%0Ab\"\r\n\r\n1\r\n2\r\n")
                .as_bytes(),
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x%22.txt\"\r\n").as_bytes(),
            b"Content-Type: application/octet-stream\r\n\r\n\0\xff\r\n",
            format!("--{boundary}--\r\n").as_bytes(),
        ] {
            expected.extend_from_slice(octets);
        }
        assert_eq!(request.body().as_ref(), expected);
        assert_eq!(request.headers[0].1, format!("multipart/form-data; boundary={boundary}"));
    }
}
