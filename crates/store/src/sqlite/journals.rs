//! Journals in SQL: leases, entries, heads.

use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sheaf_domain::{Digest, GENESIS, JournalEntry, JournalId, Span, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::column::{
    bytes, digest, hash, millis, millis_at_most, number, optional_text, parsed, signed, text, time,
};
use crate::journal::chain;
use crate::lease::{LeaseRow, holder_of};
use crate::{Append, Appended, ENTRIES_LIMIT_MAX, Error, Lease, PAGE_BYTES_MAX, SignedHead};

pub(super) async fn acquire_lease(
    connection: &mut SqliteConnection,
    (journal, holder, ttl, now): &(JournalId, String, Span, Timestamp),
) -> Result<Lease, Error> {
    let kept = lease_row(connection, *journal).await?;
    let lease = Lease::acquire(*journal, kept.as_ref(), holder, *ttl, *now)?;
    keep_lease(connection, &lease).await?;
    Ok(lease)
}

pub(super) async fn renew_lease(
    connection: &mut SqliteConnection,
    (journal, epoch, ttl, now): &(JournalId, u64, Span, Timestamp),
) -> Result<Lease, Error> {
    let kept = lease_row(connection, *journal).await?;
    let lease = Lease::renew(*journal, kept.as_ref(), *epoch, *ttl, *now)?;
    keep_lease(connection, &lease).await?;
    Ok(lease)
}

pub(super) async fn release_lease(
    connection: &mut SqliteConnection,
    (journal, epoch): &(JournalId, u64),
) -> Result<(), Error> {
    let kept = lease_row(connection, *journal).await?;
    holder_of(*journal, kept.as_ref(), *epoch)?;
    sqlx::query("UPDATE journals SET lease_holder = NULL WHERE journal = $1")
        .bind(journal.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn append(
    connection: &mut SqliteConnection,
    batch: &Vec<Append>,
) -> Result<Vec<Appended>, Error> {
    let mut appended = Vec::with_capacity(batch.len());
    for append in batch {
        let kept = journal_row(connection, append.journal).await?;
        holder_of(append.journal, kept.as_ref().map(|row| &row.lease), append.lease_epoch)?;
        let placed = chain(append, kept.map_or((0, GENESIS), |row| row.head))?;
        keep_entries(connection, &placed).await?;
        appended.push(placed);
    }
    Ok(appended)
}

/// Removes a journal and notes that in another; also says which it was.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    (journal, lease_epoch, note): &(JournalId, u64, Append),
) -> Result<(JournalId, Appended), Error> {
    let kept = lease_row(connection, *journal).await?;
    let kept = kept.ok_or_else(|| Error::NotFound(format!("journal {journal}")))?;
    holder_of(*journal, Some(&kept), *lease_epoch)?;
    for query in [
        "DELETE FROM entries WHERE journal = $1",
        "DELETE FROM signed_heads WHERE journal = $1",
        "DELETE FROM journals WHERE journal = $1",
    ] {
        sqlx::query(query).bind(journal.to_string()).execute(&mut *connection).await?;
    }
    let mut noted = append(connection, &vec![note.clone()]).await?;
    let noted = noted.pop().ok_or_else(|| Error::damaged("batch", "an append has no outcome"))?;
    Ok((*journal, noted))
}

pub(super) async fn entries(
    connection: &mut SqliteConnection,
    journal: JournalId,
    after_seq: u64,
    limit: u32,
) -> Result<Vec<JournalEntry>, Error> {
    let mut rows = sqlx::query(
        "SELECT seq, at_ms, kind, body, previous_hash, hash FROM entries
         WHERE journal = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(journal.to_string())
    .bind(i64::try_from(after_seq).unwrap_or(i64::MAX))
    .bind(i64::from(limit.min(ENTRIES_LIMIT_MAX)))
    .fetch(connection);
    let mut page = Vec::new();
    let mut page_bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let entry = entry(&row)?;
        page_bytes += entry.body.len();
        if page_bytes > PAGE_BYTES_MAX && !page.is_empty() {
            break;
        }
        page.push(entry);
    }
    Ok(page)
}

pub(super) async fn head(
    connection: &mut SqliteConnection,
    journal: JournalId,
) -> Result<(u64, Digest), Error> {
    Ok(journal_row(connection, journal).await?.map_or((0, GENESIS), |row| row.head))
}

/// Every journal with the number of its last entry.
pub(super) async fn heads(connection: &mut SqliteConnection) -> Result<Vec<(JournalId, u64)>, Error> {
    let rows = sqlx::query("SELECT journal, head_seq FROM journals").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((parsed(row, "journal")?, number(row, "head_seq")?))).collect()
}

pub(super) async fn put_signed_head(
    connection: &mut SqliteConnection,
    head: &SignedHead,
) -> Result<(), Error> {
    let journal = head.journal.to_string();
    let seq = i64::try_from(head.seq).map_err(|_| head.not_in_journal())?;
    sqlx::query("SELECT seq FROM entries WHERE journal = $1 AND seq = $2 AND hash = $3")
        .bind(&journal)
        .bind(seq)
        .bind(hash(&head.hash))
        .fetch_optional(&mut *connection)
        .await?
        .ok_or_else(|| head.not_in_journal())?;
    sqlx::query(
        "INSERT INTO signed_heads (journal, seq, hash, signature, at_ms) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (journal) DO UPDATE
         SET seq = excluded.seq, hash = excluded.hash, signature = excluded.signature, at_ms = excluded.at_ms
         WHERE signed_heads.seq <= excluded.seq",
    )
    .bind(&journal)
    .bind(seq)
    .bind(hash(&head.hash))
    .bind(head.signature.as_slice())
    .bind(millis(head.at)?)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn signed_head(
    connection: &mut SqliteConnection,
    journal: JournalId,
) -> Result<Option<SignedHead>, Error> {
    let row = sqlx::query("SELECT seq, hash, signature, at_ms FROM signed_heads WHERE journal = $1")
        .bind(journal.to_string())
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(SignedHead {
            journal,
            seq: number(&row, "seq")?,
            hash: digest(&row, "hash")?,
            signature: bytes(&row, "signature")?,
            at: time(&row, "at_ms")?,
        })
    })
    .transpose()
}

