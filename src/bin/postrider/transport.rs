//! Builds the transport of a transport expression.

use std::pin::Pin;
use std::time::Duration;

use postrider::transport::{Failover, Redirect, RoundRobin, Timeout};
use postrider::{BoxTransport, Email};

use crate::dkim::Signer;
use crate::error::CliError;
use crate::transport_expr::{self, TransportExpr, Weighted};
use crate::url_scheme::{self, Scheme};

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
    Scheme::without_host("mailbox", "mailbox", cfg!(feature = "mailbox")),
];

/// The SMTP connections of a transport, to close at the end.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    #[cfg(feature = "smtp")]
    smtp: Vec<postrider::smtp::Smtp>,
}

impl Connections {
    /// Sends QUIT on the idle connections (RFC 5321 section 4.1.1.10), for at most two seconds.
    pub(crate) async fn close(self) {
        #[cfg(feature = "smtp")]
        {
            const LIMIT: Duration = Duration::from_secs(2);

            let mut closing = tokio::task::JoinSet::new();
            for smtp in self.smtp {
                closing.spawn(async move { smtp.close().await });
            }
            // After the limit, the remaining connections close without QUIT.
            let _ = tokio::time::timeout(LIMIT, closing.join_all()).await;
        }
    }
}

/// Builds the transport of an expression. `concurrency` is the number of messages that it sends at once, and `signer` signs them.
pub(crate) async fn open(
    expr: Option<&str>,
    concurrency: usize,
    signer: Option<&Signer>,
) -> Result<(BoxTransport<Email>, Connections), CliError> {
    let expr = transport_expr::parse(expr.unwrap_or_default()).map_err(invalid)?;
    let mut connections = Connections::default();
    let transport = build(expr, UrlOptions { concurrency, signer }, &mut connections).await?;
    Ok((transport, connections))
}

fn invalid(error: impl std::fmt::Display) -> CliError {
    CliError::usage(format!("the transport is invalid: {error}"))
}

/// The options of each URL's transport.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "smtp"), allow(dead_code, reason = "only SMTP has a number of connections"))]
struct UrlOptions<'a> {
    concurrency: usize,
    signer: Option<&'a Signer>,
}

type BuildFuture<'a> = Pin<Box<dyn Future<Output = Result<BoxTransport<Email>, CliError>> + Send + 'a>>;

fn build<'a>(expr: TransportExpr<'a>, options: UrlOptions<'a>, connections: &'a mut Connections) -> BuildFuture<'a> {
    Box::pin(async move {
        Ok(match expr {
            TransportExpr::Url(url) => from_url(url, options, connections).await?,
            TransportExpr::NumberedUrl { number, url } => from_url(url, options, connections)
                .await
                .map_err(|error| error.context(&format!("URL number {number} of the transport")))?,
            TransportExpr::Failover(list) => {
                let mut failover = Failover::new(build(*list.first, options, connections).await?);
                for expr in list.rest {
                    failover = failover.or(build(expr, options, connections).await?);
                }
                BoxTransport::new(failover)
            }
            TransportExpr::RoundRobin(list) => {
                let first = *list.first;
                let transport = build(first.transport, options, connections).await?;
                let mut round_robin = RoundRobin::new(transport, first.weight);
                for Weighted { weight, transport } in list.rest {
                    round_robin = round_robin.and(build(transport, options, connections).await?, weight);
                }
                BoxTransport::new(round_robin)
            }
            TransportExpr::Redirect { to, inner } => {
                BoxTransport::new(Redirect::new(build(*inner, options, connections).await?, to))
            }
            TransportExpr::Timeout { limit, inner } => {
                BoxTransport::new(Timeout::new(build(*inner, options, connections).await?, limit))
            }
            TransportExpr::RateLimit { messages, period, inner } => {
                rate_limit(build(*inner, options, connections).await?, messages, period)?
            }
        })
    })
}

