//! The content of a mail: HTML, text, source, headers and attachments.

use askama::Template;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use postrider_transport::{Email, Encoded, Mailbox, Message, Mime, Outgoing, ReversePath};

use super::App;
use super::deliveries::{back_pair, back_query, cut};
use super::links::{self, Links};
use super::page::{self, Page, Problem};
use super::structure::{self, Part};
use super::{attachment as download, format, frame};
use crate::Delivery;
use crate::store::AdminStore;

/// The longest text or source that a page shows, in characters. The rest can be downloaded.
const LONGEST: usize = 200_000;

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage<'a> {
    page: &'a Page,
    section: &'static str,
    id: String,
    subject: Option<String>,
    /// Why the message cannot be read as a mail.
    malformed: Option<String>,
    headers: Vec<(String, String)>,
    attachments: Vec<AttachmentRow>,
    /// The links of the HTML.
    links: Links,
    /// The size of the source.
    size: Option<String>,
    /// The parts of the source, if they are shown.
    parts: Vec<Part>,
    more_parts: usize,
    views: Vec<View>,
    shown: &'static str,
    /// The text or the source.
    text: String,
    is_cut: bool,
    has_source: bool,
    /// The query that leads back to the list, with an ampersand before it. Empty if there is none.
    back_suffix: String,
}

struct AttachmentRow {
    number: usize,
    name: String,
    content_type: String,
    size: String,
    is_inline: bool,
}

struct View {
    name: &'static str,
    label: &'static str,
}

/// A delivery with the mail in it.
struct Stored {
    delivery: Delivery,
    encoded: Encoded,
    email: Result<Email, String>,
}

impl Stored {
    fn email(&self) -> Result<&Email, Problem> {
        self.email.as_ref().map_err(|_| Problem::Bad("The stored message is not a mail that this program can read."))
    }

    fn outgoing(&self) -> Result<Outgoing<Email>, String> {
        let email = self.email.as_ref().map_err(Clone::clone)?.clone();
        // The time that the relay uses for a mail that was not scheduled.
        Ok(Outgoing::new(self.delivery.id, self.delivery.created_at, email))
    }

    /// The mail as SMTP and SES send it. Other transports send the same content in their own form.
    fn source(&self) -> Result<Vec<u8>, String> {
        Mime::new().render(&self.outgoing()?).map_err(|error| error.to_string())
    }
}

async fn read<S: AdminStore>(app: &App<S>, page: &Page, params: &RawPathParams) -> Result<Stored, Problem> {
    if !page.can_see_bodies {
        return Err(Problem::NoBodies);
    }
    let id = page::delivery_id(params)?;
    let (delivery, encoded) = app.reader.message(id).await?.ok_or(Problem::NoDelivery)?;
    let encoded = encoded.ok_or(Problem::NoMessage)?;
    let email = Email::decode(&encoded).map_err(|error| error.to_string());
    Ok(Stored { delivery, encoded, email })
}

pub(super) async fn show<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let stored = read(&app, &page, &params).await?;
    Ok(page::render(&message_page(&page, &stored, query.as_deref())))
}

fn message_page<'a>(page: &'a Page, stored: &Stored, query: Option<&str>) -> MessagePage<'a> {
    let email = stored.email.as_ref().ok();
    let mut views = Vec::new();
    if let Some(email) = email {
        views.extend(email.html().map(|_| View { name: "html", label: "HTML" }));
        views.extend(email.text().map(|_| View { name: "text", label: "Text" }));
        views.push(View { name: "structure", label: "Structure" });
        views.push(View { name: "source", label: "Source" });
    }
    views.push(View { name: "stored", label: "Stored form" });
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let wanted = pairs.into_iter().find(|(name, _)| name == "show").map(|(_, value)| value);
    let shown = views.iter().find(|view| wanted.as_deref() == Some(view.name)).or(views.first());
    let shown = shown.map_or("stored", |view| view.name);
    // Rendering the source takes long, so only the views that need it do so.
    let source = email.filter(|_| matches!(shown, "structure" | "source")).map(|_| stored.source());
    let is_simple = email.is_some_and(structure::is_simple);
    let (parts, more_parts) = match &source {
        Some(Ok(source)) if shown == "structure" && is_simple => structure::parts(source),
        _ => Default::default(),
    };
    let text = match (shown, email, &source) {
        ("html", ..) => String::new(),
        ("text", Some(email), _) => email.text().unwrap_or_default().to_owned(),
        ("structure", _, Some(Ok(_))) if is_simple => String::new(),
        ("structure", _, Some(Ok(_))) => {
            "A large message or multipart is attached. Its parts are not shown.".to_owned()
        }
        ("source", _, Some(Ok(source))) => String::from_utf8_lossy(source).replace("\r\n", "\n"),
        ("structure" | "source", _, Some(Err(error))) => error.clone(),
        _ => stored_form(&stored.encoded),
    };
    let back = back_query(query);
    MessagePage {
        page,
        section: "deliveries",
        id: stored.delivery.id.to_string(),
        subject: page::subject(&stored.delivery),
        malformed: stored.email.as_ref().err().cloned(),
        headers: email.map(|email| headers(&stored.delivery, email)).unwrap_or_default(),
        attachments: email.map(attachments).unwrap_or_default(),
        links: email.filter(|_| shown == "html").and_then(Email::html).map(links::list).unwrap_or_default(),
        size: source.and_then(Result::ok).map(|source| format::size(source.len())),
        parts,
        more_parts,
        views,
        shown,
        is_cut: text.chars().nth(LONGEST).is_some(),
        text: cut(&text, LONGEST),
        has_source: email.is_some(),
        back_suffix: back.as_deref().map(|back| format!("&{}", back_pair(back))).unwrap_or_default(),
    }
}

