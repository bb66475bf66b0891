//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, Parser, Subcommand};
use postrider::transport::Recipient;
use postrider::{Action, DeliveryId, PrunedPart, State, TraceParent};

use crate::database::OutboxArgs;
use crate::parsers;

/// Manages a postrider outbox: creates its tables, enqueues mail, sends it, and shows the result of each delivery.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, propagate_version = true, subcommand_required = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) outbox: OutboxArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Examples of durations are 500ms, 5s, 2h, 1h30m, 5d.

Exit codes:
  0  success
  1  the command failed, or a delivery was not found or not changed
  2  the command line is wrong
  3  the transport is paused: no mail is lost, and unsent mail stays pending";

const TRANSPORTS_AND_SIGNALS: &str = "\
A transport is a URL:
  smtp://USER:PASSWORD@HOST  smtps://USER:PASSWORD@HOST  smtp://HOST:PORT?tls=none
  ses://default?region=eu-west-1                  (credentials as for the AWS CLI)
  sendgrid://KEY@default?region=eu                (also brevo, mailersend, mailtrap, postmark,
                                                   resend and sparkpost)
  mailgun://KEY@default?domain=mg.example.com     mailjet://KEY:SECRET@default
  mailbox:  mailbox:?check_as=ses                 (for development: sends nothing)

or a combination of transports, separated by whitespace. Combinations can be nested:
  failover(URL URL …)             tries the next one if one is unavailable or refuses the sender
  round-robin(3*URL URL 0*URL …)  shares the mail by weight: here 3 of 4, 1 of 4, and a backup
  timeout(60s URL)                ends calls that take too long
  rate-limit(14/1s URL)           sends at most 14 messages a second
  redirect(ADDRESS URL)           sends all mail to one address
In a URL within parentheses, write ( and ) as %28 and %29.

The first SIGINT or SIGTERM stops claiming, waits for the sends in progress, and exits with 0.
The second one stops the wait. The third one exits at once with 1.

If the transport is paused at the end, the exit code is 3: no mail is lost, unsent mail
stays pending, and standard error shows the reason.

