//! The store's tables.

use std::path::Path;

use sconce_catalog::{Catalog, Model, Serial};
use sqlx::{
    Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{Audit, Change, Event};
use crate::api::ApiError;

const SCHEMA: &str = include_str!("schema.sql");
const PAGE: i64 = 1_000;

pub(super) async fn open(file: &Path) -> Result<SqlitePool, ApiError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged change must survive the machine, not only the process.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    Ok(pool)
}

pub(super) async fn catalog(pool: &SqlitePool) -> Result<Catalog, ApiError> {
    let mut snapshot = pool.begin().await?;
    let serial: i64 =
        sqlx::query("SELECT serial FROM head").fetch_one(&mut *snapshot).await?.try_get("serial")?;
    let rows = sqlx::query("SELECT name, body FROM models").fetch_all(&mut *snapshot).await?;
    let mut catalog = Catalog { serial: Serial(serial.unsigned_abs()), ..Catalog::default() };
    for row in rows {
        let (name, body): (String, String) = (row.try_get("name")?, row.try_get("body")?);
        let damaged = |error: &dyn std::fmt::Display| {
            ApiError::internal(&format!("model `{name}` in the database"), error)
        };
        let model: Model = serde_json::from_str(&body).map_err(|error| damaged(&error))?;
        catalog.models.insert(name.parse().map_err(|error| damaged(&error))?, model);
    }
    Ok(catalog)
}

/// Writes one change whole and returns the id of its event.
pub(super) async fn commit(pool: &SqlitePool, catalog: &Catalog, change: Change) -> Result<u64, ApiError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let before = catalog.serial.0 - 1;
    let moved = sqlx::query("UPDATE head SET serial = $1 WHERE serial = $2")
        .bind(number(catalog.serial.0))
        .bind(number(before))
        .execute(&mut *tx)
        .await?;
    if moved.rows_affected() != 1 {
        return Err(ApiError::internal(
            &"the database",
            &"another process has changed it; one control plane uses a folder",
        ));
    }
    match catalog.models.get(&change.model) {
        Some(model) => {
            let body =
                serde_json::to_string(model).map_err(|error| ApiError::internal(&"the model", &error))?;
            sqlx::query("INSERT INTO models (name, body) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET body = excluded.body")
                .bind(change.model.to_string())
                .bind(body)
                .execute(&mut *tx)
                .await?;
        }
        None => {
            sqlx::query("DELETE FROM models WHERE name = $1")
                .bind(change.model.to_string())
                .execute(&mut *tx)
                .await?;
        }
    }
    if let Some((artifact, body)) = change.manifest {
        sqlx::query("INSERT INTO manifests (artifact, body) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(artifact)
            .bind(body)
            .execute(&mut *tx)
            .await?;
    }
    if let Some(push) = change.push {
        sqlx::query("DELETE FROM pushes WHERE id = $1").bind(push).execute(&mut *tx).await?;
    }
    let event = event_into(&mut tx, &change.event).await?;
    audit_into(&mut tx, &change.audit).await?;
    tx.commit().await?;
    Ok(event)
}

pub(super) async fn insert_event(pool: &SqlitePool, event: &Event) -> Result<u64, ApiError> {
    event_into(&mut *pool.acquire().await?, event).await
}

pub(super) async fn insert_audit(pool: &SqlitePool, entry: &Audit) -> Result<(), ApiError> {
    audit_into(&mut *pool.acquire().await?, entry).await
}

async fn event_into(connection: &mut SqliteConnection, event: &Event) -> Result<u64, ApiError> {
    let row = sqlx::query(
        "INSERT INTO events (at_ms, kind, model, version, sidecar, message) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(event.at_ms)
    .bind(&event.kind)
    .bind(&event.model)
    .bind(&event.version)
    .bind(&event.sidecar)
    .bind(&event.message)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get::<i64, _>("id")?.unsigned_abs())
}

async fn audit_into(connection: &mut SqliteConnection, entry: &Audit) -> Result<(), ApiError> {
    sqlx::query(
        "INSERT INTO audit (at_ms, principal, action, subject, allowed, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(entry.at_ms)
    .bind(&entry.principal)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(entry.allowed)
    .bind(&entry.detail)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn events(pool: &SqlitePool, after: u64) -> Result<Vec<Event>, ApiError> {
    let rows = sqlx::query("SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(number(after))
        .bind(PAGE)
        .fetch_all(pool)
        .await?;
    let event = |row: &SqliteRow| {
        Ok(Event {
            id: row.try_get::<i64, _>("id")?.unsigned_abs(),
            at_ms: row.try_get("at_ms")?,
            kind: row.try_get("kind")?,
            model: row.try_get("model")?,
            version: row.try_get("version")?,
            sidecar: row.try_get("sidecar")?,
            message: row.try_get("message")?,
        })
    };
    rows.iter().map(event).collect()
}

pub(super) async fn audit_log(pool: &SqlitePool, after: u64, limit: u32) -> Result<Vec<Audit>, ApiError> {
    let limit = if limit == 0 { PAGE } else { i64::from(limit).min(PAGE) };
    let rows = sqlx::query("SELECT * FROM audit WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(number(after))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let entry = |row: &SqliteRow| {
        Ok(Audit {
            id: row.try_get::<i64, _>("id")?.unsigned_abs(),
            at_ms: row.try_get("at_ms")?,
            principal: row.try_get("principal")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
            allowed: row.try_get("allowed")?,
            detail: row.try_get("detail")?,
        })
    };
    rows.iter().map(entry).collect()
}

/// Counters here grow by one at a time: none comes near 2^63.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
