//! Invitations in SQL.

use sheaf_domain::{Digest, SiteName, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::column::{digest, flag, hash, millis, millis_at_most, role, site_name, text, time};
use crate::{Error, Invite, InviteState, SpendOutcome};

pub(super) async fn put(connection: &mut SqliteConnection, invite: &Invite) -> Result<(), Error> {
    let (state, spent_by, spent_at_ms) = state_columns(&invite.state)?;
    let done = sqlx::query(
        "INSERT INTO invites (token_hash, site, role, created_at_ms, expires_at_ms, approve, state, spent_by,
             spent_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (token_hash) DO NOTHING",
    )
    .bind(hash(&invite.token_hash))
    .bind(invite.site.as_str())
    .bind(invite.role.name())
    .bind(millis(invite.created_at)?)
    .bind(millis(invite.expires_at)?)
    .bind(invite.approve)
    .bind(state)
    .bind(spent_by)
    .bind(spent_at_ms)
    .execute(connection)
    .await?;
    if done.rows_affected() == 0 { Err(invite.token_taken()) } else { Ok(()) }
}

pub(super) async fn by_token(
    connection: &mut SqliteConnection,
    token_hash: Digest,
) -> Result<Option<Invite>, Error> {
    let row = sqlx::query("SELECT * FROM invites WHERE token_hash = $1")
        .bind(hash(&token_hash))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(invite).transpose()
}

pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Invite>, Error> {
    let rows =
        sqlx::query("SELECT * FROM invites ORDER BY created_at_ms, token_hash").fetch_all(connection).await?;
    rows.iter().map(invite).collect()
}

pub(super) async fn spend(
    connection: &mut SqliteConnection,
    (token_hash, key_fingerprint, now): &(Digest, Digest, Timestamp),
) -> Result<SpendOutcome, Error> {
    let Some(kept) = by_token(connection, *token_hash).await? else {
        return Ok(SpendOutcome::Unknown);
    };
    let outcome = kept.spend(*key_fingerprint, *now);
    if let SpendOutcome::Spent(spent) = &outcome {
        let (state, spent_by, spent_at_ms) = state_columns(&spent.state)?;
        sqlx::query("UPDATE invites SET state = $1, spent_by = $2, spent_at_ms = $3 WHERE token_hash = $4")
            .bind(state)
            .bind(spent_by)
            .bind(spent_at_ms)
            .bind(hash(token_hash))
            .execute(connection)
            .await?;
    }
    Ok(outcome)
}

pub(super) async fn withdraw(connection: &mut SqliteConnection, site: &SiteName) -> Result<u64, Error> {
    let done = sqlx::query("UPDATE invites SET state = $1 WHERE site = $2 AND state = $3")
        .bind(WITHDRAWN)
        .bind(site.as_str())
        .bind(OPEN)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

pub(super) async fn forget(connection: &mut SqliteConnection, before: &Timestamp) -> Result<u64, Error> {
    let done = sqlx::query("DELETE FROM invites WHERE expires_at_ms < $1 AND state <> $2")
        .bind(millis_at_most(*before))
        .bind(SPENT)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

type StateColumns<'s> = (&'static str, Option<&'s [u8]>, Option<i64>);

fn state_columns(state: &InviteState) -> Result<StateColumns<'_>, Error> {
    Ok(match state {
        InviteState::Open => (OPEN, None, None),
        InviteState::Spent { by, at } => (SPENT, Some(hash(by)), Some(millis(*at)?)),
        InviteState::Withdrawn => (WITHDRAWN, None, None),
    })
}

fn invite(row: &SqliteRow) -> Result<Invite, Error> {
    let state = match text(row, "state")?.as_str() {
        OPEN => InviteState::Open,
        SPENT => InviteState::Spent { by: digest(row, "spent_by")?, at: time(row, "spent_at_ms")? },
        WITHDRAWN => InviteState::Withdrawn,
        other => return Err(Error::damaged("state", format!("{other:?} is no state of an invitation"))),
    };
    Ok(Invite {
        site: site_name(row, "site")?,
        token_hash: digest(row, "token_hash")?,
        role: role(row, "role")?,
        created_at: time(row, "created_at_ms")?,
        expires_at: time(row, "expires_at_ms")?,
        approve: flag(row, "approve")?,
        state,
    })
}

const OPEN: &str = "open";
const SPENT: &str = "spent";
const WITHDRAWN: &str = "withdrawn";
