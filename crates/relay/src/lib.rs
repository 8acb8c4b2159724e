//! The state machine of a relayed run.
