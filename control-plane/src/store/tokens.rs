//! Tokens: for callers without a certificate, and for those about to get one.

use rand::RngExt as _;
use sconce_artifact::digest;
use sqlx::Row as _;

use super::{Store, now_ms};
use crate::{access::Role, api::ApiError};

/// What a join token is good for.
pub(crate) struct Join {
    pub(crate) spiffe_path: String,
    /// DNS names and IP addresses that its bearer may have.
    pub(crate) names: Vec<String>,
}

impl Store {
    /// Makes a token and returns it; the store keeps only its digest.
    pub(crate) async fn create_token(&self, name: &str, role: Role) -> Result<String, ApiError> {
        let token = random("sct_");
        let made =
            sqlx::query("INSERT INTO tokens (digest, name, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(digest(token.as_bytes()).hex())
                .bind(name)
                .bind(role.to_string())
                .execute(&self.0.database)
                .await?;
        if made.rows_affected() == 0 {
            return Err(ApiError::Conflict(format!(
                "there is a token named {name:?} already; revoke it first"
            )));
        }
        Ok(token)
    }

    /// Takes a token back.
    pub(crate) async fn revoke_token(&self, name: &str) -> Result<(), ApiError> {
        let gone =
            sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name).execute(&self.0.database).await?;
        if gone.rows_affected() == 0 {
            return Err(ApiError::NotFound(format!("there is no token named {name:?}")));
        }
        Ok(())
    }

    /// Name and role of a token that is valid.
    pub(crate) async fn token(&self, token: &str) -> Result<Option<(String, Role)>, ApiError> {
        let row = sqlx::query("SELECT name, role FROM tokens WHERE digest = $1")
            .bind(digest(token.as_bytes()).hex())
            .fetch_optional(&self.0.database)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let role: String = row.try_get("role")?;
        Ok(Some((
            row.try_get("name")?,
            role.parse().map_err(|error: String| ApiError::internal(&"a token", &error))?,
        )))
    }

    /// Makes a join token and returns it.
    pub(crate) async fn create_join_token(
        &self,
        join: &Join,
        ttl_seconds: u32,
        uses: u32,
    ) -> Result<String, ApiError> {
        let token = random("sjt_");
        let names =
            serde_json::to_string(&join.names).map_err(|error| ApiError::internal(&"names", &error))?;
        sqlx::query("INSERT INTO join_tokens (digest, spiffe_path, names, expires_ms, uses) VALUES ($1, $2, $3, $4, $5)")
            .bind(digest(token.as_bytes()).hex())
            .bind(&join.spiffe_path)
            .bind(names)
            .bind(now_ms() + i64::from(ttl_seconds) * 1000)
            .bind(i64::from(uses))
            .execute(&self.0.database)
            .await?;
        Ok(token)
    }

    /// Uses a join token once.
    pub(crate) async fn use_join_token(&self, token: &str) -> Result<Join, ApiError> {
        // One statement, so that two bearers cannot both have the last use.
        let mut tx = self.0.database.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "UPDATE join_tokens SET uses = uses - 1 WHERE digest = $1 AND uses > 0 AND expires_ms > $2 RETURNING spiffe_path, names",
        )
        .bind(digest(token.as_bytes()).hex())
        .bind(now_ms())
        .fetch_optional(&mut *tx)
        .await?;
        let row = row.ok_or_else(|| {
            ApiError::Unauthenticated(
                "the join token is not known, used up or expired; make a new one with `sconce join-token`"
                    .into(),
            )
        })?;
        let names: String = row.try_get("names")?;
        let join = Join {
            spiffe_path: row.try_get("spiffe_path")?,
            names: serde_json::from_str(&names).map_err(|error| ApiError::internal(&"names", &error))?,
        };
        for name in &join.names {
            sqlx::query(
                "INSERT INTO granted_names (spiffe_path, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(&join.spiffe_path)
            .bind(name)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(join)
    }

    /// The names that this id's join tokens have allowed so far.
    pub(crate) async fn granted_names(&self, spiffe_path: &str) -> Result<Vec<String>, ApiError> {
        let rows = sqlx::query("SELECT name FROM granted_names WHERE spiffe_path = $1")
            .bind(spiffe_path)
            .fetch_all(&self.0.database)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
    }
}

fn random(prefix: &str) -> String {
    let bytes: [u8; 24] = rand::rng().random();
    bytes.iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
