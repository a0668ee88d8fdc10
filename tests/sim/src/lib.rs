//! Seeded simulation of the core and the agent's pure parts.
