//! Logging to standard error.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::error::CliError;
use crate::progress::Progress;

/// Starts logging to standard error, filtered by `RUST_LOG`. The default is `info`, and `error` if a progress line is shown.
pub(crate) fn start(progress: Option<&Progress>) -> Result<(), CliError> {
    let directives = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let default = if progress.is_some() { "postrider=error" } else { "postrider=info" };
    let filter = EnvFilter::try_new(directives.as_deref().unwrap_or(default))
        .map_err(|error| CliError::usage(format!("RUST_LOG is invalid: {error}")))?;
    let ansi = progress.is_some() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(ansi);
    let result = subscriber.with_writer(MakeLogWriter(progress.cloned())).try_init();
    result.map_err(|error| CliError::runtime(format!("logging cannot start: {error}")))
}

/// Writes each log line above the progress line, if there is one.
struct MakeLogWriter(Option<Progress>);

impl<'a> MakeWriter<'a> for MakeLogWriter {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter(self.0.as_ref())
    }
}

struct LogWriter<'a>(Option<&'a Progress>);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _hidden = self.0.map(Progress::hide);
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
