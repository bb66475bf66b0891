//! Failing in one line.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use postrider::{EmailError, EnqueueError, StoreError, StoreErrorKind};
use postrider_transport::mask_addresses;

use crate::output::{Out, printable};

/// Why the tool ends otherwise than well: one line for the operator, and the exit code.
#[derive(Debug)]
pub(crate) struct Fail {
    line: String,
    code: u8,
}

impl Fail {
    /// It did not work.
    pub(crate) fn runtime(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 1 }
    }

    /// What was asked for makes no sense.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 2 }
    }

    /// The transport can send for nobody.
    pub(crate) fn paused(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 3 }
    }

    /// The same, of one thing among several.
    pub(crate) fn of(self, which: &str) -> Self {
        Self { line: format!("{which}: {}", self.line), ..self }
    }

    /// Says so on the standard error.
    pub(crate) fn tell(&self) -> ExitCode {
        warn(&self.line);
        ExitCode::from(self.code)
    }
}

/// One line on the standard error, without secrets. If that is closed, nobody wants to know.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "postrider: {}", one_line(&hide(line)));
}

/// What clap has to say, in a line; or the help, where that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.exit_code() == 0 {
        let mut out = Out::stdout();
        return match out.text(&text).and_then(|()| out.finish()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fail) => fail.tell(),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Fail::usage("no command is given (see --help)").tell();
    }
    // What follows the first empty line is advice on the form of the command.
    let matter = text.split("\n\n").next().unwrap_or_default();
    let matter = matter.strip_prefix("error: ").unwrap_or(matter);
    Fail::usage(format!("{matter} (see --help)")).tell()
}

/// An error and what is under it, as far as that says anything new.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    printable(&words.join(" ")).into_owned()
}

/// Takes credentials out of URLs, and masks addresses elsewhere. A password may hold anything, so what stands between the `://`
/// and the last `@` is hidden as a whole.
fn hide(text: &str) -> String {
    match text.split_once("://") {
        None => mask_addresses(text).into_owned(),
        Some((before, after)) => {
            let after = after.rsplit_once('@').map_or(after.to_owned(), |(_, host)| format!("***@{host}"));
            format!("{}://{after}", mask_addresses(before))
        }
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        // The text holds the driver's words already.
        match error.kind() {
            StoreErrorKind::NotMigrated => {
                Self::runtime("the database has no outbox's tables: run `postrider migrate` first")
            }
            _ => Self::runtime(error.to_string()),
        }
    }
}

impl From<EmailError> for Fail {
    fn from(error: EmailError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<EnqueueError> for Fail {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Store(error) => error.into(),
            other => Self::usage(chain(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_tells_a_password_or_an_address() {
        for (told, shown) in [
            ("smtp://ada:sec/r@et@host:25 is odd", "smtp://***@host:25 is odd"),
            ("unexpected 'smtps://a:b c@d@host'", "unexpected 'smtps://***@host'"),
            ("to ada@example.com: no", "to a***@example.com: no"),
            ("ada@example.com by smtp://host", "a***@example.com by smtp://host"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(hide(told), shown);
        }
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(one_line("a\n  b\r\n\tc\u{1b}[31m"), "a b c\\u{1b}[31m");
    }
}
