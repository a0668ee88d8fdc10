//! What is compared: a replicated control plane of three members that takes small writes.

use std::future::Future;

use anyhow::Result;

/// Members of each side.
pub const MEMBERS: usize = 3;

/// One of the two.
pub trait Side {
    /// Its clients.
    type Writer: Writer;

    /// Its name.
    fn name(&self) -> &'static str;

    /// A client with a connection of its own to one member.
    fn writer(&self, member: usize) -> impl Future<Output = Result<Self::Writer>>;

    /// The member that leads.
    fn leader(&self) -> impl Future<Output = Result<usize>>;

    /// Kills a member as a power cut would.
    fn kill(&mut self, member: usize) -> impl Future<Output = Result<()>>;

    /// Starts a killed member again.
    fn start(&mut self, member: usize) -> Result<()>;
}

/// A client.
pub trait Writer: Send + 'static {
    /// One write that is on the disks of a majority when this returns.
    fn write(&mut self) -> impl Future<Output = Result<()>> + Send;
}
