//! A drill's writer: sends rows, keeps a ledger, verifies it.
