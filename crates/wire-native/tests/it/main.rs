//! The native protocol end to end: the real client transports against the real coordinator, over real TLS on loopback.

mod bad_grpc;
mod bad_https;
mod calls;
mod certificates;
mod openapi;
mod participant;
mod proxies;
mod world;
