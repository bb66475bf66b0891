//! Texts that try to become part of a page.

use postrider::store::{AuditContext, NewRow};
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Attachment, Encoded, Message, Recipient};
use postrider::{AdminStore, Change, DeliveryId, Email, Failure, Outbox, PauseTarget, Scope, Store, UpdateOutcome};

use crate::fixture::mail;
use crate::site::Site;

/// Texts for subjects, names, replies and file names. Each would call `pwned` if it became markup or script.
pub(crate) const TEXTS: [&str; 24] = [
    "<script>pwned()</script>",
    "</title><script>pwned()</script>",
    "</textarea><script>pwned()</script>",
    "</pre></bdi><img src=x onerror=pwned()>",
    "\"><img src=x onerror=pwned()>",
    "'><img src=x onerror=pwned()>",
    "\" autofocus onfocus=pwned() x=\"",
    "' onmouseover='pwned()' x='",
    "javascript:pwned()",
    "<svg onload=pwned()>",
    "<svg><animate onbegin=pwned() attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.pwned()</script>'>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned()>",
    "<!--><img src=x onerror=pwned()>-->",
    "<![CDATA[<img src=x onerror=pwned()>]]>",
    "<details open ontoggle=pwned()>",
    "<a href=\"javascript:pwned()\" autofocus>x</a>",
    "<base href=//evil.invalid/><form action=//evil.invalid>",
    "{{ 7 * 7 }}{% if true %}pwned{% endif %}",
    "&lt;img src=x onerror=pwned()&gt;",
    "%3Cscript%3Epwned()%3C/script%3E",
    "\u{202e}<tpircs>",
    "\u{ff1c}script\u{ff1e}pwned()\u{ff1c}/script\u{ff1e}",
    "<style>*{background:url(//evil.invalid)}</style><link rel=stylesheet href=//evil.invalid>",
];

/// A delivery that has the text wherever somebody else decides about a text.
pub(crate) async fn plant(site: &Site, text: &str) -> DeliveryId {
    let name = text.replace(['<', '>', '@', ',', ';', '"'], "");
    let file = Attachment::new(text, "text/plain", text.as_bytes().to_vec()).unwrap();
    let builder = mail().subject(text).text(text).html(text).attach(file).header("X-Hostile", text).metadata("m", text);
    let email: Email = builder.from(format!("\"{name}\" <shop@example.com>")).build().unwrap();
    let id = DeliveryId::new();
    let recipient = Recipient::new(format!("{text}@example.com"));
    let mut row = NewRow::new(id, email.encode().unwrap(), vec![recipient]);
    row.summary = email.summary().with_tags(vec![text.to_owned()]);
    row.template_id = Some(text.to_owned());
    row.key = Some(text.to_owned());
    site.outbox.store().insert(vec![row]).await.unwrap();
    id
}

/// Acts with a name, a note and targets that have the text: each field of the audit trail and of the pauses.
pub(crate) async fn act(site: &Site, text: &str, id: DeliveryId) {
    let operator = site.outbox.operator(text).note(text);
    assert_eq!(operator.change(Change::Resend, id).await.unwrap(), UpdateOutcome::Updated);
    assert_eq!(operator.change(Change::Cancel, id).await.unwrap(), UpdateOutcome::Updated);
    let text = || text.to_owned();
    let sender = PauseTarget::Sender(format!("{text}@example.com", text = text()));
    for target in [PauseTarget::Transport(text()), PauseTarget::Template(text())] {
        assert!(operator.pause(target).await.unwrap());
    }
    // An operator cannot pause what is no address, but a row of the database can have it.
    let context = AuditContext::by(&text()).note(&text());
    assert!(site.outbox.store().set_pause(&sender, true, &context).await.unwrap());
}

/// A query with the text as the value of each name.
pub(crate) fn query(names: &[&str], text: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(names.iter().map(|name| (*name, text))).finish()
}

/// Ends all planted deliveries with replies that have the text.
pub(crate) async fn fail(site: &Site, text: &str) {
    let reply = text.to_owned();
    let transport = ScriptedTransport::<Encodable>::new().with_handler(move |_| {
        let reply = reply.clone();
        async move { Err(Failure::permanent(Scope::Message, reply.clone()).with_reply(reply)) }
    });
    Outbox::new(site.outbox.store().clone(), transport).relay().drain().await.unwrap();
}

