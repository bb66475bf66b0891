//! The fields that each provider accepts for a mail, with their names, types and limits, by its specification. Other fields (templates,
//! send times, tracking) are omitted, because no request may have them.

use crate::spec::{Form, SOME_TEXT, TEXT, may, must};
use Form::{Address, Base64, Flag, List, Mailbox, Mailboxes, Map, Object, OneOf, Quoted, Text, Without};

const ANY: usize = usize::MAX;

const DISPOSITION: Form = OneOf(&["attachment", "inline"]);

/// `{"email": …, "name": …}`.
const PERSON: Form = Object(&[must("email", Address), may("name", TEXT)]);

/// A recipient whose name has a comma or semicolon is dropped after acceptance, unless it is in quotes: the API's limitations;
/// <https://github.com/sendgrid/sendgrid-csharp/issues/268>.
const SENDGRID_RECIPIENT: Form = Object(&[must("email", Address), may("name", Quoted(&[',', ';']))]);

/// The `attachments` of <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>.
const SENDGRID_NAME: Form = Without(&[';', ',', '\r', '\n']);

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>, `PostMailSend`.
pub(crate) const SENDGRID: Form = Object(&[
    must(
        "personalizations",
        List(
            1,
            1000,
            &Object(&[
                must("to", List(1, 1000, &SENDGRID_RECIPIENT)),
                may("cc", List(1, 1000, &SENDGRID_RECIPIENT)),
                may("bcc", List(1, 1000, &SENDGRID_RECIPIENT)),
                may("subject", SOME_TEXT),
                may("headers", Map(&TEXT)),
                may("custom_args", Map(&TEXT)),
            ]),
        ),
    ),
    must("from", PERSON),
    may("reply_to", PERSON),
    may("reply_to_list", List(1, 1000, &PERSON)),
    must("subject", SOME_TEXT),
    must("content", List(1, ANY, &Object(&[must("type", SOME_TEXT), must("value", SOME_TEXT)]))),
    may(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                must("content", Base64),
                must("filename", SENDGRID_NAME),
                may("type", SENDGRID_NAME),
                may("disposition", DISPOSITION),
                may("content_id", SENDGRID_NAME),
            ]),
        ),
    ),
    may("headers", Map(&TEXT)),
    may("categories", List(1, 10, &Text(0, 255))),
    may("mail_settings", Object(&[may("sandbox_mode", Object(&[may("enable", Flag)]))])),
]);

/// <https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/email-sending-transactional.openapi.yml>, `EmailWithTextAndHtml`.
pub(crate) const MAILTRAP: Form = Object(&[
    must("from", PERSON),
    may("to", List(1, 1000, &PERSON)),
    may("cc", List(1, 1000, &PERSON)),
    may("bcc", List(1, 1000, &PERSON)),
    may("reply_to", PERSON),
    must("subject", SOME_TEXT),
    must("text", SOME_TEXT),
    must("html", SOME_TEXT),
    may("category", Text(0, 255)),
    may("custom_variables", Map(&TEXT)),
    may("headers", Map(&TEXT)),
    may(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                must("content", Base64),
                must("filename", TEXT),
                may("type", TEXT),
                may("disposition", DISPOSITION),
                may("content_id", TEXT),
            ]),
        ),
    ),
]);

/// <https://developers.brevo.com/reference/send-transac-email> and
/// <https://github.com/getbrevo/brevo-python/blob/main/docs/SendSmtpEmail.md>, which is made of its specification.
pub(crate) const BREVO: Form = Object(&[
    must("sender", PERSON),
    must("to", List(1, 99, &PERSON)),
    may("cc", List(1, 99, &PERSON)),
    may("bcc", List(1, 99, &PERSON)),
    may("replyTo", PERSON),
    must("subject", SOME_TEXT),
    must("htmlContent", SOME_TEXT),
    may("textContent", TEXT),
    may("attachment", List(1, ANY, &Object(&[must("name", SOME_TEXT), must("content", Base64)]))),
    may("headers", Map(&TEXT)),
    may("tags", List(1, ANY, &TEXT)),
]);

/// <https://resend.com/docs/api-reference/emails/send-email>, which is made of <https://github.com/resend/resend-openapi>; the length of
/// tags: <https://resend.com/docs/dashboard/emails/tags>.
pub(crate) const RESEND: Form = Object(&[
    must("from", Mailbox),
    must("to", List(1, 50, &Mailbox)),
    may("cc", List(1, ANY, &Mailbox)),
    may("bcc", List(1, ANY, &Mailbox)),
    may("reply_to", List(1, ANY, &Mailbox)),
    must("subject", TEXT),
    may("html", TEXT),
    may("text", TEXT),
    may("headers", Map(&TEXT)),
    may(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                must("content", Base64),
                must("filename", TEXT),
                may("content_type", TEXT),
                may("content_id", Text(1, 127)),
            ]),
        ),
    ),
    may("tags", List(1, ANY, &Object(&[must("name", Text(1, 256)), must("value", Text(1, 256))]))),
]);

