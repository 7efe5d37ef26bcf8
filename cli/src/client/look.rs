//! Calls that only look.

use futures::{Stream, StreamExt};
use sconce_catalog::{Model, ModelName};
use sconce_proto::{InvalidMessage, v1};

use super::{AuditEntry, Control, Described, Event, Sidecar, SplitProgress, nonsense};
use crate::failure::Failure;

impl Control {
    /// The models of a namespace, or of all.
    pub(crate) async fn models(
        &mut self,
        namespace: Option<String>,
    ) -> Result<Vec<(ModelName, Model)>, Failure> {
        let request = self.request(v1::ListModelsRequest { namespace: namespace.unwrap_or_default() });
        let answer = self.registry.list_models(request).await.map_err(|status| self.failure(status))?;
        let models = answer.into_inner().models.into_iter().map(|model| {
            let name = model.name.parse::<ModelName>()?;
            Ok((name, model.try_into()?))
        });
        models.collect::<Result<_, InvalidMessage>>().map_err(nonsense)
    }

    /// One model, and where its versions stand.
    pub(crate) async fn model(&mut self, name: &ModelName) -> Result<Described, Failure> {
        let request = self.request(v1::GetModelRequest { model: name.to_string() });
        let answer = self.registry.get_model(request).await.map_err(|status| self.failure(status))?;
        let answer = answer.into_inner();
        let progress = SplitProgress::new(answer.split_state(), answer.split_message.clone());
        let model = answer.model.unwrap_or_default().try_into().map_err(nonsense)?;
        Ok(Described { model, sidecars: by_name(answer.sidecars), progress })
    }

    /// Every sidecar the control plane knows.
    pub(crate) async fn sidecars(&mut self) -> Result<Vec<Sidecar>, Failure> {
        let request = self.request(v1::ListSidecarsRequest {});
        let answer = self.registry.list_sidecars(request).await.map_err(|status| self.failure(status))?;
        Ok(by_name(answer.into_inner().sidecars))
    }

    /// What happened after `after`, then what happens, unless only the past is wanted.
    pub(crate) async fn events(
        &mut self,
        after: u64,
        past_only: bool,
    ) -> Result<impl Stream<Item = Result<Event, Failure>> + Unpin + use<>, Failure> {
        let request = self.request(v1::WatchEventsRequest { after, past_only });
        let answer = self.registry.watch_events(request).await.map_err(|status| self.failure(status))?;
        let control = self.clone();
        Ok(answer
            .into_inner()
            .map(move |event| event.map(Event::from).map_err(|status| control.failure(status))))
    }

    /// The audit log after entry `after`.
    pub(crate) async fn audit(&mut self, after: u64, limit: u32) -> Result<Vec<AuditEntry>, Failure> {
        let request = self.request(v1::ListAuditRequest { after, limit });
        let answer = self.registry.list_audit(request).await.map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().entries.into_iter().map(AuditEntry::from).collect())
    }
}

fn by_name(wire: Vec<v1::SidecarStatus>) -> Vec<Sidecar> {
    let mut sidecars: Vec<Sidecar> = wire.into_iter().map(Sidecar::from).collect();
    sidecars.sort_by(|a, b| a.name.cmp(&b.name));
    sidecars
}
