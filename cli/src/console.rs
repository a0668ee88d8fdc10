//! Where a command reads from and writes to: the terminal, pipes, or a test's buffers. Decides nothing but colours.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde::Serialize;

use crate::output::Paint;

/// What a command prints its result as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: keys stay the same.
    Json,
}

type Writer = Arc<Mutex<dyn Write + Send>>;
/// What was written to a stream in memory.
pub type Buffer = Arc<Mutex<Vec<u8>>>;

/// The three streams of a process, and what they are.
#[derive(Clone)]
pub struct Console {
    out: Writer,
    err: Writer,
    input: Arc<Mutex<dyn BufRead + Send>>,
    /// What results are printed as.
    pub format: Format,
    /// Somebody sits there and can be asked.
    pub can_ask: bool,
    /// Standard output is a terminal.
    pub out_is_terminal: bool,
    /// Standard error is a terminal: progress may redraw itself.
    pub err_is_terminal: bool,
    /// Colours for standard output.
    pub paint: Paint,
    /// Colours for standard error.
    pub err_paint: Paint,
}

impl Console {
    /// The process' own streams.
    #[must_use]
    pub fn standard(format: Format, no_color: bool) -> Self {
        let (out, err, input) = (io::stdout(), io::stderr(), io::stdin());
        let (out_tty, err_tty) = (out.is_terminal(), err.is_terminal());
        let wanted = !no_color && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let wanted = wanted && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            can_ask: input.is_terminal() && err_tty,
            out: Arc::new(Mutex::new(out)),
            err: Arc::new(Mutex::new(err)),
            input: Arc::new(Mutex::new(io::BufReader::new(input))),
            format,
            out_is_terminal: out_tty,
            err_is_terminal: err_tty,
            paint: Paint::new(wanted && out_tty),
            err_paint: Paint::new(wanted && err_tty),
        }
    }

    /// Streams in memory, not a terminal unless `can_ask` is set afterwards.
    #[must_use]
    pub fn buffered(format: Format, input: &'static str) -> (Self, Buffer, Buffer) {
        let (out, err) = (Buffer::default(), Buffer::default());
        let console = Self {
            out: Arc::clone(&out) as Writer,
            err: Arc::clone(&err) as Writer,
            input: Arc::new(Mutex::new(input.as_bytes())),
            format,
            can_ask: false,
            out_is_terminal: false,
            err_is_terminal: false,
            paint: Paint::new(false),
            err_paint: Paint::new(false),
        };
        (console, out, err)
    }

    /// Whether the result is for a program.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a line, or several, of the result.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn say(&self, text: impl AsRef<str>) -> Result<()> {
        write_line(&self.out, text.as_ref().as_bytes(), true)
    }

    /// Prints bytes of the result as they are.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn raw(&self, bytes: &[u8]) -> Result<()> {
        write_line(&self.out, bytes, false)
    }

    /// Prints something beside the result: progress, warnings.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn note(&self, text: impl AsRef<str>) -> Result<()> {
        write_line(&self.err, text.as_ref().as_bytes(), true)
    }

    /// Prints a value as the result.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        self.say(serde_json::to_string_pretty(value)?)
    }

    /// Prints a value as one line of a stream of them.
    ///
    /// # Errors
    /// The reader is gone.
    pub fn json_line(&self, value: &impl Serialize) -> Result<()> {
        self.say(serde_json::to_string(value)?)
    }

    /// Asks a question and reads the answer's line.
    pub(crate) fn ask(&self, question: &str) -> Result<String> {
        write_line(&self.err, question.as_bytes(), false)?;
        let mut answer = String::new();
        self.input.lock().unwrap_or_else(PoisonError::into_inner).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

fn write_line(to: &Writer, bytes: &[u8], end: bool) -> Result<()> {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(bytes)?;
    if end && bytes.last() != Some(&b'\n') {
        to.write_all(b"\n")?;
    }
    Ok(to.flush()?)
}
