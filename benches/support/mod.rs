//! The shared parts of the benchmarks: arguments, mails, figures and databases.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod background_load;
pub(crate) mod baseline;
pub(crate) mod databases;
pub(crate) mod dataset;
pub(crate) mod figures;
pub(crate) mod noop;
pub(crate) mod proxy;
pub(crate) mod raw;

use std::path::PathBuf;

use postrider::{Email, Message as _};

/// The concurrency of a relay: four of its largest claims, so that claiming, sending and settling overlap.
pub(crate) const CONCURRENCY: usize = 4096;

/// The arguments of a benchmark. `cargo bench` adds `--bench`, which is ignored.
#[derive(Debug)]
pub(crate) struct Options {
    /// The file for the figures as JSON. `None`: only the table is printed.
    pub(crate) json: Option<PathBuf>,
    /// How often each case runs. Cases alternate.
    pub(crate) rounds: usize,
    /// The number of deliveries. `None`: the default of the benchmark.
    pub(crate) count: Option<usize>,
    /// Runs only cases whose name contains one of these. Empty: all.
    pub(crate) only: Vec<String>,
    /// Runs the large cases too.
    pub(crate) full: bool,
}

impl Options {
    pub(crate) fn read() -> Self {
        let mut options = Self { json: None, rounds: 3, count: None, only: Vec::new(), full: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| usage(&format!("{argument} needs a value")));
            match argument.as_str() {
                "--bench" => {}
                "--json" => options.json = Some(value().into()),
                "--rounds" => options.rounds = number(&value()),
                "--count" => options.count = Some(number(&value())),
                "--only" => options.only = value().split(',').map(str::to_owned).collect(),
                "--full" => options.full = true,
                _ => usage(&format!("{argument} is not known")),
            }
        }
        options
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

fn number(text: &str) -> usize {
    text.replace('_', "").parse().ok().filter(|number| *number > 0).unwrap_or_else(|| usage("not a number"))
}

fn usage(why: &str) -> ! {
    eprintln!("{why}\nusage: [--rounds N] [--count N] [--only NAME,…] [--full] [--json FILE]");
    std::process::exit(2)
}

/// The `number`th mail, of about 1 KiB as it is stored.
pub(crate) fn mail(number: usize) -> Email {
    mail_of(number, 800)
}

/// A mail with this many bytes of text.
pub(crate) fn mail_of(number: usize, octets: usize) -> Email {
    let mut text = String::with_capacity(octets + 80);
    while text.len() < octets {
        text.push_str("Your order has been packed and leaves our store this afternoon. Thank you.\n");
    }
    Email::builder()
        .from("Shop <orders@shop.example>")
        .to(format!("customer-{number}@example.org").as_str())
        .subject(format!("Order {number}"))
        .text(text)
        .template_id("order")
        .build()
        .expect("the mail is valid")
}

/// A mail as an outbox stores it: the body, followed by the text and the HTML, which have columns of their own.
pub(crate) fn stored(mail: &Email) -> String {
    let encoded = mail.encode().expect("a mail");
    [Some(encoded.body), encoded.text, encoded.html].into_iter().flatten().collect()
}

/// The processor time of this process.
pub(crate) fn cpu_time() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is readable");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // 100 ticks a second, as on each Linux that runs the tests.
    std::time::Duration::from_millis(ticks * 10)
}