/// Reads any stored message, and accepts any recipient.
#[derive(Clone)]
pub(crate) struct Encodable(Encoded);

impl Message for Encodable {
    fn encode(&self) -> Result<Encoded, postrider::transport::CodecError> {
        Ok(self.0.clone())
    }

    fn decode(encoded: &Encoded) -> Result<Self, postrider::transport::CodecError> {
        Ok(Self(encoded.clone()))
    }

    fn recipients(&self) -> Vec<Recipient> {
        Vec::new()
    }
}

#[tokio::test]
async fn hostile_texts_are_texts_on_every_page() {
    for text in TEXTS {
        let site = Site::new();
        let id = plant(&site, text).await;
        fail(&site, text).await;
        assert_eq!(site.outbox.get(id).await.unwrap().unwrap().state, postrider::State::Dead, "{text}");
        act(&site, text, id).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        // Markup that a page can have only from the text.
        let markup = [
            "<script>",
            "<img",
            "<svg o",
            "<svg>",
            "<math",
            "<base",
            "<details o",
            "<!-->",
            "onerror=\"",
            "<style",
            "<tpircs",
        ];
        let check = |page: &str, place: &str| {
            let page = page.replace("<details class", "").replace("<details id", "");
            let found: Vec<_> = markup.iter().filter(|markup| page.contains(**markup)).collect();
            assert!(found.is_empty(), "{text} became {found:?} on {place}: {page}");
            assert!(!page.contains("\" autofocus") && !page.contains("href=\"javascript"), "{text} on {place}");
        };
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("subject", text).finish();
        for path in [
            "/overview".to_owned(),
            "/deliveries".to_owned(),
            format!("/deliveries?{query}"),
            format!("/deliveries?{}&since=x", query.replace("subject", "error")),
            format!("/deliveries/{id}"),
            format!("/deliveries/{id}?back={query}&done={}", query.replace("subject=", "")),
            format!("/deliveries/{id}/resend"),
            format!("/deliveries/{id}/cancel"),
            format!("/deliveries/{id}/message?show=html"),
            format!("/deliveries/{id}/message?show=text"),
            format!("/deliveries/{id}/message?show=source"),
            format!("/deliveries/{id}/message?show=structure"),
            format!("/deliveries/{id}/message?show=stored"),
            format!("/bulk/resend?state=cancelled&{}", self::query(&["subject"], text)),
            "/bulk/resend?state=cancelled".to_owned(),
            "/pauses".to_owned(),
            format!("/pauses?{}", self::query(&["kind", "name", "done"], text)),
            "/audit".to_owned(),
            format!("/audit?{}", self::query(&["operator"], text)),
            format!("/audit?{}", self::query(&["action", "id", "before"], text)),
        ] {
            let reply = site.get(&path).await;
            check(reply.text(), &path);
        }
        // What a bulk change and a refused pause answer.
        let confirmation = site.form("/bulk/resend?state=cancelled").await;
        let done = site.press("/bulk/resend", &confirmation, &[("note", text)]).await;
        assert!(done.text().contains("Done: 1 pending again."), "{text}: {}", done.text());
        check(done.text(), "the end of a bulk change");
        let filled = [("kind", text), ("name", text), ("note", text)];
        let refused = site.press("/pauses/pause", &site.form("/pauses").await, &filled).await;
        check(refused.text(), "a refused pause");
        // The control: the text is there, escaped.
        let escaped = text
            .replace('&', "&#38;")
            .replace('<', "&#60;")
            .replace('>', "&#62;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;");
        for path in [format!("/deliveries/{id}"), "/pauses".to_owned(), "/audit".to_owned()] {
            assert!(site.page(&path).await.contains(&escaped), "{text} on {path}");
        }
    }
}

#[tokio::test]
async fn a_relay_cannot_bring_markup_through_its_pause() {
    let site = Site::new();
    let report = postrider::store::RelayReport::new(postrider::store::RelayId::new(), 0, Some(TEXTS[0].to_owned()));
    site.outbox.store().report(&report).await.unwrap();
    let page = site.page("/overview").await;
    assert!(page.contains("&#60;script&#62;pwned") && !page.contains("<script>"), "{page}");
}