Logs go to standard error. RUST_LOG filters them. Examples of durations are 500ms, 5s, 2h.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or upgrade the outbox's tables; for SQLite, create the file as well
    Migrate {
        /// Print the SQL statements instead, for your own migrations
        #[arg(long)]
        print: bool,
        /// Print only what upgrades the tables from this version
        #[arg(long, value_name = "VERSION", requires = "print", default_value_t = 0)]
        from: u32,
    },
    /// Put a mail into the outbox and print the id of the delivery
    Enqueue(Box<EnqueueArgs>),
    /// Send what is due, until a signal arrives
    #[command(after_help = TRANSPORTS_AND_SIGNALS)]
    Work(Box<WorkArgs>),
    /// List deliveries, oldest first
    List(Box<ListArgs>),
    /// Show a delivery with its recipients and its attempts
    Show {
        /// The delivery
        #[arg(value_parser = parsers::delivery_id)]
        id: DeliveryId,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send finished deliveries again, by id or by filter
    Resend(Box<ChangeArgs>),
    /// Cancel pending deliveries, by id or by filter
    Cancel(Box<ChangeArgs>),
    /// Close dead or in-doubt deliveries without sending them, by id or by filter
    Dismiss(Box<ChangeArgs>),
    /// Pause mail: every relay obeys within two seconds
    Pause(PauseArgs),
    /// End a pause
    Resume(PauseArgs),
    /// Ask relays to probe a paused transport at once
    Probe {
        #[command(flatten)]
        by: ByArgs,
    },
    /// List what operators did, newest first
    Audit {
        /// Only the actions on this delivery
        #[arg(long, value_name = "ID", value_parser = parsers::delivery_id)]
        id: Option<DeliveryId>,
        /// Only the actions of this operator
        #[arg(long, value_name = "NAME")]
        operator: Option<String>,
        /// Only these actions: resend, cancel, dismiss, pause, resume, probe, erase or prune
        #[arg(long, value_name = "ACTION")]
        action: Option<Action>,
        /// The maximum number of lines; a bulk action has one, or with --json one for each delivery
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value_t = 100)]
        limit: u32,
        /// Print a JSON object for each line
        #[arg(long)]
        json: bool,
    },
    /// Delete what is finished and old: messages, history or whole deliveries
    Prune(PruneArgs),
    /// Remove a person's address from all finished deliveries, with their messages, subjects and replies
    Erase {
        /// The address, in any case: ada@example.com
        #[arg(value_parser = parsers::address)]
        address: Recipient,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Explain an SMTP reply and how a relay handles it; needs no outbox
    #[cfg(feature = "smtp")]
    #[command(after_help = EXPLAIN)]
    Explain(ExplainArgs),
    /// Serve the dashboard: a website that shows the outbox, finds mail, and resends or cancels it
    #[cfg(feature = "dashboard")]
    #[command(after_help = SERVE)]
    Serve(ServeArgs),
    /// Count the deliveries in each state, and list the running relays
    Stats {
        /// Also count what happened in each hour since then: 24h, or 2030-12-31T18:00:00Z
        #[arg(long, value_name = "TIME", value_parser = parsers::time_ago)]
        since: Option<SystemTime>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    /// The author: ada@example.com, 'Ada <ada@example.com>'
    #[arg(long, value_name = "MAILBOX")]
    pub(crate) from: String,
    /// A recipient; can be repeated
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) to: Vec<String>,
    /// A recipient of a copy; can be repeated
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) cc: Vec<String>,
    /// A recipient of a copy, hidden from the others; can be repeated
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) bcc: Vec<String>,
    /// An address for answers; can be repeated
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) reply_to: Vec<String>,
    /// The subject
    #[arg(long, default_value = "")]
    pub(crate) subject: String,
    /// The plain-text body: the text itself, @FILE, or - for standard input
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// The HTML body, in the same forms
    #[arg(long)]
    pub(crate) html: Option<String>,
    /// A file to attach, with the media type of its extension; can be repeated
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub(crate) attach: Vec<PathBuf>,
    /// A header, 'Name: value'; can be repeated
    #[arg(long, value_name = "HEADER", action = ArgAction::Append)]
    pub(crate) header: Vec<String>,
    /// The name of the mail's template, shown by list and show
    #[arg(long, value_name = "NAME")]
    pub(crate) template_id: Option<String>,
    /// An idempotency key: if a delivery has it already, nothing is added, and that delivery's id is printed
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The earliest time to send: 2030-12-31T18:00:00Z, 2030-12-31T18:00:00+02:00 (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parsers::rfc3339)]
    pub(crate) send_at: Option<SystemTime>,
    /// How long to try to send the mail; after that it becomes a dead letter
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration)]
    pub(crate) expires_in: Option<Duration>,
    /// From 0 to 9, higher first
    #[arg(long, value_name = "0..9", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) priority: u8,
    /// If it is unknown whether the mail was accepted, hold it instead of sending it again
    #[arg(long)]
    pub(crate) hold: bool,
    /// The trace context of the request: the value of the header traceparent (W3C Trace Context)
    #[arg(long, value_name = "TRACEPARENT")]
    pub(crate) traceparent: Option<TraceParent>,
    /// Refuse what this transport cannot carry, before the relay would: smtp, ses, postmark and so on
    #[arg(long, value_name = "TRANSPORT", env = "POSTRIDER_CHECK_AS")]
    pub(crate) check_as: Option<String>,
    /// How many deliveries of this mail to add; with --key K, their keys are K-1, K-2 and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}

#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// Where to send: the URL of a transport, or a combination of several (see below)
    #[arg(long, value_name = "TRANSPORT", env = "TRANSPORT_URL", hide_env_values = true)]
    pub(crate) transport: Option<String>,
    /// Exit when nothing more is due; failed mail waits for a later run
    #[arg(long)]
    pub(crate) drain: bool,
    /// Print the final summary as a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Serve /metrics for Prometheus and /healthz at this address, to anybody who can reach it: 127.0.0.1:9464
    #[arg(long, value_name = "IP:PORT", conflicts_with = "drain")]
    pub(crate) metrics: Option<SocketAddr>,
    /// How many messages to send at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// How long a crashed relay keeps its deliveries; at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parsers::lease)]
    pub(crate) lease: Duration,
    /// How often to check for mail that other processes enqueue
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parsers::positive_duration)]
    pub(crate) poll: Duration,
    /// The first and shortest wait between two attempts
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parsers::positive_duration)]
    pub(crate) retry_base: Duration,
    /// The longest wait between two attempts
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = parsers::positive_duration)]
    pub(crate) retry_cap: Duration,
    /// The ratio of each wait to the wait before; at least 1
    #[arg(long, default_value = "2", value_parser = parsers::factor)]
    pub(crate) factor: f64,
    /// The random variation of a wait, as a fraction of it from 0 to 1
    #[arg(long, default_value = "0.2", value_parser = parsers::jitter)]
    pub(crate) jitter: f64,
    /// The number of attempts after which a delivery becomes a dead letter
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: u32,
    /// The age at which a delivery becomes a dead letter
    #[arg(long, value_name = "DURATION", default_value = "5d", value_parser = parsers::positive_duration)]
    pub(crate) max_age: Duration,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) dkim: DkimArgs,
}

