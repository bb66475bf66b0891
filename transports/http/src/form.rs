//! A request's body as a form.

use std::fmt;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use postrider_transport::{DeliveryId, Failure, Scope};

use crate::Request;

/// Fields and files as `multipart/form-data` (RFC 7578), for APIs that take no JSON.
///
/// The boundary comes from the delivery's id: the same fields are the same octets at each attempt.
pub struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// An empty form.
    pub fn new(delivery: DeliveryId) -> Self {
        // Unlike the boundaries of a message with the same id, which may be what a part holds.
        Self { boundary: format!("form-{}", delivery.as_uuid().simple()), body: Vec::new() }
    }

    /// Adds a field. A name may come again.
    pub fn field(&mut self, name: &str, value: &str) {
        self.part(&format!("name=\"{}\"", escape(name)), value.as_bytes());
    }

    /// Adds a file, whose content is any octets.
    pub fn file(&mut self, name: &str, file_name: &str, content: &[u8]) {
        let kind = "Content-Type: application/octet-stream";
        self.part(&format!("name=\"{}\"; filename=\"{}\"\r\n{kind}", escape(name), escape(file_name)), content);
    }

    fn part(&mut self, head: &str, content: &[u8]) {
        let head = format!("--{}\r\nContent-Disposition: form-data; {head}\r\n\r\n", self.boundary);
        self.body.reserve(head.len() + content.len() + 2);
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(content);
        self.body.extend_from_slice(b"\r\n");
    }

    /// The request with this body.
    ///
    /// # Errors
    /// When the boundary has no place in a header, which no delivery's id brings about.
    pub fn into_request(mut self, path: impl Into<String>) -> Result<Request, Failure> {
        let content_type = format!("multipart/form-data; boundary={}", self.boundary);
        let content_type = HeaderValue::try_from(content_type)
            .map_err(|_| Failure::permanent(Scope::Message, "the form has no boundary"))?;
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        Ok(Request { path: path.into(), headers: vec![(CONTENT_TYPE, content_type)], body: self.body.into() })
    }
}

/// As browsers do, so that nothing ends a name (RFC 7578 section 2).
fn escape(name: &str) -> String {
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
    fn no_name_breaks_out_of_its_place() {
        let id: DeliveryId = "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00".parse().expect("an id");
        let mut form = Form::new(id);
        form.field("a\"\r\nb", "1\r\n2");
        form.file("f", "x\".txt", b"\0\xff");
        let request = form.into_request("/x").expect("a request");
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
