//! The only crate that names openraft: log, transport, membership, reads.
