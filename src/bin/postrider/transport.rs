//! Making the transport that a URL names, with what this build knows.

use std::pin::Pin;
use std::time::Duration;

use postrider::transport::{Failover, Redirect, RoundRobin, Timeout};
use postrider::{BoxTransport, Email};

use crate::combined::{self, Plan};
use crate::fail::Fail;
use crate::schemes::{self, Scheme};
use crate::signing::Signer;

const SCHEMES: &[Scheme] = &[
    Scheme::new("smtp", "smtp", cfg!(feature = "smtp")),
    Scheme::new("smtps", "smtp", cfg!(feature = "smtp")),
    Scheme::new("ses", "ses", cfg!(feature = "ses")),
    Scheme::new("sendgrid", "sendgrid", cfg!(feature = "sendgrid")),
    Scheme::new("mailgun", "mailgun", cfg!(feature = "mailgun")),
    Scheme::new("postmark", "postmark", cfg!(feature = "postmark")),
    Scheme::new("resend", "resend", cfg!(feature = "resend")),
    Scheme::new("brevo", "brevo", cfg!(feature = "brevo")),
    Scheme::new("mailjet", "mailjet", cfg!(feature = "mailjet")),
    Scheme::new("sparkpost", "sparkpost", cfg!(feature = "sparkpost")),
    Scheme::new("mailersend", "mailersend", cfg!(feature = "mailersend")),
    Scheme::new("mailtrap", "mailtrap", cfg!(feature = "mailtrap")),
];

/// The connections that a transport keeps, to be told goodbye at the end.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    #[cfg(feature = "smtp")]
    smtp: Vec<postrider::smtp::Smtp>,
}

impl Connections {
    /// Says QUIT on those that wait (RFC 5321 section 4.1.1.10). It takes no longer than a moment.
    pub(crate) async fn close(self) {
        #[cfg(feature = "smtp")]
        {
            /// How long the servers are given to answer.
            const LIMIT: Duration = Duration::from_secs(2);

            let mut closing = tokio::task::JoinSet::new();
            for smtp in self.smtp {
                closing.spawn(async move { smtp.close().await });
            }
            // What does not answer is closed all the same.
            let _ = tokio::time::timeout(LIMIT, closing.join_all()).await;
        }
    }
}

/// The transport that is written there, each part of it for so many messages at once and, with a signer, signing; and its connections.
pub(crate) async fn open(
    text: Option<&str>,
    concurrency: usize,
    signer: Option<&Signer>,
) -> Result<(BoxTransport<Email>, Connections), Fail> {
    let mut connections = Connections::default();
    match combined::read(text.unwrap_or_default()) {
        Ok(plan) => Ok((carry_out(plan, Each { concurrency, signer }, &mut connections).await?, connections)),
        Err(error) => Err(Fail::usage(format!("the transport: {error}"))),
    }
}

/// What goes for each part.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "smtp"), allow(dead_code, reason = "only SMTP has connections to count"))]
struct Each<'a> {
    concurrency: usize,
    signer: Option<&'a Signer>,
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<BoxTransport<Email>, Fail>> + Send + 'a>>;

fn carry_out<'a>(plan: Plan<'a>, each: Each<'a>, connections: &'a mut Connections) -> Opening<'a> {
    Box::pin(async move {
        Ok(match plan {
            Plan::Url(url) => single(url, each, connections).await?,
            Plan::Part(number, url) => single(url, each, connections)
                .await
                .map_err(|fail| fail.of(&format!("the transport's URL number {number}")))?,
            Plan::Failover(plans) => {
                let mut failover = Failover::new(carry_out(*plans.first, each, connections).await?);
                for plan in plans.more {
                    failover = failover.or(carry_out(plan, each, connections).await?);
                }
                BoxTransport::new(failover)
            }
            Plan::RoundRobin(shares) => {
                let (weight, plan) = *shares.first;
                let mut round_robin = RoundRobin::new(carry_out(plan, each, connections).await?, weight);
                for (weight, plan) in shares.more {
                    round_robin = round_robin.and(carry_out(plan, each, connections).await?, weight);
                }
                BoxTransport::new(round_robin)
            }
            Plan::Redirect(to, plan) => {
                BoxTransport::new(Redirect::new(carry_out(*plan, each, connections).await?, to))
            }
            Plan::Timeout(limit, plan) => {
                BoxTransport::new(Timeout::new(carry_out(*plan, each, connections).await?, limit))
            }
            Plan::RateLimit(messages, period, plan) => {
                limited(carry_out(*plan, each, connections).await?, messages, period)?
            }
        })
    })
}

