//! The operators' REST API, under `/admin/v1`: JSON over HTTPS with an operator's client certificate.
//!
//! It translates between HTTP and the coordinator's handle and decides nothing. The OpenAPI document is
//! `docs/openapi/admin.v1.json`; a test holds it against the routes.

mod body;
mod export;
mod logins;
mod models;
mod records;
mod routes;
mod runs;
mod sites;
mod status;
mod uploads;

pub use body::{
    ApproveBody, BackupBody, CreateRunBody, CreatedRun, ErrorBody, ErrorDetail, ExtendBody, HeadBody,
    InviteBody, JournalBody, KitBody, LoginBody, ModelBody, PlanBody, PlanSummary, ReasonBody, RemoveBody,
};
pub use export::{
    CheckedExport, EXPORT_LINE_LEN_MAX, ExportError, HEAD_LINE_LEN_MAX, HeadLine, check_export,
};
pub use routes::{ROUTES, router};
