//! The coordinator: decides which host runs which member.
