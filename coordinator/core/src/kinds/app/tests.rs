//! Golden files and decisions of this kind.
