//! The fields that each provider accepts for a mail, with their names, types and limits, by its specification. Other fields (templates,
//! send times, tracking) are omitted, because no request may have them.

use crate::spec::{NON_EMPTY, Schema, TEXT, optional, required};
use Schema::{Address, Base64, Boolean, List, Mailbox, Mailboxes, Map, Object, OneOf, Quoted, Text, Without};

const ANY: usize = usize::MAX;

const DISPOSITION: Schema = OneOf(&["attachment", "inline"]);

/// `{"email": …, "name": …}`.
const PERSON: Schema = Object(&[required("email", Address), optional("name", TEXT)]);

/// A recipient whose name has a comma or semicolon is dropped after acceptance, unless it is in quotes: the API's limitations;
/// <https://github.com/sendgrid/sendgrid-csharp/issues/268>.
const SENDGRID_RECIPIENT: Schema = Object(&[required("email", Address), optional("name", Quoted(&[',', ';']))]);

/// The `attachments` of <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors>.
const SENDGRID_NAME: Schema = Without(&[';', ',', '\r', '\n']);

/// <https://github.com/twilio/sendgrid-oai/blob/main/spec/json/tsg_mail_v3.json>, `PostMailSend`.
pub(crate) const SENDGRID: Schema = Object(&[
    required(
        "personalizations",
        List(
            1,
            1000,
            &Object(&[
                required("to", List(1, 1000, &SENDGRID_RECIPIENT)),
                optional("cc", List(1, 1000, &SENDGRID_RECIPIENT)),
                optional("bcc", List(1, 1000, &SENDGRID_RECIPIENT)),
                optional("subject", NON_EMPTY),
                optional("headers", Map(&TEXT)),
                optional("custom_args", Map(&TEXT)),
            ]),
        ),
    ),
    required("from", PERSON),
    optional("reply_to", PERSON),
    optional("reply_to_list", List(1, 1000, &PERSON)),
    required("subject", NON_EMPTY),
    required("content", List(1, ANY, &Object(&[required("type", NON_EMPTY), required("value", NON_EMPTY)]))),
    optional(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                required("content", Base64),
                required("filename", SENDGRID_NAME),
                optional("type", SENDGRID_NAME),
                optional("disposition", DISPOSITION),
                optional("content_id", SENDGRID_NAME),
            ]),
        ),
    ),
    optional("headers", Map(&TEXT)),
    optional("categories", List(1, 10, &Text(0, 255))),
    optional("mail_settings", Object(&[optional("sandbox_mode", Object(&[optional("enable", Boolean)]))])),
]);

/// <https://github.com/mailtrap/mailtrap-openapi/blob/main/specs/email-sending-transactional.openapi.yml>, `EmailWithTextAndHtml`.
pub(crate) const MAILTRAP: Schema = Object(&[
    required("from", PERSON),
    optional("to", List(1, 1000, &PERSON)),
    optional("cc", List(1, 1000, &PERSON)),
    optional("bcc", List(1, 1000, &PERSON)),
    optional("reply_to", PERSON),
    required("subject", NON_EMPTY),
    required("text", NON_EMPTY),
    required("html", NON_EMPTY),
    optional("category", Text(0, 255)),
    optional("custom_variables", Map(&TEXT)),
    optional("headers", Map(&TEXT)),
    optional(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                required("content", Base64),
                required("filename", TEXT),
                optional("type", TEXT),
                optional("disposition", DISPOSITION),
                optional("content_id", TEXT),
            ]),
        ),
    ),
]);

/// <https://developers.brevo.com/reference/send-transac-email> and
/// <https://github.com/getbrevo/brevo-python/blob/main/docs/SendSmtpEmail.md>, which is generated from its specification.
pub(crate) const BREVO: Schema = Object(&[
    required("sender", PERSON),
    required("to", List(1, 99, &PERSON)),
    optional("cc", List(1, 99, &PERSON)),
    optional("bcc", List(1, 99, &PERSON)),
    optional("replyTo", PERSON),
    required("subject", NON_EMPTY),
    required("htmlContent", NON_EMPTY),
    optional("textContent", TEXT),
    optional("attachment", List(1, ANY, &Object(&[required("name", NON_EMPTY), required("content", Base64)]))),
    optional("headers", Map(&TEXT)),
    optional("tags", List(1, ANY, &TEXT)),
]);

/// <https://resend.com/docs/api-reference/emails/send-email>, which is generated from <https://github.com/resend/resend-openapi>; the
/// length of tags: <https://resend.com/docs/dashboard/emails/tags>.
pub(crate) const RESEND: Schema = Object(&[
    required("from", Mailbox),
    required("to", List(1, 50, &Mailbox)),
    optional("cc", List(1, ANY, &Mailbox)),
    optional("bcc", List(1, ANY, &Mailbox)),
    optional("reply_to", List(1, ANY, &Mailbox)),
    required("subject", TEXT),
    optional("html", TEXT),
    optional("text", TEXT),
    optional("headers", Map(&TEXT)),
    optional(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                required("content", Base64),
                required("filename", TEXT),
                optional("content_type", TEXT),
                optional("content_id", Text(1, 127)),
            ]),
        ),
    ),
    optional("tags", List(1, ANY, &Object(&[required("name", Text(1, 256)), required("value", Text(1, 256))]))),
]);

