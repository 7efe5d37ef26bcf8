//! Calls that change something, except for pushing.

use std::time::Duration;

use sconce_catalog::{ModelName, Split, StickyHeader, Version};
use sconce_proto::{InvalidMessage, sticky_from_wire, sticky_to_wire, v1};

use super::{Control, nonsense};
use crate::{args::Role, failure::Failure};

/// A split that is in force, by what callers are known, and the serial since when.
pub(crate) struct Activated {
    pub(crate) serial: u64,
    pub(crate) split: Split,
    pub(crate) sticky: Option<StickyHeader>,
}

impl Control {
    /// Deletes a version; answers with the serial of the catalog without it.
    pub(crate) async fn delete(&mut self, model: &ModelName, version: &Version) -> Result<u64, Failure> {
        let request =
            self.request(v1::DeleteVersionRequest { model: model.to_string(), version: version.to_string() });
        let answer = self.registry.delete_version(request).await.map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().serial)
    }

    /// Sets the split of a model, and by what callers are known where `sticky` says it.
    pub(crate) async fn set_split(
        &mut self,
        model: &ModelName,
        split: &Split,
        sticky: Option<Option<&StickyHeader>>,
    ) -> Result<Activated, Failure> {
        let request = self.request(v1::SetSplitRequest {
            model: model.to_string(),
            split: Some(split.into()),
            sticky_header: sticky.map(sticky_to_wire),
        });
        let answer = self.registry.set_split(request).await.map_err(|status| self.failure(status))?;
        let answer = answer.into_inner();
        let split = answer.split.unwrap_or_default().try_into().map_err(nonsense)?;
        let sticky = sticky_from_wire(&answer.sticky_header);
        let sticky = sticky.map_err(|error| nonsense(InvalidMessage::Sticky(error)))?;
        Ok(Activated { serial: answer.serial, split, sticky })
    }

    /// Creates a token and answers with its text.
    pub(crate) async fn create_token(&mut self, name: &str, role: Role) -> Result<String, Failure> {
        let role = match role {
            Role::Reader => v1::Role::Reader,
            Role::Pusher => v1::Role::Pusher,
            Role::Operator => v1::Role::Operator,
        };
        let request = self.request(v1::CreateTokenRequest { name: name.to_owned(), role: role.into() });
        let answer = self.registry.create_token(request).await.map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().token)
    }

    /// Revokes a token.
    pub(crate) async fn revoke_token(&mut self, name: &str) -> Result<(), Failure> {
        let request = self.request(v1::RevokeTokenRequest { name: name.to_owned() });
        self.registry.revoke_token(request).await.map_err(|status| self.failure(status))?;
        Ok(())
    }

    /// Creates a join token and answers with its text.
    pub(crate) async fn create_join_token(
        &mut self,
        spiffe_path: &str,
        names: &[String],
        ttl: Duration,
        uses: u32,
    ) -> Result<String, Failure> {
        let request = self.request(v1::CreateJoinTokenRequest {
            spiffe_path: spiffe_path.to_owned(),
            names: names.to_vec(),
            ttl_seconds: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
            uses,
        });
        let answer = self.registry.create_join_token(request).await.map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().token)
    }
}
