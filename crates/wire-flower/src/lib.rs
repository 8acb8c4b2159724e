//! The Flower front-end: stock SuperNodes, ServerApps and the `flwr` command, over HTTP and gRPC.