/// <https://postmarkapp.com/developer/api/email-api#send-a-single-email>; metadata:
/// <https://postmarkapp.com/support/article/1125-custom-metadata-faq>.
pub(crate) const POSTMARK: Schema = Object(&[
    required("From", Mailbox),
    optional("To", Mailboxes(50)),
    optional("Cc", Mailboxes(50)),
    optional("Bcc", Mailboxes(50)),
    optional("ReplyTo", Mailboxes(ANY)),
    optional("Subject", Text(0, 2000)),
    optional("TextBody", TEXT),
    optional("HtmlBody", TEXT),
    optional("Tag", Text(0, 1000)),
    optional("Metadata", Map(&Text(0, 80))),
    optional("Headers", List(1, ANY, &Object(&[required("Name", NON_EMPTY), required("Value", TEXT)]))),
    optional(
        "Attachments",
        List(
            1,
            ANY,
            &Object(&[
                required("Name", NON_EMPTY),
                required("Content", Base64),
                required("ContentType", NON_EMPTY),
                optional("ContentID", NON_EMPTY),
            ]),
        ),
    ),
    optional("MessageStream", NON_EMPTY),
]);

const MAILJET_PERSON: Schema = Object(&[required("Email", Address), optional("Name", TEXT)]);
const MAILJET_FILE: Schema =
    Object(&[required("ContentType", NON_EMPTY), required("Filename", NON_EMPTY), required("Base64Content", Base64)]);
const MAILJET_INLINED_FILE: Schema = Object(&[
    required("ContentType", NON_EMPTY),
    required("Filename", NON_EMPTY),
    required("Base64Content", Base64),
    optional("ContentID", NON_EMPTY),
]);

/// <https://dev.mailjet.com/email/guides/send-api-v31/> and <https://dev.mailjet.com/email/reference/send-emails/>.
pub(crate) const MAILJET: Schema = Object(&[
    required(
        "Messages",
        List(
            1,
            50,
            &Object(&[
                required("From", MAILJET_PERSON),
                required("To", List(1, 50, &MAILJET_PERSON)),
                optional("Cc", List(1, 50, &MAILJET_PERSON)),
                optional("Bcc", List(1, 50, &MAILJET_PERSON)),
                optional("ReplyTo", MAILJET_PERSON),
                optional("Subject", Text(0, 255)),
                optional("TextPart", TEXT),
                optional("HTMLPart", TEXT),
                optional("Attachments", List(1, 50, &MAILJET_FILE)),
                optional("InlinedAttachments", List(1, 50, &MAILJET_INLINED_FILE)),
                optional("Headers", Map(&TEXT)),
                optional("CustomID", TEXT),
                optional("EventPayload", TEXT),
                optional("CustomCampaign", TEXT),
            ]),
        ),
    ),
    optional("SandboxMode", Boolean),
]);

/// <https://developers.mailersend.com/api/v1/email.html#send-an-email>.
pub(crate) const MAILERSEND: Schema = Object(&[
    required("from", PERSON),
    required("to", List(1, 50, &PERSON)),
    optional("cc", List(1, 10, &PERSON)),
    optional("bcc", List(1, 10, &PERSON)),
    optional("reply_to", PERSON),
    required("subject", Text(1, 998)),
    optional("text", Text(1, 2 * 1024 * 1024)),
    optional("html", Text(1, 2 * 1024 * 1024)),
    optional(
        "attachments",
        List(
            1,
            ANY,
            &Object(&[
                required("content", Base64),
                required("filename", NON_EMPTY),
                optional("disposition", DISPOSITION),
                optional("id", Text(1, 998)),
            ]),
        ),
    ),
    optional("tags", List(1, 5, &Text(1, 191))),
    optional("headers", List(1, ANY, &Object(&[required("name", NON_EMPTY), required("value", NON_EMPTY)]))),
    optional("list_unsubscribe", NON_EMPTY),
]);

/// <https://developers.sparkpost.com/api/transmissions/> and <https://developers.sparkpost.com/api/recipient-lists/>.
pub(crate) const SPARKPOST: Schema = Object(&[
    required(
        "recipients",
        List(
            1,
            ANY,
            &Object(&[
                required(
                    "address",
                    Object(&[required("email", Address), optional("name", TEXT), optional("header_to", TEXT)]),
                ),
                optional("tags", List(1, 10, &TEXT)),
                optional("metadata", Map(&TEXT)),
            ]),
        ),
    ),
    required("content", Object(&[required("email_rfc822", NON_EMPTY)])),
    optional(
        "options",
        Object(&[
            optional("transactional", Boolean),
            optional("perform_substitutions", Boolean),
            optional("sandbox", Boolean),
        ]),
    ),
    optional("metadata", Map(&TEXT)),
    optional("return_path", Address),
]);

/// Names of form fields. An asterisk stands for any ending:
/// <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages/post-v3--domain-name--messages-mime>.
pub(crate) const MAILGUN: [&str; 5] = ["to", "message", "o:tag", "o:testmode", "v:*"];

/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>.
pub(crate) const SES: Schema = Object(&[
    required("Content", Object(&[required("Raw", Object(&[required("Data", Base64)]))])),
    required("Destination", Object(&[required("ToAddresses", List(1, 50, &Address))])),
    optional("FromEmailAddress", Mailbox),
    optional("FeedbackForwardingEmailAddress", Address),
    optional("ConfigurationSetName", NON_EMPTY),
    optional("EmailTags", List(1, 50, &Object(&[required("Name", Text(1, 256)), required("Value", Text(1, 256))]))),
]);
