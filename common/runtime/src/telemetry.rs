//! Where log lines go and in which form. One line per event, whatever was in it.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Environment variable with the filter, for example `info,muster_agent=debug`.
pub const FILTER_VARIABLE: &str = "MUSTER_LOG";
/// What is logged unless told otherwise: openraft repeats what our own lines say.
pub const FILTER_DEFAULT: &str = "info,openraft=error";
/// Longest log line in bytes; the rest is cut.
const LINE_MAX: usize = 16 * 1024;

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("{FILTER_VARIABLE}=`{value}`: {reason}; write for example `info,muster_agent=debug`")]
    Filter {
        /// What it says.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Sends log lines to standard error, filtered by [`FILTER_VARIABLE`] ([`FILTER_DEFAULT`] if it is not set).
///
/// # Errors
/// The filter makes no sense, or logging is set up already.
pub fn init(format: Format) -> Result<(), TelemetryError> {
    let targets =
        parse_filter(&std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| FILTER_DEFAULT.to_owned()))?;
    let lines = match format {
        Format::Human => fmt::layer().with_writer(OneLine).with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(OneLine).with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(targets));
    subscriber.try_init().map_err(|_| TelemetryError::Twice)
}

fn parse_filter(value: &str) -> Result<Targets, TelemetryError> {
    value.parse().map_err(|error: tracing_subscriber::filter::ParseError| TelemetryError::Filter {
        value: value.to_owned(),
        reason: error.to_string(),
    })
}

/// Makes a writer per event that keeps the event on one line.
struct OneLine;

impl<'a> MakeWriter<'a> for OneLine {
    type Writer = Line<io::Stderr>;

    fn make_writer(&'a self) -> Line<io::Stderr> {
        Line(io::stderr())
    }
}

/// The formatter hands over each event in one piece, ending with a line feed.
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let cut = &body[..body.len().min(LINE_MAX)];
        let mut line = Vec::with_capacity(cut.len() + 1);
        for byte in cut {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                other => line.push(*other),
            }
        }
        if cut.len() < body.len() {
            line.extend_from_slice(b" [cut]");
        }
        line.push(b'\n');
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &[u8]) -> Vec<u8> {
        let mut line = Line(Vec::new());
        assert_eq!(line.write(event).unwrap(), event.len());
        line.0
    }

    #[test]
    fn an_event_cannot_forge_a_second_line() {
        assert_eq!(written(b"user x\r\nINFO all is well\n"), b"user x\\r\\nINFO all is well\n");
    }

    #[test]
    fn a_long_event_is_cut() {
        let line = written(&[b'x'; LINE_MAX * 2]);
        assert!(line.ends_with(b" [cut]\n") && line.len() < LINE_MAX + 10);
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = parse_filter("muster=loud").unwrap_err().to_string();
        assert!(error.contains("muster=loud") && error.contains("info,"), "{error}");
    }
}
