//! Sites in SQL.

use sheaf_domain::{Digest, SiteName, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::column::{
    bytes, digest, hash, millis, number, optional_number, optional_text, optional_time, role, site_name,
    text, time,
};
use crate::{Error, SiteCertificate, SiteRecord, SiteState};

pub(super) async fn put(connection: &mut SqliteConnection, site: &SiteRecord) -> Result<(), Error> {
    if let Some(other) = by_key(connection, site.key_fingerprint).await?
        && other.name != site.name
    {
        return Err(site.key_taken(&other.name));
    }
    let certificate = site.certificate.as_ref();
    let (state, revoked_reason, revoked_at_ms) = state_columns(&site.state)?;
    sqlx::query(
        "INSERT INTO sites (name, role, key_fingerprint, public_key_der, certificate_pem, certificate_serial,
             certificate_not_after_ms, state, revoked_reason, revoked_at_ms, enrolled_at_ms, last_seen_ms, label,
             location)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (name) DO UPDATE
         SET role = excluded.role, key_fingerprint = excluded.key_fingerprint,
             public_key_der = excluded.public_key_der, certificate_pem = excluded.certificate_pem,
             certificate_serial = excluded.certificate_serial,
             certificate_not_after_ms = excluded.certificate_not_after_ms, state = excluded.state,
             revoked_reason = excluded.revoked_reason, revoked_at_ms = excluded.revoked_at_ms,
             enrolled_at_ms = excluded.enrolled_at_ms, last_seen_ms = excluded.last_seen_ms,
             label = excluded.label, location = excluded.location",
    )
    .bind(site.name.as_str())
    .bind(site.role.name())
    .bind(hash(&site.key_fingerprint))
    .bind(site.public_key_der.as_slice())
    .bind(certificate.map(|certificate| certificate.pem.as_str()))
    .bind(certificate.map(|certificate| certificate.serial.as_str()))
    .bind(certificate.map(|certificate| millis(certificate.not_after)).transpose()?)
    .bind(state)
    .bind(revoked_reason)
    .bind(revoked_at_ms)
    .bind(millis(site.enrolled_at)?)
    .bind(site.last_seen.map(millis).transpose()?)
    .bind(site.label.as_deref())
    .bind(site.location.as_deref())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn replace(
    connection: &mut SqliteConnection,
    (present_key, site): &(Digest, SiteRecord),
) -> Result<(), Error> {
    let kept = by_name(connection, &site.name).await?.ok_or_else(|| SiteRecord::unknown(&site.name))?;
    if kept.state != SiteState::Active || kept.key_fingerprint != *present_key {
        return Err(SiteRecord::changed(&site.name));
    }
    put(connection, site).await
}

pub(super) async fn by_name(
    connection: &mut SqliteConnection,
    name: &SiteName,
) -> Result<Option<SiteRecord>, Error> {
    let row = sqlx::query("SELECT * FROM sites WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(site).transpose()
}

pub(super) async fn by_key(
    connection: &mut SqliteConnection,
    key_fingerprint: Digest,
) -> Result<Option<SiteRecord>, Error> {
    let row = sqlx::query("SELECT * FROM sites WHERE key_fingerprint = $1")
        .bind(hash(&key_fingerprint))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(site).transpose()
}

pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<SiteRecord>, Error> {
    let rows = sqlx::query("SELECT * FROM sites ORDER BY name").fetch_all(connection).await?;
    rows.iter().map(site).collect()
}

pub(super) async fn set_state(
    connection: &mut SqliteConnection,
    (name, state): &(SiteName, SiteState),
) -> Result<(), Error> {
    let (state, revoked_reason, revoked_at_ms) = state_columns(state)?;
    let done =
        sqlx::query("UPDATE sites SET state = $1, revoked_reason = $2, revoked_at_ms = $3 WHERE name = $4")
            .bind(state)
            .bind(revoked_reason)
            .bind(revoked_at_ms)
            .bind(name.as_str())
            .execute(connection)
            .await?;
    if done.rows_affected() == 0 { Err(SiteRecord::unknown(name)) } else { Ok(()) }
}

pub(super) async fn forget(
    connection: &mut SqliteConnection,
    (name, key_fingerprint): &(SiteName, Digest),
) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM sites WHERE name = $1 AND key_fingerprint = $2 AND state = $3")
        .bind(name.as_str())
        .bind(hash(key_fingerprint))
        .bind(REVOKED)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn touch(
    connection: &mut SqliteConnection,
    seen: &Vec<(SiteName, Timestamp)>,
) -> Result<(), Error> {
    for (name, at) in seen {
        sqlx::query(
            "UPDATE sites SET last_seen_ms = $1 WHERE name = $2 AND (last_seen_ms IS NULL OR last_seen_ms < $1)",
        )
        .bind(millis(*at)?)
        .bind(name.as_str())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

type StateColumns<'s> = (&'static str, Option<&'s str>, Option<i64>);

fn state_columns(state: &SiteState) -> Result<StateColumns<'_>, Error> {
    Ok(match state {
        SiteState::Active => (ACTIVE, None, None),
        SiteState::PendingApproval => (PENDING_APPROVAL, None, None),
        SiteState::Revoked { reason, at } => (REVOKED, Some(reason), Some(millis(*at)?)),
    })
}

fn site(row: &SqliteRow) -> Result<SiteRecord, Error> {
    Ok(SiteRecord {
        name: site_name(row, "name")?,
        role: role(row, "role")?,
        key_fingerprint: digest(row, "key_fingerprint")?,
        public_key_der: bytes(row, "public_key_der")?,
        certificate: certificate(row)?,
        state: state(row)?,
        enrolled_at: time(row, "enrolled_at_ms")?,
        last_seen: optional_time(row, "last_seen_ms")?,
        label: optional_text(row, "label")?,
        location: optional_text(row, "location")?,
    })
}

fn certificate(row: &SqliteRow) -> Result<Option<SiteCertificate>, Error> {
    let Some(pem) = optional_text(row, "certificate_pem")? else {
        return Ok(None);
    };
    let serial = text(row, "certificate_serial")?;
    let not_after = Timestamp::from_millis(number(row, "certificate_not_after_ms")?);
    Ok(Some(SiteCertificate { pem, serial, not_after }))
}

fn state(row: &SqliteRow) -> Result<SiteState, Error> {
    match text(row, "state")?.as_str() {
        ACTIVE => Ok(SiteState::Active),
        PENDING_APPROVAL => Ok(SiteState::PendingApproval),
        REVOKED => Ok(SiteState::Revoked {
            reason: optional_text(row, "revoked_reason")?.unwrap_or_default(),
            at: Timestamp::from_millis(optional_number(row, "revoked_at_ms")?.unwrap_or_default()),
        }),
        other => Err(Error::damaged("state", format!("{other:?} is no state of a site"))),
    }
}

const ACTIVE: &str = "active";
const PENDING_APPROVAL: &str = "pending-approval";
const REVOKED: &str = "revoked";
