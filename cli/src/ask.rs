//! When a command asks before it acts, and what it refuses without a terminal. Never acts itself.

use anyhow::Result;

use crate::console::Console;
use crate::exit::{Exit, Failure};

/// How sure an operator must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care<'a> {
    /// Disturbs what runs: `y` is enough.
    Disruptive,
    /// Cannot be undone: this word must be typed.
    Destructive(&'a str),
}

/// Goes on only if the operator agrees: by `--yes`, or on the terminal.
///
/// # Errors
/// No (exit 1); or nobody can be asked (exit 64, `remedy` says what to do instead).
pub fn confirm(console: &Console, yes: bool, care: Care<'_>, question: &str, remedy: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !console.can_ask {
        let message = format!("{question} Nobody can be asked: this is not a terminal");
        return Err(Failure::new(Exit::Usage, message).hint(remedy).into());
    }
    let agreed = match care {
        Care::Disruptive => {
            let answer = console.ask(&format!("{question} [y/N] "))?;
            answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
        }
        Care::Destructive(word) => console.ask(&format!("{question} Type `{word}` to go on: "))? == word,
    };
    if agreed { Ok(()) } else { Err(Failure::new(Exit::Error, "nothing was done").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Format;
    use crate::exit;

    fn asked(yes: bool, can_ask: bool, input: &'static str, care: Care<'_>) -> Option<Exit> {
        let (mut console, ..) = Console::buffered(Format::Table, input);
        console.can_ask = can_ask;
        confirm(&console, yes, care, "Restart web?", "add --yes").err().map(|error| exit::of(&error))
    }

    #[test]
    fn without_a_terminal_only_yes_goes_on() {
        assert_eq!(asked(false, false, "y\n", Care::Disruptive), Some(Exit::Usage));
        assert_eq!(asked(true, false, "", Care::Disruptive), None);
        assert_eq!(asked(true, false, "", Care::Destructive("web")), None);
    }

    #[test]
    fn on_a_terminal_only_a_clear_answer_goes_on() {
        assert_eq!(asked(false, true, "y\n", Care::Disruptive), None);
        assert_eq!(asked(false, true, "YES\n", Care::Disruptive), None);
        for no in ["\n", "n\n", "", "yeah\n"] {
            assert_eq!(asked(false, true, no, Care::Disruptive), Some(Exit::Error), "{no:?}");
        }
        assert_eq!(asked(false, true, "web\n", Care::Destructive("web")), None);
        assert_eq!(asked(false, true, "y\n", Care::Destructive("web")), Some(Exit::Error));
    }
}
