//! Limits on a spec file, checked before and while it is read.

/// Longest spec file, in bytes.
pub const SPEC_LEN_MAX: usize = 256 * 1024;

/// Most services in one file.
pub const SERVICES_MAX: usize = 500;

/// Most nodes (values and keys), counting what aliases repeat.
pub const NODES_MAX: usize = 50_000;

/// Deepest nesting.
pub const DEPTH_MAX: usize = 40;