#[cfg(feature = "rate-limit")]
fn rate_limit(
    transport: BoxTransport<Email>,
    messages: u32,
    period: Duration,
) -> Result<BoxTransport<Email>, CliError> {
    Ok(BoxTransport::new(postrider::transport::RateLimit::new(transport, messages, period)))
}

#[cfg(not(feature = "rate-limit"))]
fn rate_limit(_: BoxTransport<Email>, _: u32, _: Duration) -> Result<BoxTransport<Email>, CliError> {
    Err(CliError::usage("rate-limit(…) needs the feature `rate-limit`, and this postrider was built without it"))
}

/// Builds the transport of a URL.
#[cfg_attr(not(feature = "smtp"), allow(unused_variables, reason = "only SMTP has a number of connections"))]
async fn from_url(
    url: &str,
    options: UrlOptions<'_>,
    connections: &mut Connections,
) -> Result<BoxTransport<Email>, CliError> {
    let how_to_set = "use --transport URL, or set TRANSPORT_URL";
    let (scheme, url) = url_scheme::find("transport", how_to_set, SCHEMES, Some(url))?;
    if options.signer.is_some() && !matches!(scheme.feature, "smtp" | "ses") {
        let why =
            if scheme.feature == "mailbox" { "it sends no mail" } else { "the provider signs the mail by itself" };
        return Err(CliError::usage(format!("{} cannot use --dkim-domain: {why}", scheme.prefix())));
    }
    match scheme.feature {
        #[cfg(feature = "smtp")]
        "smtp" => smtp(url, options, connections),
        #[cfg(feature = "ses")]
        "ses" => ses(url, options).await,
        #[cfg(feature = "mailbox")]
        "mailbox" => mailbox(url),
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
        _ => Err(scheme.missing_feature()),
    }
}

#[cfg(feature = "smtp")]
fn smtp(url: &str, options: UrlOptions<'_>, connections: &mut Connections) -> Result<BoxTransport<Email>, CliError> {
    use postrider::smtp::{Smtp, SmtpConfigError};

    let invalid = |error: SmtpConfigError| invalid(crate::error::chain(&error));
    let has_pool = url.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair.starts_with("pool=")));
    let mut builder = Smtp::builder_from_url(url).map_err(invalid)?;
    // One connection for each concurrent message, unless the URL sets the number.
    if !has_pool {
        builder = builder.max_connections(options.concurrency);
    }
    #[cfg(feature = "dkim")]
    if let Some(signer) = options.signer {
        builder = builder.dkim(signer.clone());
    }
    let smtp = builder.build().map_err(invalid)?;
    connections.smtp.push(smtp.clone());
    Ok(BoxTransport::new(smtp))
}

/// Builds the SES transport of a URL. The environment supplies what the URL omits.
#[cfg(feature = "ses")]
#[cfg_attr(not(feature = "dkim"), allow(unused_variables, unused_mut, reason = "only a signer uses them"))]
async fn ses(url: &str, options: UrlOptions<'_>) -> Result<BoxTransport<Email>, CliError> {
    let invalid = |error| invalid(crate::error::chain(&error));
    let mut builder = postrider::ses::Ses::builder_from_url(url).await.map_err(invalid)?;
    #[cfg(feature = "dkim")]
    if let Some(signer) = options.signer {
        builder = builder.dkim(signer.clone());
    }
    Ok(BoxTransport::new(builder.build().map_err(invalid)?))
}

/// Builds the transport that sends nothing, and says so.
#[cfg(feature = "mailbox")]
fn mailbox(url: &str) -> Result<BoxTransport<Email>, CliError> {
    let mailbox = postrider::DevMailbox::from_url(url).map_err(invalid)?;
    // The warning of the library comes before the logs start.
    crate::error::warn("the transport mailbox: sends no mail; it is for development");
    Ok(BoxTransport::new(mailbox))
}

#[cfg(feature = "http")]
fn http<P: postrider::http::Provider>(url: &str) -> Result<BoxTransport<Email>, CliError> {
    let transport = postrider::http::Http::<P>::from_url(url);
    Ok(BoxTransport::new(transport.map_err(|error| invalid(crate::error::chain(&error)))?))
}