/// The stored form, with the texts that stand beside the body.
fn stored_form(encoded: &Encoded) -> String {
    let body = serde_json::from_str::<serde_json::Value>(&encoded.body);
    let body = body.and_then(|body| serde_json::to_string_pretty(&body)).unwrap_or_else(|_| encoded.body.clone());
    let mut out = format!("Format: {}\n\n{body}\n", encoded.format);
    for (name, text) in [("Text", &encoded.text), ("HTML", &encoded.html)] {
        if let Some(text) = text {
            out.push_str(&format!("\n{name}:\n{text}\n"));
        }
    }
    out
}

fn mailbox(mailbox: &Mailbox) -> String {
    match mailbox.name() {
        Some(name) => format!("{name} <{}>", mailbox.address().as_str()),
        None => mailbox.address().as_str().to_owned(),
    }
}

fn headers(delivery: &Delivery, email: &Email) -> Vec<(String, String)> {
    let list = |mailboxes: &[Mailbox]| mailboxes.iter().map(mailbox).collect::<Vec<_>>().join(", ");
    let envelope = match email.envelope_from() {
        Some(ReversePath::Null) => "<> (no bounces)".to_owned(),
        _ => email.reverse_path().map(|address| address.as_str().to_owned()).unwrap_or_default(),
    };
    let message_id = Outgoing::new(delivery.id, delivery.created_at, email.clone()).message_id();
    let fixed = [
        ("From", mailbox(email.from())),
        ("Sender", email.sender().map(mailbox).unwrap_or_default()),
        ("Reply-To", list(email.reply_to())),
        ("To", list(email.to())),
        ("Cc", list(email.cc())),
        ("Bcc (in no header)", list(email.bcc())),
        ("Subject", email.subject().to_owned()),
        ("Envelope sender", envelope),
        ("Message-ID", message_id),
        ("List-Unsubscribe", email.list_unsubscribe().map(|list| list.header_value()).unwrap_or_default()),
    ];
    let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
    let custom = email.headers().iter().map(|header| (header.name().to_owned(), header.value().to_owned()));
    let tags = email.tags().iter().map(|tag| ("Tag".to_owned(), tag.clone()));
    let metadata = email.metadata().iter().map(|(key, value)| (format!("Metadata {key}"), value.clone()));
    let all = fixed.chain(custom).chain(tags).chain(metadata).filter(|(_, value)| !value.is_empty());
    all.map(|(name, value)| (name, cut(&value, 4_000))).collect()
}

fn attachments(email: &Email) -> Vec<AttachmentRow> {
    let rows = email.attachments().iter().enumerate().map(|(index, attachment)| AttachmentRow {
        number: index + 1,
        name: cut(attachment.file_name(), 200),
        content_type: cut(attachment.content_type(), 100),
        size: format::size(attachment.content().len()),
        is_inline: attachment.content_id().is_some(),
    });
    rows.collect()
}

/// The document of the frame.
pub(super) async fn html<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
) -> Result<Response, Problem> {
    let stored = read(&app, &page, &params).await?;
    let email = stored.email()?;
    let document = frame::document(email.html().ok_or(Problem::NoPage)?, email.attachments());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(frame::POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_DNS_PREFETCH_CONTROL, HeaderValue::from_static("off")),
    ];
    Ok((headers, document).into_response())
}

/// The source as a file.
pub(super) async fn source<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
) -> Result<Response, Problem> {
    let stored = read(&app, &page, &params).await?;
    let source = stored.source().map_err(|_| Problem::Bad("The message has no form that SMTP could send."))?;
    Ok((download::headers(&format!("{}.eml", stored.delivery.id)), source).into_response())
}

pub(super) async fn attachment<S: AdminStore>(
    State(app): State<App<S>>,
    page: Page,
    params: RawPathParams,
) -> Result<Response, Problem> {
    let stored = read(&app, &page, &params).await?;
    let number = page::param(&params, "attachment").and_then(|number| number.parse::<usize>().ok());
    let index = number.and_then(|number| number.checked_sub(1)).ok_or(Problem::NoPage)?;
    let found = stored.email()?.attachments().get(index).ok_or(Problem::NoPage)?;
    Ok((download::headers(found.file_name()), found.content().to_vec()).into_response())
}
