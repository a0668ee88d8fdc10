//! The agent: runs the containers of one host and reports their health.
