//! Events, audit lines and callers, to and from messages.

use sconce_identity::Principal;
use sconce_proto::v1;
use tonic::Request;

use super::{Api, ApiError};
use crate::{
    access::{Caller, Role},
    store::{Audit, Event, now_ms},
};

/// What a caller is about to do, and to what: for the record.
pub(super) struct Act<'a> {
    action: &'static str,
    subject: &'a str,
}

/// Of a name that a caller chose, so much goes on record.
const LONGEST_SUBJECT: usize = 256;

impl From<&'static str> for Act<'_> {
    fn from(action: &'static str) -> Self {
        Self { action, subject: "" }
    }
}

impl<'a> From<(&'static str, &'a String)> for Act<'a> {
    fn from((action, subject): (&'static str, &'a String)) -> Self {
        Self { action, subject }
    }
}

impl Api {
    /// Who sent a request.
    pub(super) async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, ApiError> {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
        self.access.caller(request.extensions().get::<Principal>(), bearer).await
    }

    /// Who sent a request that needs this role.
    pub(super) async fn allow<T>(
        &self,
        request: &Request<T>,
        role: Role,
        act: impl Into<Act<'_>>,
    ) -> Result<Caller, ApiError> {
        let caller = self.caller(request).await?;
        self.permit(caller, role, act.into()).await
    }

    /// Lets a caller through who has this role. A refusal of a change is put on record.
    pub(super) async fn permit(&self, caller: Caller, role: Role, act: Act<'_>) -> Result<Caller, ApiError> {
        let Err(denied) = caller.require(role) else { return Ok(caller) };
        if role > Role::Reader {
            let subject: String = act.subject.chars().take(LONGEST_SUBJECT).collect();
            self.denied(&caller.name, act.action, &subject, denied.to_string()).await?;
        }
        Err(denied)
    }

    /// Puts a change on record that was made outside the catalog.
    pub(super) async fn done(
        &self,
        caller: &str,
        action: &str,
        subject: &str,
        detail: String,
    ) -> Result<(), ApiError> {
        self.store.audit(entry(caller, action, subject, true, detail)).await
    }

    /// Puts a change on record that was refused.
    pub(super) async fn denied(
        &self,
        caller: &str,
        action: &str,
        subject: &str,
        detail: String,
    ) -> Result<(), ApiError> {
        self.store.audit(entry(caller, action, subject, false, detail)).await
    }
}

fn entry(caller: &str, action: &str, subject: &str, allowed: bool, detail: String) -> Audit {
    Audit {
        at_ms: now_ms(),
        principal: caller.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        allowed,
        detail,
        ..Audit::default()
    }
}

pub(super) fn event(event: Event) -> v1::Event {
    v1::Event {
        id: event.id,
        at_ms: event.at_ms,
        r#type: event.kind,
        model: event.model,
        version: event.version,
        sidecar: event.sidecar,
        message: event.message,
    }
}

pub(super) fn audit(entry: Audit) -> v1::AuditEntry {
    v1::AuditEntry {
        id: entry.id,
        at_ms: entry.at_ms,
        principal: entry.principal,
        action: entry.action,
        subject: entry.subject,
        allowed: entry.allowed,
        detail: entry.detail,
    }
}
