//! Mail in SQL.

use sheaf_domain::{Mail, MailDraft, MailId, Principal, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::column::{hash, millis, millis_at_most, number, optional_digest, parsed, signed, text, time};
use crate::mail::{MAIL_LIMIT_MAX, principal};
use crate::{Error, MailLimits};

pub(super) async fn post(
    connection: &mut SqliteConnection,
    (draft, now, limits): &(MailDraft, Timestamp, MailLimits),
) -> Result<(Mail, bool), Error> {
    match same(connection, draft).await? {
        Some(mail) if mail.draft.expires_at > *now => return Ok((mail, false)),
        Some(expired) => forget(connection, expired.id).await?,
        None => {}
    }
    if num_waiting(connection, &draft.to, *now).await? >= u64::from(limits.waiting_max) {
        return Err(Error::MailboxFull { recipient: draft.to.clone(), limit: limits.waiting_max });
    }
    let row = sqlx::query(
        "INSERT INTO mails (run, sender, recipient, kind, correlation, expires_at_ms, body, header, posted_at_ms,
             acknowledged)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
    )
    .bind(draft.run.to_string())
    .bind(draft.from.to_string())
    .bind(draft.to.to_string())
    .bind(&draft.kind)
    .bind(&draft.correlation)
    .bind(millis(draft.expires_at)?)
    .bind(draft.body.as_ref().map(hash))
    .bind(&draft.header)
    .bind(millis(*now)?)
    .bind(false)
    .fetch_one(connection)
    .await?;
    Ok((Mail { id: MailId(number(&row, "id")?), draft: draft.clone(), posted_at: *now }, true))
}

pub(super) async fn waiting(
    connection: &mut SqliteConnection,
    to: &Principal,
    kinds: &[String],
    after: Option<MailId>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<Mail>, Error> {
    let after = i64::try_from(after.map_or(0, |id| id.0)).unwrap_or(i64::MAX);
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM mails WHERE recipient = ");
    query.push_bind(to.to_string()).push(" AND acknowledged = ").push_bind(false);
    query.push(" AND id > ").push_bind(after);
    query.push(" AND expires_at_ms > ").push_bind(millis_at_most(now));
    if !kinds.is_empty() {
        let mut listed = query.push(" AND kind IN (").separated(", ");
        for kind in kinds {
            listed.push_bind(kind.as_str());
        }
        query.push(")");
    }
    query.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit.min(MAIL_LIMIT_MAX)));
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(mail).collect()
}

pub(super) async fn ack(
    connection: &mut SqliteConnection,
    (to, mails, limits): &(Principal, Vec<MailId>, MailLimits),
) -> Result<u64, Error> {
    let recipient = to.to_string();
    let mut ended = 0;
    for id in mails {
        let Ok(id) = signed(id.0) else {
            continue;
        };
        let done = sqlx::query(
            "UPDATE mails SET acknowledged = $1 WHERE id = $2 AND recipient = $3 AND acknowledged = $4",
        )
        .bind(true)
        .bind(id)
        .bind(&recipient)
        .bind(false)
        .execute(&mut *connection)
        .await?;
        ended += done.rows_affected();
    }
    forget_oldest_acknowledged(connection, &recipient, limits.acknowledged_max).await?;
    Ok(ended)
}

pub(super) async fn expire(connection: &mut SqliteConnection, now: &Timestamp) -> Result<u64, Error> {
    let done = sqlx::query("DELETE FROM mails WHERE expires_at_ms <= $1")
        .bind(millis_at_most(*now))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// The mail posted before under the key of `draft`.
async fn same(connection: &mut SqliteConnection, draft: &MailDraft) -> Result<Option<Mail>, Error> {
    let row = sqlx::query(
        "SELECT * FROM mails
         WHERE run = $1 AND sender = $2 AND recipient = $3 AND kind = $4 AND correlation = $5",
    )
    .bind(draft.run.to_string())
    .bind(draft.from.to_string())
    .bind(draft.to.to_string())
    .bind(&draft.kind)
    .bind(&draft.correlation)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(mail).transpose()
}

async fn forget(connection: &mut SqliteConnection, id: MailId) -> Result<(), Error> {
    sqlx::query("DELETE FROM mails WHERE id = $1").bind(signed(id.0)?).execute(connection).await?;
    Ok(())
}

async fn num_waiting(
    connection: &mut SqliteConnection,
    to: &Principal,
    now: Timestamp,
) -> Result<u64, Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS waiting FROM mails
         WHERE recipient = $1 AND acknowledged = $2 AND expires_at_ms > $3",
    )
    .bind(to.to_string())
    .bind(false)
    .bind(millis(now)?)
    .fetch_one(connection)
    .await?;
    number(&row, "waiting")
}

async fn forget_oldest_acknowledged(
    connection: &mut SqliteConnection,
    recipient: &str,
    keep: u32,
) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM mails WHERE recipient = $1 AND acknowledged = $2 AND id <= (
             SELECT id FROM mails WHERE recipient = $1 AND acknowledged = $2 ORDER BY id DESC LIMIT 1 OFFSET $3
         )",
    )
    .bind(recipient)
    .bind(true)
    .bind(i64::from(keep))
    .execute(connection)
    .await?;
    Ok(())
}

fn mail(row: &SqliteRow) -> Result<Mail, Error> {
    Ok(Mail {
        id: MailId(number(row, "id")?),
        draft: MailDraft {
            run: parsed(row, "run")?,
            from: principal(&text(row, "sender")?)?,
            to: principal(&text(row, "recipient")?)?,
            kind: text(row, "kind")?,
            correlation: text(row, "correlation")?,
            expires_at: time(row, "expires_at_ms")?,
            body: optional_digest(row, "body")?,
            header: text(row, "header")?,
        },
        posted_at: time(row, "posted_at_ms")?,
    })
}
