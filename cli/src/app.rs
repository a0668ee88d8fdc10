//! What every command needs: the console, the options of every command, and the way to the platform.

use anyhow::Result;

use crate::args::Globals;
use crate::client::Client;
use crate::console::Console;
use crate::contexts::Contexts;

/// One run of the program.
pub struct App {
    /// Its streams.
    pub console: Console,
    /// Options of every command.
    pub globals: Globals,
}

impl App {
    /// A client of the platform that is meant.
    ///
    /// # Errors
    /// No context says which one, or it cannot be used.
    pub fn client(&self) -> Result<Client> {
        let wanted = self.globals.context.as_deref();
        // A file needs no home directory.
        let path = match wanted.filter(|wanted| wanted.contains('/')) {
            Some(file) => file.into(),
            None => Contexts::of_user()?.resolve(wanted)?,
        };
        Client::open(&path)
    }
}
