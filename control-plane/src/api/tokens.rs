//! Tokens, made and taken back: the same whichever protocol asks.

use super::{Api, ApiError};
use crate::{
    access::{Caller, Role},
    store::Join,
};

const DEFAULT_JOIN_SECONDS: u32 = 600;
/// A token that outlives a quarter is no longer a way to join, it is a password.
const LONGEST_JOIN_SECONDS: u32 = 90 * 24 * 3600;

impl Api {
    /// Makes a token for callers without a certificate.
    pub(super) async fn create_token(
        &self,
        caller: &Caller,
        name: &str,
        role: Role,
    ) -> Result<String, ApiError> {
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(ApiError::Invalid(format!(
                "{name:?} is no name for a token; call it after its user"
            )));
        }
        let token = self.store.create_token(name, role).await?;
        self.done(&caller.name, "token.create", name, format!("role {role}")).await?;
        Ok(token)
    }

    /// Takes a token back.
    pub(super) async fn revoke_token(&self, caller: &Caller, name: &str) -> Result<(), ApiError> {
        self.store.revoke_token(name).await?;
        self.done(&caller.name, "token.revoke", name, String::new()).await
    }

    /// Makes a token for a sidecar that is about to join. `ttl_seconds` and `uses` may be 0,
    /// for ten minutes and once.
    pub(super) async fn create_join_token(
        &self,
        caller: &Caller,
        join: &Join,
        ttl_seconds: u32,
        uses: u32,
    ) -> Result<String, ApiError> {
        let id = self.issuing()?.joinable(&join.spiffe_path)?;
        let ttl = if ttl_seconds == 0 { DEFAULT_JOIN_SECONDS } else { ttl_seconds };
        if ttl > LONGEST_JOIN_SECONDS {
            return Err(ApiError::Invalid(format!(
                "a join token is valid for at most {LONGEST_JOIN_SECONDS} seconds, and {ttl} were asked for"
            )));
        }
        let token = self.store.create_join_token(join, ttl, uses.max(1)).await?;
        self.done(&caller.name, "join-token.create", id.as_str(), format!("valid for {ttl} s")).await?;
        Ok(token)
    }
}
