//! Where the logs go.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::fail::Fail;
use crate::progress::Progress;

/// Logs to the standard error, as `RUST_LOG` wishes. Beside a progress line only what is worse than a warning is shown unless
/// it does wish.
pub(crate) fn start(progress: Option<&Progress>) -> Result<(), Fail> {
    let wish = std::env::var("RUST_LOG").ok().filter(|wish| !wish.is_empty());
    let default = if progress.is_some() { "postrider=error" } else { "postrider=info" };
    let filter = EnvFilter::try_new(wish.as_deref().unwrap_or(default))
        .map_err(|error| Fail::usage(format!("RUST_LOG cannot be read: {error}")))?;
    let colour = progress.is_some() && std::env::var_os("NO_COLOR").is_none();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colour);
    let started = logs.with_writer(Lines(progress.cloned())).try_init();
    started.map_err(|error| Fail::runtime(format!("the logs cannot be written: {error}")))
}

/// Writes each log line above the progress line, where there is one.
struct Lines(Option<Progress>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self.0.as_ref())
    }
}

struct LineWriter<'a>(Option<&'a Progress>);

impl Write for LineWriter<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let _hidden = self.0.map(Progress::hide);
        io::stderr().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
