//! Runs one external program with a deadline and a bounded output. Never through a shell.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest time that `ip`, `wg`, `nft` or `iptables-restore` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest output that is read, in bytes.
const OUTPUT_LEN_MAX: u64 = 8 << 20;

/// Longest part of an error message that is kept, in characters.
const MESSAGE_LEN_MAX: usize = 400;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed, or could not be started.
    #[error("`{program}` cannot be started ({source}): install it")]
    Start {
        /// The program.
        program: String,
        /// The reason.
        source: std::io::Error,
    },
    /// It said no.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// What it wrote to standard error.
        message: String,
    },
    /// It did not end in time and was killed.
    #[error("`{command}` did not end within {} s", DEADLINE.as_secs())]
    Deadline {
        /// Program and arguments.
        command: String,
    },
}

/// Runs `program` with `args`, gives it `input`, and returns what it wrote to standard output.
pub async fn run(program: &str, args: &[&str], input: &str) -> Result<String, CommandError> {
    let command = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CommandError::Start { program: program.to_owned(), source })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that ends without reading its input says why on standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ((), out, err) = tokio::join!(write, read(stdout), read(stderr));
        (out, err, child.wait().await)
    };
    let Ok((out, err, status)) = timeout(DEADLINE, work).await else {
        return Err(CommandError::Deadline { command: command() });
    };
    match status {
        Ok(status) if status.success() => Ok(out),
        Ok(_) => {
            let message = err.trim().chars().take(MESSAGE_LEN_MAX).collect();
            Err(CommandError::Failed { command: command(), message })
        }
        Err(error) => Err(CommandError::Failed { command: command(), message: error.to_string() }),
    }
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is still worth showing.
        let _ = stream.take(OUTPUT_LEN_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_gets_its_input_and_says_why_it_fails() {
        assert_eq!(run("cat", &[], "one\ntwo").await.unwrap(), "one\ntwo");
        let failed = run("ls", &["/no/such/thing"], "").await.unwrap_err();
        assert!(failed.to_string().contains("No such file"), "{failed}");
        let missing = run("muster-no-such-program", &[], "").await.unwrap_err();
        assert!(missing.to_string().contains("install it"), "{missing}");
    }
}
