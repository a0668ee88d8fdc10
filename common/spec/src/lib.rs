//! Reads the operator's YAML: strict, with line, column and remedy in every error. Knows no kind of service.

mod check;
mod limits;
mod parse;
mod suggest;
mod tree;

pub use limits::{SERVICES_MAX, SPEC_LEN_MAX};
pub use parse::{Parsed, parse, parse_document};
pub use suggest::nearest;
pub use tree::Places;