/// The options for retention.
#[derive(Debug, Args)]
#[command(next_help_heading = "Retention of sent and cancelled deliveries (default: keep everything)")]
pub(crate) struct KeepArgs {
    /// Delete messages, with texts and attachments, this long after the delivery finished
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration, conflicts_with = "drain")]
    pub(crate) keep_messages: Option<Duration>,
    /// Delete all attempts but the last, this long after the delivery finished
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration, conflicts_with = "drain")]
    pub(crate) keep_history: Option<Duration>,
    /// Delete whole deliveries this long after they finished
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration, conflicts_with = "drain")]
    pub(crate) keep_deliveries: Option<Duration>,
    /// How long the idempotency keys of deleted deliveries stay taken, counted from when the mail was enqueued
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration, requires = "keep_deliveries")]
    pub(crate) keep_keys: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// What to delete: the messages (texts and attachments), the history (the attempts before the last one), or whole deliveries
    #[arg(value_name = "messages|history|deliveries", value_parser = parsers::pruned_part, hide_possible_values = true)]
    pub(crate) part: PrunedPart,
    /// Only of deliveries that finished longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration)]
    pub(crate) older_than: Duration,
    /// Only of deliveries in this state: sent, dead, in_doubt, cancelled, dismissed; can be repeated
    #[arg(long = "state", required = true, value_name = "STATE", value_parser = parsers::finished_state, action = ArgAction::Append)]
    pub(crate) states: Vec<State>,
    /// How long the idempotency keys of deleted deliveries stay taken, counted from when the mail was enqueued
    #[arg(long, value_name = "DURATION", value_parser = parsers::duration)]
    pub(crate) keep_keys: Option<Duration>,
    #[command(flatten)]
    pub(crate) by: ByArgs,
}

/// The options for DKIM signatures. The HTTP providers sign by themselves.
#[derive(Debug, Args)]
#[command(next_help_heading = "DKIM signatures, for smtp:// and ses:// (feature dkim)")]
pub(crate) struct DkimArgs {
    /// The domain that signs each mail; its DNS holds the public key
    #[arg(long = "dkim-domain", value_name = "DOMAIN", requires_all = ["dkim_selector", "dkim_key"])]
    pub(crate) dkim_domain: Option<String>,
    /// The name of the key: the public key is the TXT record of NAME._domainkey.DOMAIN
    #[arg(long = "dkim-selector", value_name = "NAME", requires_all = ["dkim_domain", "dkim_key"])]
    pub(crate) dkim_selector: Option<String>,
    /// The private key: RSA or Ed25519 in PEM (PKCS #8 or PKCS #1), or an Ed25519 seed in base64
    #[arg(long = "dkim-key", value_name = "FILE", requires_all = ["dkim_domain", "dkim_selector"])]
    pub(crate) dkim_key: Option<PathBuf>,
}

#[cfg(feature = "smtp")]
const EXPLAIN: &str = "\
Stages: connect, greeting, ehlo, starttls, auth, mail, rcpt, data, dot (the end of the
message), quit. Separate the lines of a reply by \\n.

With --file, each line of the file is a JSON object with the strings \"stage\" and \"reply\"
and an optional \"id\". The output has one object for each line:
{\"id\", \"scope\", \"class\", \"in_doubt\", \"retry_after_s\"}. The scope is message, sender or
transport, and the class is permanent or transient.";

#[cfg(feature = "smtp")]
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The stage of the SMTP dialogue that the server replied to
    #[arg(long, value_name = "STAGE", value_parser = crate::explain::parse_stage)]
    pub(crate) stage: Option<postrider::smtp::Stage>,
    /// The reply: '550 5.4.5 Daily user sending limit exceeded.'
    #[arg(conflicts_with = "file")]
    pub(crate) reply: Option<String>,
    /// Print a JSON object
    #[arg(long, conflicts_with = "file")]
    pub(crate) json: bool,
    /// A file of replies as JSON objects; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "stage")]
    pub(crate) file: Option<PathBuf>,
}

#[cfg(feature = "dashboard")]
const SERVE: &str = "\
Without a password, the dashboard listens on loopback only, where every user of this machine can
open it. The audit trail then names POSTRIDER_OPERATOR, or else USER. With a password, the browser
asks for it, with any user name, which the log and the audit trail have with each action. The
environment variable POSTRIDER_PASSWORD sets the password, too.

