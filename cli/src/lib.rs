//! The operator's command line: parses, asks, calls, prints. Decides nothing about the platform.

pub mod age;
pub mod app;
pub mod archive;
pub mod args;
pub mod ask;
pub mod client;
pub mod commands;
pub mod console;
pub mod contexts;
pub mod diagnostics;
pub mod exit;
pub mod output;
pub mod pages;
pub mod progress;
mod shell;
pub mod spec_file;
pub mod wait;

use app::App;
use args::Cli;
use console::Console;
use exit::Exit;
use output::Tone;

/// Runs one command and says what went wrong.
pub async fn run(cli: Cli, console: Console) -> Exit {
    let app = App { console: console.clone(), globals: cli.globals };
    let error = match commands::run(&app, cli.command).await {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    if exit::is_closed_pipe(&error) {
        return Exit::Ok;
    }
    let paint = console.err_paint;
    let mut text = exit::describe(&error);
    // Mistakes in a file bring their own heading.
    if !text.contains("-->") {
        text = format!("{} {text}", paint.tone(Tone::Bad, "error:"));
    }
    if let Some(hint) = exit::hint(&error) {
        text.push_str(&format!("\n{} {hint}", paint.tone(Tone::Strong, "hint:")));
    }
    // If nobody reads the message either, the exit code still tells.
    console.note(text).ok();
    exit::of(&error)
}
