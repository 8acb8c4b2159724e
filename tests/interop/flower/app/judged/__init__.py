"""The app the interop tests run: everything it sends follows from the run's seed and the node's partition."""
