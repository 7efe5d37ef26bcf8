//! What became of the requests of each version: the statistics extension, whatever protocol it is
//! asked by.

use super::{Server, error::ServeError, infer};
use crate::{engine::Statistics, models::live::ServedModel};

/// The statistics of one version.
pub(super) struct VersionStatistics {
    /// As a caller would spell it.
    pub(super) model: String,
    pub(super) version: String,
    pub(super) statistics: Statistics,
}

impl Server {
    /// The statistics of this version, of every version of the model that is ready, or of every
    /// model's.
    pub(super) fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<VersionStatistics>, ServeError> {
        let set = self.0.live.snapshot();
        let Some(spelled) = model else {
            return Ok(set.models.iter().flat_map(|(name, model)| all(self.spell(name), model)).collect());
        };
        let (_, model) = self.model(&set, spelled)?;
        match version {
            None => Ok(all(spelled.to_owned(), model)),
            Some(text) => {
                let served = infer::named(model, spelled, text)?;
                Ok(vec![of(spelled.to_owned(), text.to_owned(), served.queue.statistics())])
            }
        }
    }
}

fn all(spelled: String, model: &ServedModel) -> Vec<VersionStatistics> {
    let one = |(version, served): (&sconce_catalog::Version, &std::sync::Arc<_>)| {
        let served: &crate::models::live::ServedVersion = served;
        of(spelled.clone(), version.to_string(), served.queue.statistics())
    };
    model.ready.iter().map(one).collect()
}

fn of(model: String, version: String, statistics: Statistics) -> VersionStatistics {
    VersionStatistics { model, version, statistics }
}
