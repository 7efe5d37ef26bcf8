//! What the JSON looks like.

use std::collections::BTreeMap;

use sconce_catalog::{Batching, Field, Model, ModelName, VersionRecord};
use sconce_proto::v1::{SidecarStatus, SplitState, VersionState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::publication::PublicationView;
use crate::store::{Audit, Event};

/// Why a call failed.
#[derive(Serialize, ToSchema)]
pub(super) struct Failed {
    pub(super) error: String,
}

/// A change that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    /// Of the catalog that has it.
    pub(super) serial: u64,
}

/// Percent by version; 100 in all.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct SplitView(pub(super) BTreeMap<String, f64>);

/// A model.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelView {
    namespace: String,
    name: String,
    /// Labels a sidecar must have to serve it.
    selector: BTreeMap<String, String>,
    split: Option<SplitView>,
    /// The request header by which callers are known; absent where the split is among requests.
    sticky: Option<String>,
    versions: Vec<VersionView>,
}

/// A model and the sidecars that serve it.
#[derive(Serialize, ToSchema)]
pub(super) struct Described {
    #[serde(flatten)]
    pub(super) model: ModelView,
    pub(super) sidecars: Vec<SidecarView>,
    /// How far the split has come: `moving`, `applied` or `stuck`.
    pub(super) split_state: &'static str,
    /// The same as one sentence for people.
    pub(super) split_message: String,
    /// Absent where this control plane publishes nothing.
    pub(super) publication: Option<PublicationView>,
}

/// A version of a model.
#[derive(Serialize, ToSchema)]
pub(super) struct VersionView {
    version: String,
    /// Identity of its bytes.
    artifact: String,
    /// In bytes.
    size: u64,
    inputs: Vec<FieldView>,
    outputs: Vec<FieldView>,
    /// `rows` where rows of several requests may run as one batch, `off` where not, absent where nobody
    /// says.
    #[serde(skip_serializing_if = "Option::is_none")]
    batching: Option<&'static str>,
    metadata: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pushed_at_ms: i64,
    pushed_by: String,
}

/// An input or output.
#[derive(Serialize, ToSchema)]
struct FieldView {
    name: String,
    /// The TorchScript type.
    kind: String,
    datatype: Option<String>,
    /// -1 for a dimension of variable size; absent where nothing is known.
    shape: Option<Vec<i64>>,
    optional: bool,
}

/// A sidecar.
#[derive(Serialize, ToSchema)]
pub(super) struct SidecarView {
    name: String,
    /// The namespace that its certificate proves.
    namespace: String,
    connected: bool,
    address: String,
    serial: u64,
    labels: BTreeMap<String, String>,
    versions: Vec<StandingView>,
}

/// A version on a sidecar.
#[derive(Serialize, ToSchema)]
struct StandingView {
    model: String,
    version: String,
    /// `loading`, `ready` or `rejected`.
    state: &'static str,
    /// Why, where it is not ready.
    reason: String,
    answered: u64,
    failed: u64,
    bytes_fetched: u64,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
pub(super) struct EventView {
    id: u64,
    at_ms: i64,
    r#type: String,
    model: String,
    version: String,
    sidecar: String,
    message: String,
}

/// A line of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditView {
    id: u64,
    at_ms: i64,
    principal: String,
    action: String,
    subject: String,
    allowed: bool,
    detail: String,
}

impl ModelView {
    pub(super) fn new(name: &ModelName, model: &Model) -> Self {
        let shares = |split: &sconce_catalog::Split| {
            let percent = |share: sconce_catalog::Share| f64::from(share.ten_thousandths()) / 100.0;
            SplitView(
                split
                    .shares()
                    .iter()
                    .map(|(version, share)| (version.to_string(), percent(*share)))
                    .collect(),
            )
        };
        Self {
            namespace: name.namespace().to_owned(),
            name: name.name().to_owned(),
            selector: model.selector.labels().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            split: model.split.as_ref().map(shares),
            sticky: model.sticky.as_ref().map(ToString::to_string),
            versions: model
                .versions
                .iter()
                .map(|(version, record)| VersionView::new(version.as_str(), record))
                .collect(),
        }
    }
}

impl VersionView {
    pub(super) fn new(version: &str, record: &VersionRecord) -> Self {
        Self {
            version: version.to_owned(),
            artifact: record.artifact.to_string(),
            size: record.size,
            inputs: record.signature.inputs.iter().map(FieldView::from).collect(),
            outputs: record.signature.outputs.iter().map(FieldView::from).collect(),
            batching: record.signature.batching.map(Batching::name),
            metadata: record.metadata.clone(),
            pushed_at_ms: record.pushed_at_ms,
            pushed_by: record.pushed_by.clone(),
        }
    }
}

impl From<&Field> for FieldView {
    fn from(field: &Field) -> Self {
        Self {
            name: field.name.clone(),
            kind: field.kind.to_string(),
            datatype: field.datatype.map(|datatype| datatype.to_string()),
            shape: field.shape.clone().map(Vec::from),
            optional: field.optional,
        }
    }
}

/// The word for how far a split has come.
pub(super) fn split_state(state: SplitState) -> &'static str {
    match state {
        SplitState::Unspecified => "unknown",
        SplitState::Moving => "moving",
        SplitState::Applied => "applied",
        SplitState::Stuck => "stuck",
    }
}

impl From<SidecarStatus> for SidecarView {
    fn from(status: SidecarStatus) -> Self {
        let standings = status.versions.into_iter().map(|version| StandingView {
            state: match version.state() {
                VersionState::Unspecified | VersionState::Loading => "loading",
                VersionState::Ready => "ready",
                VersionState::Rejected => "rejected",
            },
            model: version.model,
            version: version.version,
            reason: version.reason,
            answered: version.answered,
            failed: version.failed,
            bytes_fetched: version.bytes_fetched,
        });
        Self {
            versions: standings.collect(),
            name: status.sidecar,
            namespace: status.namespace,
            connected: status.connected,
            address: status.address,
            serial: status.serial,
            labels: status.labels.into_iter().collect(),
        }
    }
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            at_ms: event.at_ms,
            r#type: event.kind,
            model: event.model,
            version: event.version,
            sidecar: event.sidecar,
            message: event.message,
        }
    }
}

impl From<Audit> for AuditView {
    fn from(entry: Audit) -> Self {
        Self {
            id: entry.id,
            at_ms: entry.at_ms,
            principal: entry.principal,
            action: entry.action,
            subject: entry.subject,
            allowed: entry.allowed,
            detail: entry.detail,
        }
    }
}
