//! Limits on a spec file, checked before and while it is read.

/// Longest spec file, in bytes.
pub const SPEC_LEN_MAX: usize = 256 * 1024;

/// Most services in one file.
pub const SERVICES_MAX: usize = 500;

/// Most nodes (values and keys), counting what aliases repeat.
pub const NODES_MAX: usize = 50_000;

/// Deepest nesting.
pub const DEPTH_MAX: usize = 40;

/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 256;

/// Most characters of a message or path that are shown.
pub const TEXT_SHOWN: usize = 300;

/// Longest word for which a similar one is looked for, in bytes.
pub const WORD_MAX: usize = 64;
