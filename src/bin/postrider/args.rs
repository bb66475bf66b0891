//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Parser, Subcommand};
use postrider::{DeliveryId, State};

use crate::words;

/// Looks after a postrider outbox: makes its tables, enqueues mail, sends it, shows what became of it.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, propagate_version = true, subcommand_required = true, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: Which,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which outbox.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The database: sqlite://outbox.db, postgres://user:password@host/database, mysql://…
    #[arg(long, value_name = "URL", global = true, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database: Option<String>,

    /// The schema that holds the outbox, in PostgreSQL [default: postrider]
    #[arg(long, value_name = "NAME", global = true, env = "POSTRIDER_SCHEMA")]
    pub(crate) schema: Option<String>,

    /// What the names of the outbox's tables begin with, in MySQL and MariaDB [default: postrider_]
    #[arg(long, value_name = "PREFIX", global = true, env = "POSTRIDER_TABLE_PREFIX")]
    pub(crate) table_prefix: Option<String>,

    /// The database is behind PgBouncer, or another pooler of PostgreSQL, in transaction mode
    #[arg(long, global = true, env = "POSTRIDER_PGBOUNCER", value_parser = FalseyValueParser::new())]
    pub(crate) pgbouncer: bool,
}

const EXIT_CODES: &str = "\
Durations are written 500ms, 5s, 2h, 1h30m, 5d.

Exit codes:
  0  done
  1  it failed, or a delivery was not found or left as it was
  2  the command line is wrong
  3  the transport is paused: nothing is lost, what was not sent is still pending";

const TRANSPORTS_AND_SIGNALS: &str = "\
A transport is a URL:
  smtp://USER:PASSWORD@HOST  smtps://USER:PASSWORD@HOST  smtp://HOST:PORT?tls=none
  ses://default?region=eu-west-1                  (credentials as AWS's own tools have them)
  sendgrid://KEY@default?region=eu                (brevo, mailersend, mailtrap, postmark,
                                                   resend and sparkpost likewise)
  mailgun://KEY@default?domain=mg.example.com     mailjet://KEY:SECRET@default

or is made of others, which whitespace parts, and which may be made of others in turn:
  failover(URL URL …)             the next, where one is out of order or refuses the sender
  round-robin(3*URL URL 0*URL …)  each its share: here 3 of 4, 1 of 4, and a spare
  timeout(60s URL)                an end to calls that take too long
  rate-limit(14/1s URL)           no more than 14 in a second
  redirect(ADDRESS URL)           everything to one address
In a URL within parentheses, ( and ) are written %28 and %29.

SIGINT and SIGTERM: claims no more, finishes what is being sent, and ends with 0.
A second one: waits no longer. A third: ends at once, with 1.

When the transport is paused at the end, the exit code is 3: nothing is lost, what was
not sent is still pending, and the standard error says why.