The server has no TLS: put a proxy with TLS in front of it if others can read the network.";

#[cfg(feature = "dashboard")]
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The IP address and the port to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = crate::serve::LISTEN)]
    pub(crate) listen: std::net::SocketAddr,
    /// A file with the password in its first line
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Show everything, and change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Hide the content of mail: texts, headers, attachments and source
    #[arg(long)]
    pub(crate) hide_bodies: bool,
    /// Accept forms from this origin, https://ops.example.com, if a proxy replaces the Host header; can be repeated
    #[arg(long, value_name = "ORIGIN", action = ArgAction::Append)]
    pub(crate) trusted_origin: Vec<String>,
}

/// Which deliveries.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only deliveries in this state: pending, leased, sent, dead, in_doubt, cancelled, dismissed
    #[arg(long, value_parser = parsers::state)]
    pub(crate) state: Option<State>,
    /// Only deliveries to this recipient, or to a domain: ada@example.com, @example.com
    #[arg(long, value_name = "ADDRESS", value_parser = parsers::address_or_domain)]
    pub(crate) to: Option<String>,
    /// Only deliveries whose subject begins with this
    #[arg(long, value_name = "TEXT")]
    pub(crate) subject: Option<String>,
    /// Only deliveries of this template
    #[arg(long, value_name = "NAME")]
    pub(crate) template_id: Option<String>,
    /// Only deliveries with this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Only the delivery with this idempotency key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only the delivery to which the next hop gave this id
    #[arg(long, value_name = "ID")]
    pub(crate) provider_id: Option<String>,
    /// Only deliveries whose last attempt was by this transport: smtp, failover/ses
    #[arg(long, value_name = "NAME")]
    pub(crate) transport: Option<String>,
    /// Only deliveries whose last error contains this; the case of letters matters
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Only deliveries enqueued at or after this time: 2d (two days ago), 2030-12-31 or 2030-12-31T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parsers::time_ago)]
    pub(crate) since: Option<SystemTime>,
    /// Only deliveries enqueued before this time
    #[arg(long, value_name = "TIME", value_parser = parsers::time_ago)]
    pub(crate) until: Option<SystemTime>,
    /// Only deliveries that finished at or after this time
    #[arg(long, value_name = "TIME", value_parser = parsers::time_ago)]
    pub(crate) finished_since: Option<SystemTime>,
    /// Only deliveries that finished before this time
    #[arg(long, value_name = "TIME", value_parser = parsers::time_ago)]
    pub(crate) finished_until: Option<SystemTime>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// List the newest first
    #[arg(long)]
    pub(crate) newest: bool,
    /// Print only how many there are
    #[arg(long, conflicts_with_all = ["after", "json", "newest"])]
    pub(crate) count: bool,
    /// The maximum number of deliveries; unlimited by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Only deliveries after this one in the list
    #[arg(long, value_name = "ID", value_parser = parsers::delivery_id)]
    pub(crate) after: Option<DeliveryId>,
    /// Print a JSON object for each line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who acts, and why.
#[derive(Debug, Args)]
pub(crate) struct ByArgs {
    /// Your name for the audit trail
    #[arg(long, value_name = "NAME", env = "POSTRIDER_OPERATOR")]
    pub(crate) by: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The deliveries; without them, all that the filter finds, which must have a state
    #[arg(conflicts_with = "state", value_name = "ID", value_parser = parsers::delivery_id)]
    pub(crate) ids: Vec<DeliveryId>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Change nothing: print how many would be changed, or, for ids, which
    #[arg(long)]
    pub(crate) preview: bool,
    /// Change at most this many
    #[arg(long, value_name = "N", conflicts_with = "ids", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Only deliveries after this one, to continue after an interruption
    #[arg(long, value_name = "ID", conflicts_with = "ids", value_parser = parsers::delivery_id)]
    pub(crate) after: Option<DeliveryId>,
    #[command(flatten)]
    pub(crate) by: ByArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) by: ByArgs,
}

/// What to pause.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// All mail of the outbox
    #[arg(long)]
    pub(crate) all: bool,
    /// All mail of the relays with this transport: smtp, failover
    #[arg(long, value_name = "NAME")]
    pub(crate) transport: Option<String>,
    /// Mail from this address, or from a domain: shop@example.com, @example.com
    #[arg(long, value_name = "ADDRESS", value_parser = parsers::address_or_domain)]
    pub(crate) sender: Option<String>,
    /// Mail of this template
    #[arg(long, value_name = "NAME")]
    pub(crate) template_id: Option<String>,
}