/// A journal's lease; its end, which may be damaged, is not read.
async fn lease_row(connection: &mut SqliteConnection, journal: JournalId) -> Result<Option<LeaseRow>, Error> {
    let row =
        sqlx::query("SELECT lease_epoch, lease_holder, lease_expires_ms FROM journals WHERE journal = $1")
            .bind(journal.to_string())
            .fetch_optional(connection)
            .await?;
    row.as_ref().map(lease).transpose()
}

fn lease(row: &SqliteRow) -> Result<LeaseRow, Error> {
    Ok(LeaseRow {
        epoch: number(row, "lease_epoch")?,
        holder: optional_text(row, "lease_holder")?,
        expires_at: time(row, "lease_expires_ms")?,
    })
}

struct JournalRow {
    head: (u64, Digest),
    lease: LeaseRow,
}

async fn journal_row(
    connection: &mut SqliteConnection,
    journal: JournalId,
) -> Result<Option<JournalRow>, Error> {
    let row = sqlx::query(
        "SELECT head_seq, head_hash, lease_epoch, lease_holder, lease_expires_ms FROM journals WHERE journal = $1",
    )
    .bind(journal.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(JournalRow { head: (number(&row, "head_seq")?, digest(&row, "head_hash")?), lease: lease(&row)? })
    })
    .transpose()
}

async fn keep_lease(connection: &mut SqliteConnection, lease: &Lease) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO journals (journal, head_seq, head_hash, lease_epoch, lease_holder, lease_expires_ms)
         VALUES ($1, 0, $2, $3, $4, $5)
         ON CONFLICT (journal) DO UPDATE
         SET lease_epoch = excluded.lease_epoch, lease_holder = excluded.lease_holder,
             lease_expires_ms = excluded.lease_expires_ms",
    )
    .bind(lease.journal.to_string())
    .bind(hash(&GENESIS))
    .bind(signed(lease.epoch)?)
    .bind(lease.holder.as_str())
    .bind(millis_at_most(lease.expires_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Statements that add several entries, the longest first: a statement costs much more than a row of it. A few lengths only,
/// so that each is prepared once.
static INSERTS: LazyLock<[(usize, String); 4]> =
    LazyLock::new(|| [128, 32, 8, 1].map(|rows| (rows, insert_of(rows))));

fn insert_of(rows: usize) -> String {
    const COLUMNS: usize = 7;
    let row = |row_idx: usize| {
        let places: Vec<String> =
            (1..=COLUMNS).map(|column| format!("${}", row_idx * COLUMNS + column)).collect();
        format!("({})", places.join(", "))
    };
    let values: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO entries (journal, seq, at_ms, kind, body, previous_hash, hash) VALUES {}",
        values.join(", ")
    )
}

async fn keep_entries(connection: &mut SqliteConnection, placed: &Appended) -> Result<(), Error> {
    let journal = placed.journal.to_string();
    let mut left = placed.entries.as_slice();
    while !left.is_empty() {
        let sql = INSERTS.iter().find(|(rows, _)| *rows <= left.len()).or_else(|| INSERTS.last());
        let Some((rows, sql)) = sql else { break };
        let (now, later) = left.split_at((*rows).min(left.len()));
        let mut insert = sqlx::query(sql.as_str());
        for entry in now {
            insert = insert
                .bind(&journal)
                .bind(signed(entry.seq)?)
                .bind(millis(entry.at)?)
                .bind(&entry.kind)
                .bind(&entry.body)
                .bind(hash(&entry.previous))
                .bind(hash(&entry.hash));
        }
        insert.execute(&mut *connection).await?;
        left = later;
    }
    if let Some(last) = placed.entries.last() {
        sqlx::query("UPDATE journals SET head_seq = $1, head_hash = $2 WHERE journal = $3")
            .bind(signed(last.seq)?)
            .bind(hash(&last.hash))
            .bind(&journal)
            .execute(connection)
            .await?;
    }
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<JournalEntry, Error> {
    Ok(JournalEntry {
        seq: number(row, "seq")?,
        at: time(row, "at_ms")?,
        kind: text(row, "kind")?,
        body: text(row, "body")?,
        previous: digest(row, "previous_hash")?,
        hash: digest(row, "hash")?,
    })
}
