//! Programs of others, started with walls around them.
