//! The part of `base2histogram` that openraft's statistics use, without that crate's 26 MB of tables. Measures nothing
//! of ours: a coordinator's own figures come from elsewhere.

mod chart;
mod histogram;
mod percentiles;

pub use chart::AsciiChart;
pub use histogram::Histogram;
pub use percentiles::PercentileStats;
