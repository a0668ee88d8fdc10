//! What the owner of the replicated state implements; must not know about Raft.

/// Turns a copy of the state, taken cheaply, into bytes; runs off the apply path.
pub type Encode = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// The replicated state. Every node applies the same entries in the same order.
pub trait StateMachine: Send + 'static {
    /// Applies one committed payload and returns the reply for its proposer. Must be deterministic
    /// and must not fail: a payload that makes no sense is answered, not refused. `at_ms` is the
    /// proposing leader's clock in milliseconds since the epoch, made non-decreasing over `index`.
    fn apply(&mut self, index: u64, at_ms: u64, payload: &[u8]) -> Vec<u8>;

    /// Copies the state cheaply; the returned function encodes the copy later on another thread.
    fn snapshot(&self) -> Encode;

    /// Replaces the state by an encoded snapshot.
    ///
    /// # Errors
    /// Says why the bytes are no snapshot; the node then stops.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
}
