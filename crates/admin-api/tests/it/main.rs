//! The operators' API as its callers see it: every route, who may call it, and its OpenAPI document.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, in its helpers too")]

mod document;
mod routes;
