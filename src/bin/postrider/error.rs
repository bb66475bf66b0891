//! The tool's error: one line on standard error, and an exit code.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use postrider::{EmailError, EnqueueError, StoreError, StoreErrorKind};

use crate::output::{Output, printable};
use crate::redact::redact;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    exit_code: u8,
}

impl CliError {
    /// The command failed.
    pub(crate) fn runtime(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }

    /// The command line is invalid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 2 }
    }

    /// The transport is paused.
    pub(crate) fn paused(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 3 }
    }

    /// Puts the subject of the error in front of its message.
    pub(crate) fn context(self, subject: &str) -> Self {
        Self { message: format!("{subject}: {}", self.message), ..self }
    }

    /// Prints the message to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        warn(&self.message);
        ExitCode::from(self.exit_code)
    }
}

/// Prints one line to standard error, with credentials and addresses redacted. Ignores a closed standard error.
pub(crate) fn warn(message: &str) {
    let _ = writeln!(std::io::stderr(), "postrider: {}", one_line(&redact(message)));
}

/// Prints a clap error in one line, or the help or version if that was requested.
pub(crate) fn report_clap(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.exit_code() == 0 {
        let mut out = Output::stdout();
        return match out.text(&text).and_then(|()| out.flush()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error.report(),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CliError::usage("no command is given (see --help)").report();
    }
    // The text after the first empty line shows the usage.
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    CliError::usage(format!("{message} (see --help)")).report()
}

/// The texts of an error and its sources, without those that the text before already contains.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = error.source();
    }
    line
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    printable(&words.join(" ")).into_owned()
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::NotMigrated => {
                Self::runtime("the database has no outbox tables: run `postrider migrate` first")
            }
            // The text of a store error includes its sources.
            _ => Self::runtime(error.to_string()),
        }
    }
}

impl From<EmailError> for CliError {
    fn from(error: EmailError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<EnqueueError> for CliError {
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
    fn a_message_is_printed_in_one_line() {
        assert_eq!(one_line("a\n  b\r\n\tc\u{1b}[31m"), "a b c\\u{1b}[31m");
    }
}
