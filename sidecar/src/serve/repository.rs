//! The model repository extension: which models there are, and what is answered to who would have
//! one loaded or unloaded here.
//!
//! What a sidecar serves, the control plane decides, for all sidecars alike. A caller who could
//! change it on one of them would make it differ from the others until the next word of the control
//! plane's. So a load is a question, whether the model is served, which many clients ask before they
//! begin; and an unload is refused, with what to do instead.

use sconce_catalog::Version;

use super::{Server, error::ServeError, infer};
use crate::models::live::{ServedModel, Unready};

/// One version in the index.
pub(super) struct Indexed {
    /// As a caller would spell it.
    pub(super) name: String,
    /// `None` for a model without any.
    pub(super) version: Option<String>,
    /// `READY`, `LOADING` or `UNAVAILABLE`, as Triton calls it.
    pub(super) state: &'static str,
    /// Why it is not ready.
    pub(super) reason: String,
}

impl Server {
    /// Every version of every model that belongs here, or those that are ready.
    pub(super) fn index(&self, repository: &str, ready: bool) -> Result<Vec<Indexed>, ServeError> {
        if !repository.is_empty() {
            return Err(ServeError::NoRepository(repository.to_owned()));
        }
        let set = self.0.live.snapshot();
        let all = set.models.iter().flat_map(|(name, model)| versions(&self.spell(name), model));
        Ok(all.filter(|indexed| !ready || indexed.state == "READY").collect())
    }

    /// Whether a model that somebody would have loaded is served, which is all that loading it could
    /// come to. `parameters` are names of what it is to be loaded with.
    pub(super) fn load<'a>(
        &self,
        spelled: &str,
        mut parameters: impl Iterator<Item = &'a str>,
    ) -> Result<(), ServeError> {
        if let Some(parameter) = parameters.next() {
            return Err(ServeError::LoadWith { model: spelled.to_owned(), parameter: parameter.to_owned() });
        }
        let failed = |reason: String| ServeError::LoadFailed { model: spelled.to_owned(), reason };
        let set = self.0.live.snapshot();
        let (_, model) =
            self.model(&set, spelled).map_err(|_| ServeError::LoadUnknown(spelled.to_owned()))?;
        match model.split {
            Some(_) => Ok(()),
            None => Err(failed(infer::nothing_ready(model, spelled).to_string())),
        }
    }

    /// Refuses to unload a model, by what it is.
    pub(super) fn unload(&self, spelled: &str) -> ServeError {
        let set = self.0.live.snapshot();
        match self.model(&set, spelled) {
            Ok(_) => ServeError::Unload(spelled.to_owned()),
            Err(unknown) => unknown,
        }
    }
}

fn versions(name: &str, model: &ServedModel) -> Vec<Indexed> {
    let one = |version: &Version, state, reason| Indexed {
        name: name.to_owned(),
        version: Some(version.to_string()),
        state,
        reason,
    };
    let ready = model.ready.keys().map(|version| one(version, "READY", String::new()));
    let unready = model.unready.iter().map(|(version, unready)| match unready {
        Unready::Loading => one(version, "LOADING", unready.to_string()),
        Unready::Rejected(_) => one(version, "UNAVAILABLE", unready.to_string()),
    });
    let mut all: Vec<Indexed> = ready.chain(unready).collect();
    if all.is_empty() {
        let reason = "it has no version".to_owned();
        all.push(Indexed { name: name.to_owned(), version: None, state: "UNAVAILABLE", reason });
    }
    all
}