#[cfg(feature = "rate-limit")]
fn limited(transport: BoxTransport<Email>, messages: u32, period: Duration) -> Result<BoxTransport<Email>, Fail> {
    Ok(BoxTransport::new(postrider::transport::RateLimit::new(transport, messages, period)))
}

#[cfg(not(feature = "rate-limit"))]
fn limited(_: BoxTransport<Email>, _: u32, _: Duration) -> Result<BoxTransport<Email>, Fail> {
    Err(Fail::usage("rate-limit(…) needs the feature `rate-limit`, and this postrider was built without it"))
}

/// The transport for a URL.
#[cfg_attr(not(feature = "smtp"), allow(unused_variables, reason = "only SMTP has connections to count"))]
async fn single(url: &str, each: Each<'_>, connections: &mut Connections) -> Result<BoxTransport<Email>, Fail> {
    let (scheme, url) = schemes::find("transport", "--transport URL, or set TRANSPORT_URL", SCHEMES, Some(url))?;
    if each.signer.is_some() && !matches!(scheme.feature, "smtp" | "ses") {
        let name = scheme.name;
        return Err(Fail::usage(format!("{name}:// cannot sign by --dkim-domain: the provider signs mail by itself")));
    }
    match scheme.feature {
        #[cfg(feature = "smtp")]
        "smtp" => smtp(url, each, connections),
        #[cfg(feature = "ses")]
        "ses" => ses(url, each).await,
        #[cfg(feature = "brevo")]
        "brevo" => http::<postrider::http::Brevo>(url),
        #[cfg(feature = "mailgun")]
        "mailgun" => http::<postrider::http::Mailgun>(url),
        #[cfg(feature = "postmark")]
        "postmark" => http::<postrider::http::Postmark>(url),
        #[cfg(feature = "resend")]
        "resend" => http::<postrider::http::Resend>(url),
        #[cfg(feature = "sendgrid")]
        "sendgrid" => http::<postrider::http::SendGrid>(url),
        #[cfg(feature = "mailjet")]
        "mailjet" => http::<postrider::http::Mailjet>(url),
        #[cfg(feature = "mailersend")]
        "mailersend" => http::<postrider::http::MailerSend>(url),
        #[cfg(feature = "mailtrap")]
        "mailtrap" => http::<postrider::http::Mailtrap>(url),
        #[cfg(feature = "sparkpost")]
        "sparkpost" => http::<postrider::http::SparkPost>(url),
        _ => Err(scheme.lacking()),
    }
}

#[cfg(feature = "smtp")]
fn smtp(url: &str, each: Each<'_>, connections: &mut Connections) -> Result<BoxTransport<Email>, Fail> {
    use postrider::smtp::{Smtp, SmtpConfigError};

    let wrong = |error: SmtpConfigError| Fail::usage(format!("the transport: {}", crate::fail::chain(&error)));
    // A connection for each message that is sent at once, unless the URL wants it otherwise.
    let pool = url.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair.starts_with("pool=")));
    let mut builder = Smtp::builder_from_url(url).map_err(wrong)?;
    if !pool {
        builder = builder.max_connections(each.concurrency);
    }
    #[cfg(feature = "dkim")]
    if let Some(signer) = each.signer {
        builder = builder.dkim(signer.clone());
    }
    let smtp = builder.build().map_err(wrong)?;
    connections.smtp.push(smtp.clone());
    Ok(BoxTransport::new(smtp))
}

/// What the URL leaves out is the environment's.
#[cfg(feature = "ses")]
#[cfg_attr(not(feature = "dkim"), allow(unused_variables, unused_mut, reason = "there is nothing to add"))]
async fn ses(url: &str, each: Each<'_>) -> Result<BoxTransport<Email>, Fail> {
    let wrong = |error| Fail::usage(format!("the transport: {}", crate::fail::chain(&error)));
    let mut builder = postrider::ses::Ses::builder_from_url(url).await.map_err(wrong)?;
    #[cfg(feature = "dkim")]
    if let Some(signer) = each.signer {
        builder = builder.dkim(signer.clone());
    }
    Ok(BoxTransport::new(builder.build().map_err(wrong)?))
}

#[cfg(feature = "http")]
fn http<P: postrider::http::Provider>(url: &str) -> Result<BoxTransport<Email>, Fail> {
    let transport = postrider::http::Http::<P>::from_url(url);
    let wrong = |error| Fail::usage(format!("the transport: {}", crate::fail::chain(&error)));
    Ok(BoxTransport::new(transport.map_err(wrong)?))
}
