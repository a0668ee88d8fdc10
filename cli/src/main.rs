//! Entry point of `muster`: the command line in, the exit code out.

use std::process::ExitCode;

use clap::Parser;
use muster_cli::args::Cli;
use muster_cli::console::Console;
use muster_cli::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end well; the rest is wrong usage. A closed pipe is nobody's mistake.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let console = Console::standard(cli.globals.output, cli.globals.no_color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console.note(format!("error: cannot start: {error}")).ok();
            return Exit::Error.into();
        }
    };
    let exit = runtime.block_on(muster_cli::run(cli, console));
    // A read from the terminal, or a background connection, must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}