Logs go to the standard error; RUST_LOG says which. Durations are written 500ms, 5s, 2h.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or upgrade the outbox's tables, and an SQLite database's file
    Migrate {
        /// Print the statements instead, for migrations of your own
        #[arg(long)]
        print: bool,
    },
    /// Put a mail into the outbox, and print the delivery's id
    Enqueue(Box<Enqueue>),
    /// Send what is due, until a signal comes
    #[command(after_help = TRANSPORTS_AND_SIGNALS)]
    Work(Work),
    /// List deliveries, oldest first
    List(List),
    /// Show one delivery, with its recipients and its history
    Show {
        /// The delivery
        #[arg(value_parser = words::delivery_id)]
        id: DeliveryId,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send dead, held, sent or cancelled deliveries again
    Resend {
        /// The deliveries
        #[arg(required = true, value_name = "ID", value_parser = words::delivery_id)]
        ids: Vec<DeliveryId>,
    },
    /// Take pending deliveries back
    Cancel {
        /// The deliveries
        #[arg(required = true, value_name = "ID", value_parser = words::delivery_id)]
        ids: Vec<DeliveryId>,
    },
    /// Say what an SMTP reply means, and what a relay would do; needs no outbox
    #[cfg(feature = "smtp")]
    #[command(after_help = EXPLAIN)]
    Explain(Explain),
    /// Show the outbox in numbers, and the relays at work
    Stats {
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Enqueue {
    /// Who the mail is from: ada@example.com, 'Ada <ada@example.com>'
    #[arg(long, value_name = "MAILBOX")]
    pub(crate) from: String,
    /// A recipient; may be given again
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) to: Vec<String>,
    /// A recipient of a copy; may be given again
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) cc: Vec<String>,
    /// A recipient of a copy whom the others do not see; may be given again
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) bcc: Vec<String>,
    /// Where answers go; may be given again
    #[arg(long, value_name = "MAILBOX", action = ArgAction::Append)]
    pub(crate) reply_to: Vec<String>,
    /// The subject
    #[arg(long, default_value = "")]
    pub(crate) subject: String,
    /// The body as plain text: the text itself, @FILE, or - for the standard input
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// The body as HTML: the same forms
    #[arg(long)]
    pub(crate) html: Option<String>,
    /// A file to attach, its media type guessed by its name; may be given again
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub(crate) attach: Vec<PathBuf>,
    /// A header, 'Name: value'; may be given again
    #[arg(long, value_name = "HEADER", action = ArgAction::Append)]
    pub(crate) header: Vec<String>,
    /// The name of what the mail is made from, to find it by
    #[arg(long, value_name = "NAME")]
    pub(crate) template_id: Option<String>,
    /// An idempotency key: with one that is taken, nothing is added, and the first delivery's id is printed
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Not before this time: 2030-12-31T18:00:00Z, 2030-12-31T18:00:00+02:00 (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = words::rfc3339)]
    pub(crate) send_at: Option<SystemTime>,
    /// Not after so long from now: then it is a dead letter
    #[arg(long, value_name = "DURATION", value_parser = words::duration)]
    pub(crate) expires_in: Option<Duration>,
    /// From 0 to 9, higher first
    #[arg(long, value_name = "0..9", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) priority: u8,
    /// When it may have been accepted and nobody knows, hold it instead of sending it again
    #[arg(long)]
    pub(crate) hold: bool,
    /// How many deliveries of this mail; with --key K, their keys are K-1, K-2 and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Work {
    /// Where to send: a transport's URL, or several combined, as below
    #[arg(long, value_name = "TRANSPORT", env = "TRANSPORT_URL", hide_env_values = true)]
    pub(crate) transport: Option<String>,
    /// End when nothing more is due; what fails waits for the next time
    #[arg(long)]
    pub(crate) drain: bool,
    /// The summary at the end as a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How many messages to send at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// How long a delivery belongs to a relay that has died; from 100ms
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = words::lease)]
    pub(crate) lease: Duration,
    /// How often to look for what other processes have enqueued
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = words::positive)]
    pub(crate) poll: Duration,
    /// The first and shortest wait between two attempts
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = words::positive)]
    pub(crate) retry_base: Duration,
    /// The longest wait between two attempts
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = words::positive)]
    pub(crate) retry_cap: Duration,
    /// By how much each wait is longer than the one before; from 1
    #[arg(long, default_value = "2", value_parser = words::factor)]
    pub(crate) factor: f64,
    /// How far a wait strays at random, from 0 to 1 of itself
    #[arg(long, default_value = "0.2", value_parser = words::jitter)]
    pub(crate) jitter: f64,
    /// How many attempts before a delivery is given up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: u32,
    /// How long before a delivery is given up
    #[arg(long, value_name = "DURATION", default_value = "5d", value_parser = words::positive)]
    pub(crate) max_age: Duration,
    #[command(flatten)]
    pub(crate) dkim: DkimArgs,
}

/// Signing, by smtp:// and ses:// alone: the other providers sign by themselves.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "DKIM signatures, by smtp:// and ses:// (feature dkim)")]
pub(crate) struct DkimArgs {
    /// The domain that signs each mail; its DNS has the public key
    #[arg(long = "dkim-domain", value_name = "DOMAIN", requires_all = ["dkim_selector", "dkim_key"])]
    pub(crate) dkim_domain: Option<String>,
    /// The key's name: the public key is the TXT record of NAME._domainkey.DOMAIN
    #[arg(long = "dkim-selector", value_name = "NAME", requires_all = ["dkim_domain", "dkim_key"])]
    pub(crate) dkim_selector: Option<String>,
    /// The private key: RSA or Ed25519 in PEM, by PKCS #8 or PKCS #1, or an Ed25519 seed in base64
    #[arg(long = "dkim-key", value_name = "FILE", requires_all = ["dkim_domain", "dkim_selector"])]
    pub(crate) dkim_key: Option<PathBuf>,
}

#[cfg(feature = "smtp")]
const EXPLAIN: &str = "\
Stages: connect, greeting, ehlo, starttls, auth, mail, rcpt, data, dot (the end of the
message), quit. The lines of a reply are parted by \\n.

With --file, each line of the file is a JSON object with the texts \"stage\" and \"reply\",
and \"id\", which is repeated. What comes out is an object a line:
{\"id\", \"scope\", \"class\", \"in_doubt\", \"retry_after_s\"}, where the scope is message, sender
or transport, and the class permanent or transient.";

#[cfg(feature = "smtp")]
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// What was being said to the server
    #[arg(long, value_name = "STAGE", value_parser = crate::explain::stage)]
    pub(crate) stage: Option<postrider::smtp::Stage>,
    /// The reply: '550 5.4.5 Daily user sending limit exceeded.'
    #[arg(conflicts_with = "file")]
    pub(crate) reply: Option<String>,
    /// As a JSON object
    #[arg(long, conflicts_with = "file")]
    pub(crate) json: bool,
    /// Many replies, as JSON objects; - for the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "stage")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those in this state: pending, leased, sent, dead, in_doubt, cancelled
    #[arg(long, value_parser = words::state)]
    pub(crate) state: Option<State>,
    /// How many at the most; all, unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Only those after this one
    #[arg(long, value_name = "ID", value_parser = words::delivery_id)]
    pub(crate) after: Option<DeliveryId>,
    /// As a JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}
