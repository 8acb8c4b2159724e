-- Format 1: journals with leases, sites, invitations, mail, settings.
-- Times are milliseconds since the Unix epoch; hashes are 32 bytes.

CREATE TABLE journals (
    journal          TEXT   NOT NULL PRIMARY KEY,
    head_seq         BIGINT NOT NULL,
    head_hash        BLOB   NOT NULL,
    lease_epoch      BIGINT NOT NULL,
    lease_holder     TEXT,
    lease_expires_ms BIGINT NOT NULL
);

CREATE TABLE entries (
    journal       TEXT   NOT NULL,
    seq           BIGINT NOT NULL,
    at_ms         BIGINT NOT NULL,
    kind          TEXT   NOT NULL,
    body          TEXT   NOT NULL,
    previous_hash BLOB   NOT NULL,
    hash          BLOB   NOT NULL,
    PRIMARY KEY (journal, seq)
);

CREATE TABLE signed_heads (
    journal   TEXT   NOT NULL PRIMARY KEY,
    seq       BIGINT NOT NULL,
    hash      BLOB   NOT NULL,
    signature BLOB   NOT NULL,
    at_ms     BIGINT NOT NULL
);

CREATE TABLE sites (
    name                     TEXT   NOT NULL PRIMARY KEY,
    role                     TEXT   NOT NULL,
    key_fingerprint          BLOB   NOT NULL UNIQUE,
    public_key_der           BLOB   NOT NULL,
    certificate_pem          TEXT,
    certificate_serial       TEXT,
    certificate_not_after_ms BIGINT,
    state                    TEXT   NOT NULL,
    revoked_reason           TEXT,
    revoked_at_ms            BIGINT,
    enrolled_at_ms           BIGINT NOT NULL,
    last_seen_ms             BIGINT
);

CREATE TABLE invites (
    token_hash    BLOB    NOT NULL PRIMARY KEY,
    site          TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    created_at_ms BIGINT  NOT NULL,
    expires_at_ms BIGINT  NOT NULL,
    approve       BOOLEAN NOT NULL,
    state         TEXT    NOT NULL,
    spent_by      BLOB,
    spent_at_ms   BIGINT
);

CREATE INDEX invites_by_site ON invites (site);

-- AUTOINCREMENT: a number is never given twice, also when the newest mail was forgotten.
CREATE TABLE mails (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    run           TEXT    NOT NULL,
    sender        TEXT    NOT NULL,
    recipient     TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    correlation   TEXT    NOT NULL,
    expires_at_ms BIGINT  NOT NULL,
    body          BLOB,
    header        TEXT    NOT NULL,
    posted_at_ms  BIGINT  NOT NULL,
    acknowledged  BOOLEAN NOT NULL,
    UNIQUE (run, sender, recipient, kind, correlation)
);

CREATE INDEX mails_by_recipient ON mails (recipient, acknowledged, id);
CREATE INDEX mails_by_expiry ON mails (expires_at_ms);

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