/// <https://postmarkapp.com/developer/api/email-api#send-a-single-email>; metadata:
/// <https://postmarkapp.com/support/article/1125-custom-metadata-faq>.
pub(crate) const POSTMARK: Form = Object(&[
    must("From", Mailbox),
    may("To", Mailboxes(50)),
    may("Cc", Mailboxes(50)),
    may("Bcc", Mailboxes(50)),
    may("ReplyTo", Mailboxes(ANY)),
    may("Subject", Text(0, 2000)),
    may("TextBody", TEXT),
    may("HtmlBody", TEXT),
    may("Tag", Text(0, 1000)),
    may("Metadata", Map(&Text(0, 80))),
    may("Headers", List(1, ANY, &Object(&[must("Name", SOME_TEXT), must("Value", TEXT)]))),
    may(
        "Attachments",
        List(
            1,
            ANY,
            &Object(&[
                must("Name", SOME_TEXT),
                must("Content", Base64),
                must("ContentType", SOME_TEXT),
                may("ContentID", SOME_TEXT),
            ]),
        ),
    ),
    may("MessageStream", SOME_TEXT),
]);

const MAILJET_PERSON: Form = Object(&[must("Email", Address), may("Name", TEXT)]);
const MAILJET_FILE: Form =
    Object(&[must("ContentType", SOME_TEXT), must("Filename", SOME_TEXT), must("Base64Content", Base64)]);
const MAILJET_INLINED_FILE: Form = Object(&[
    must("ContentType", SOME_TEXT),
    must("Filename", SOME_TEXT),
    must("Base64Content", Base64),
    may("ContentID", SOME_TEXT),
]);

/// <https://dev.mailjet.com/email/guides/send-api-v31/> and <https://dev.mailjet.com/email/reference/send-emails/>.
pub(crate) const MAILJET: Form = Object(&[
    must(
        "Messages",
        List(
            1,
            50,
            &Object(&[
                must("From", MAILJET_PERSON),
                must("To", List(1, 50, &MAILJET_PERSON)),
                may("Cc", List(1, 50, &MAILJET_PERSON)),
                may("Bcc", List(1, 50, &MAILJET_PERSON)),
                may("ReplyTo", MAILJET_PERSON),
                may("Subject", Text(0, 255)),
                may("TextPart", TEXT),
                may("HTMLPart", TEXT),
                may("Attachments", List(1, 50, &MAILJET_FILE)),
                may("InlinedAttachments", List(1, 50, &MAILJET_INLINED_FILE)),
                may("Headers", Map(&TEXT)),
                may("CustomID", TEXT),
                may("EventPayload", TEXT),
                may("CustomCampaign", TEXT),
            ]),
        ),
    ),
    may("SandboxMode", Flag),
]);

/// <https://developers.mailersend.com/api/v1/email.html#send-an-email>.
pub(crate) const MAILERSEND: Form = Object(&[
    must("from", PERSON),
    must("to", List(1, 50, &PERSON)),
    may("cc", List(1, 10, &PERSON)),
    may("bcc", List(1, 10, &PERSON)),
    may("reply_to", PERSON),
    must("subject", Text(1, 998)),
    may("text", Text(1, 2 * 1024 * 1024)),
    may("html", Text(1, 2 * 1024 * 1024)),
    may(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                must("content", Base64),
                must("filename", SOME_TEXT),
                may("disposition", DISPOSITION),
                may("id", Text(1, 998)),
            ]),
        ),
    ),
    may("tags", List(1, 5, &Text(1, 191))),
    may("headers", List(1, ANY, &Object(&[must("name", SOME_TEXT), must("value", SOME_TEXT)]))),
    may("list_unsubscribe", SOME_TEXT),
]);

/// <https://developers.sparkpost.com/api/transmissions/> and <https://developers.sparkpost.com/api/recipient-lists/>.
pub(crate) const SPARKPOST: Form = Object(&[
    must(
        "recipients",
        List(
            1,
            ANY,
            &Object(&[
                must("address", Object(&[must("email", Address), may("name", TEXT), may("header_to", TEXT)])),
                may("tags", List(1, 10, &TEXT)),
                may("metadata", Map(&TEXT)),
            ]),
        ),
    ),
    must("content", Object(&[must("email_rfc822", SOME_TEXT)])),
    may("options", Object(&[may("transactional", Flag), may("perform_substitutions", Flag), may("sandbox", Flag)])),
    may("metadata", Map(&TEXT)),
    may("return_path", Address),
]);

/// Names of form fields. An asterisk stands for any ending:
/// <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages/post-v3--domain-name--messages-mime>.
pub(crate) const MAILGUN: [&str; 5] = ["to", "message", "o:tag", "o:testmode", "v:*"];

/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>.
pub(crate) const SES: Form = Object(&[
    must("Content", Object(&[must("Raw", Object(&[must("Data", Base64)]))])),
    must("Destination", Object(&[must("ToAddresses", List(1, 50, &Address))])),
    may("FromEmailAddress", Mailbox),
    may("FeedbackForwardingEmailAddress", Address),
    may("ConfigurationSetName", SOME_TEXT),
    may("EmailTags", List(1, 50, &Object(&[must("Name", Text(1, 256)), must("Value", Text(1, 256))]))),
]);
