//! Wire types and services.
