//! Reads the operator's YAML: strict, with line, column and remedy in every error.
