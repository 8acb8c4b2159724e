//! The messages of OpenFL's protocol, as compiled from `proto/openfl/v1`.
//!
//! Modules are nested as the packages are: messages of the empty package at the top, those of the aggregator below.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/_.rs"));

pub mod openfl {
    pub mod aggregator {
        include!(concat!(env!("OUT_DIR"), "/openfl.aggregator.rs"));
    }
}
