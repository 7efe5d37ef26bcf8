//! Who may do what.

use std::{collections::BTreeMap, fmt, str::FromStr};

use sconce_identity::{Principal, SpiffeId};

use crate::{api::ApiError, store::Store};

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// List and watch.
    Reader,
    /// Push versions: code into other people's pods.
    Pusher,
    /// Everything: splits, deletions, tokens.
    Operator,
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// A SPIFFE id, or `token:<name>`.
    pub(crate) name: String,
    role: Option<Role>,
}

/// Turns a connection and its headers into a caller.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) store: Store,
    pub(crate) roles: std::sync::Arc<BTreeMap<SpiffeId, Role>>,
}

impl Access {
    /// Who is calling: by certificate, else by token.
    pub(crate) async fn caller(
        &self,
        principal: Option<&Principal>,
        bearer: Option<&str>,
    ) -> Result<Caller, ApiError> {
        if let Some(Principal::Spiffe(id)) = principal {
            return Ok(Caller { name: id.to_string(), role: self.roles.get(id).copied() });
        }
        let Some(token) = bearer else {
            return Err(ApiError::Unauthenticated("show a client certificate or a bearer token".into()));
        };
        let (name, role) = self.store.token(token).await?.ok_or_else(|| {
            ApiError::Unauthenticated("the token is not known; it may have been revoked".into())
        })?;
        Ok(Caller { name: format!("token:{name}"), role: Some(role) })
    }
}

impl Caller {
    /// Lets the caller through, or says which role it lacks.
    pub(crate) fn require(&self, role: Role) -> Result<(), ApiError> {
        match self.role {
            Some(own) if own >= role => Ok(()),
            own => Err(ApiError::Denied(format!(
                "{} is {} and needs the role {role}; an operator can give it with SCONCE_ROLES or `sconce token create`",
                self.name,
                own.map_or_else(|| "without a role".to_owned(), |own| format!("a {own}")),
            ))),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Reader => "reader",
            Role::Pusher => "pusher",
            Role::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Role::Reader, Role::Pusher, Role::Operator]
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no role; there are reader, pusher and operator"))
    }
}
