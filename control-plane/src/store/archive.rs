//! An archive that has arrived whole: cut into chunks, stored, committed. Whether somebody
//! sent it or it was pulled makes no difference.

use std::{collections::BTreeMap, fs::File, sync::Arc};

use sconce_artifact::{Assembly, chunk_file};
use sconce_catalog::{
    Digest, Manifest, ModelName, Selector, Serial, Signature, Split, Version, VersionRecord,
};

use super::{Begin, Sticky, Store, push::blocking};
use crate::api::ApiError;

/// Begins metadata that only the control plane writes: it can be relied on.
const OWN_METADATA: &str = "sconce.dev/";
/// Where a version was pulled from.
const SOURCE: &str = "sconce.dev/source";
/// And the digest that was asked for.
pub(crate) const SOURCE_DIGEST: &str = "sconce.dev/source-digest";

/// What an archive is to be.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub(crate) model: ModelName,
    /// `None` counts up.
    pub(crate) version: Option<Version>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) selector: Option<Selector>,
    pub(crate) overrides: Signature,
    /// Where it was pulled from, and the digest that was asked for.
    pub(crate) source: Option<(String, String)>,
}

/// What became of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) version: Version,
    pub(crate) record: VersionRecord,
    pub(crate) serial: Serial,
    pub(crate) split: Option<Split>,
    /// Bytes that the store lacked.
    pub(crate) bytes_stored: u64,
    /// The same bytes were this version already.
    pub(crate) already_committed: bool,
}

impl Store {
    /// Makes a version of a file.
    pub(crate) async fn take_in(
        &self,
        principal: &str,
        file: File,
        what: Announced,
        activate: bool,
    ) -> Result<Arrived, ApiError> {
        let Announced { model, version, mut metadata, selector, overrides, source } = what;
        foreign(&metadata)?;
        if let Some((address, digest)) = source {
            metadata.extend([(SOURCE.to_owned(), address), (SOURCE_DIGEST.to_owned(), digest)]);
        }
        let file = Arc::new(file);
        let manifest = chunked(&file).await?;
        let begin = Begin { model, version, manifest: manifest.clone(), metadata, selector, overrides };
        let begun = self.open_push(begin.clone()).await?;
        if begun.already_committed {
            return self.again(principal, &begin.model, &begun.version, activate).await;
        }
        let bytes_stored = self.put_missing(&begin, &file, manifest, &begun.missing).await?;
        let committed = self.commit_push(principal, &begun.push, activate).await?;
        Ok(Arrived {
            version: committed.version,
            record: committed.record,
            serial: committed.serial,
            split: committed.split,
            bytes_stored,
            already_committed: false,
        })
    }

    /// The answer to a push of what is there already: whoever lost the first answer gets it now.
    pub(crate) async fn again(
        &self,
        principal: &str,
        name: &ModelName,
        version: &Version,
        activate: bool,
    ) -> Result<Arrived, ApiError> {
        if activate {
            self.set_split(principal, name, Split::whole(version.clone()), Sticky::AsItIs).await?;
        }
        let catalog = self.current();
        let model = catalog.models.get(name);
        let found = model.and_then(|model| Some((model.split.clone(), model.versions.get(version)?)));
        let (split, record) = found.ok_or_else(|| {
            ApiError::NotFound(format!("version {version} of `{name}` was deleted meanwhile"))
        })?;
        Ok(Arrived {
            version: version.clone(),
            record: record.clone(),
            serial: catalog.serial,
            split,
            bytes_stored: 0,
            already_committed: true,
        })
    }

    async fn put_missing(
        &self,
        begin: &Begin,
        file: &Arc<File>,
        manifest: Manifest,
        missing: &[Digest],
    ) -> Result<u64, ApiError> {
        let assembly = Arc::new(Assembly::new(manifest));
        let mut stored = 0;
        for digest in missing {
            let Some(number) = assembly.chunk_with(digest) else { continue };
            let (assembly, file) = (Arc::clone(&assembly), Arc::clone(file));
            let bytes = blocking(move || assembly.read_chunk(&file, number)).await?;
            let bytes = bytes.map_err(|error| ApiError::internal(&"the archive", &error))?;
            stored += bytes.len() as u64;
            self.put_chunk(begin, *digest, bytes.into()).await?;
        }
        Ok(stored)
    }
}

/// Refuses metadata that claims to be the control plane's own.
pub(super) fn foreign(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    match metadata.keys().find(|key| key.starts_with(OWN_METADATA)) {
        Some(key) => Err(ApiError::Invalid(format!(
            "the metadata `{key}` is for the control plane to write; choose a name that does not begin with `{OWN_METADATA}`"
        ))),
        None => Ok(()),
    }
}

async fn chunked(file: &Arc<File>) -> Result<Manifest, ApiError> {
    let file = Arc::clone(file);
    blocking(move || chunk_file(&file)).await?.map_err(|error| ApiError::Invalid(error.to_string()))
}
