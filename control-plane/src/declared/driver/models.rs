//! A `Model`: its selector, its split and its sticky header are made what is declared, and how far the split is in
//! force is told.

use std::time::Instant;

use sconce_catalog::{Model, ModelName, Version};

use super::{AGAIN, Driver};
use crate::{
    api::ApiError,
    declared::{
        cluster::Cluster,
        objects::Object,
        status::{INVALID, SPLIT_MOVING, Status},
    },
    proof,
    publish::ClusterError,
};

impl<C: Cluster> Driver<C> {
    pub(super) async fn model(&mut self, object: &Object) -> Result<Option<Instant>, ClusterError> {
        // Nothing of the catalog is this object's alone, so it goes as it is.
        if object.deleting {
            return Ok(None);
        }
        let mut status = Status::of(object.generation);
        let said = self.enforce(object).await;
        let name = object.model_name();
        if let Some((name, model)) =
            name.ok().and_then(|name| Some((name.clone(), self.catalog().models.get(&name)?.clone())))
        {
            status.versions = Some(model.versions.len());
            status.split = model.split.as_ref().map(|split| match &model.sticky {
                Some(header) => format!("{split} by {header}"),
                None => split.to_string(),
            });
            status.generation = Some(model.generation.0);
            if said.is_ok() {
                return self.progress(object, status, &name, &model).await;
            }
        }
        if let Err((reason, message)) = said {
            status.say("Ready", false, reason, message);
        }
        self.say(object, status).await?;
        Ok(None)
    }

    /// Makes selector, split and sticky header what they are declared to be; says why not where they are not.
    async fn enforce(&self, object: &Object) -> Result<(), (&'static str, String)> {
        let invalid = |why| (INVALID, why);
        let name = object.model_name().map_err(invalid)?;
        let spec = object.model().map_err(invalid)?;
        let catalog = self.catalog();
        let Some(model) = catalog.models.get(&name) else {
            return Err(("NoVersions", "no version of it has been pulled or pushed yet".into()));
        };
        let refused = |error: ApiError| ("Refused", error.to_string());
        let principal = object.id.principal();
        if let Some(selector) = spec.selector {
            self.store.set_selector(&principal, &name, selector).await.map_err(refused)?;
        }
        // Where only one of the two is said, the other stays as it is.
        let Some(split) = spec.split.or_else(|| model.split.clone()) else { return Ok(()) };
        if model.split.as_ref() == Some(&split) && !spec.sticky.changes(model.sticky.as_ref()) {
            return Ok(());
        }
        let missing = split.shares().iter().map(|(version, _)| version);
        let missing: Vec<&str> =
            missing.filter(|version| !model.versions.contains_key(*version)).map(Version::as_str).collect();
        if !missing.is_empty() {
            let text = format!("the split waits for versions that are not there yet: {}", missing.join(", "));
            return Err(("VersionsMissing", text));
        }
        self.store.set_split(&principal, &name, split, spec.sticky).await.map_err(refused)?;
        Ok(())
    }

    /// Says how far the split is in force.
    async fn progress(
        &mut self,
        object: &Object,
        mut status: Status,
        name: &ModelName,
        model: &Model,
    ) -> Result<Option<Instant>, ClusterError> {
        let sidecars = self.fleet.serving(name, &model.selector);
        let progress = proof::judge(&self.fleet, &self.publications, (name, model), &sidecars);
        let (holds, reason) = match () {
            () if !sidecars.iter().any(|sidecar| sidecar.connected) => (false, "NoPods"),
            () if progress.is_applied() => (true, "SplitApplied"),
            () if progress.is_stuck() => (false, "SplitStuck"),
            () => (false, SPLIT_MOVING),
        };
        status.say("Ready", holds, reason, progress.message);
        self.say(object, status).await?;
        // Reports of the sidecars move it on, and wake nobody.
        Ok((!holds).then(|| Instant::now() + AGAIN))
    }
}
