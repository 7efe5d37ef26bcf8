//! Chunks of artifacts, as objects named by their digest.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, local::LocalFileSystem,
    path::Path as Key,
};
use sconce_catalog::Digest;

use crate::api::ApiError;

/// The chunks of every artifact.
#[derive(Clone)]
pub(crate) struct Chunks(Arc<dyn ObjectStore>);

impl Chunks {
    /// Keeps them in a folder, each synced to the disk before it counts as there.
    pub(crate) fn open(folder: &Path) -> Result<Self, ApiError> {
        std::fs::create_dir_all(folder).map_err(|error| ApiError::internal(&folder.display(), &error))?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self(Arc::new(store)))
    }

    /// Whether the chunk is there.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool, ApiError> {
        match self.0.head(&key(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The chunk's bytes.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Bytes, ApiError> {
        match self.0.get(&key(digest)).await {
            Ok(found) => Ok(found.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => {
                Err(ApiError::NotFound(format!("the chunk {digest} is not in the store")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a chunk that has been verified. One that is there already is left alone.
    pub(crate) async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), ApiError> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.0.put_opts(&key(digest), PutPayload::from_bytes(bytes), create).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Throws a chunk away that is not what its name says, so that it can be sent again.
    pub(crate) async fn discard(&self, digest: &Digest) -> Result<(), ApiError> {
        match self.0.delete(&key(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Two levels, since file systems slow down in folders of very many files.
fn key(digest: &Digest) -> Key {
    let hex = digest.hex();
    Key::from(format!("{}/{hex}", &hex[..2]))
}
