//! What comparisons with peers share: rounds, medians, bars.

pub mod rounds;
