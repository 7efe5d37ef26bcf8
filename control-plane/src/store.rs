//! The one writer of the catalog.
//!
//! A change is checked, given the next serial, committed to the database together with
//! its event and its line in the audit log, and only then published. What has been
//! answered survives `kill -9`; what has not is not visible.

mod archive;
mod chunks;
mod database;
mod push;
mod sticky;
mod tokens;

use std::{path::Path, sync::Arc};

use sconce_catalog::{Catalog, Model, ModelName, Selector, Serial, Split, Version};
use sqlx::{Row as _, SqlitePool};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

pub(crate) use self::{
    archive::{Announced, Arrived, SOURCE_DIGEST},
    chunks::Chunks,
    push::Begin,
    sticky::Sticky,
    tokens::Join,
};
use crate::api::ApiError;

/// Handle to the store. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    database: SqlitePool,
    chunks: Chunks,
    scratch: std::path::PathBuf,
    catalog: watch::Sender<Arc<Catalog>>,
    /// Id of the newest event.
    events: watch::Sender<u64>,
    /// One change at a time, so that each sees the catalog that the one before left.
    writing: Arc<Mutex<()>>,
}

/// Something that happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) at_ms: i64,
    pub(crate) kind: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) sidecar: String,
    pub(crate) message: String,
}

/// A line of the audit log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    pub(crate) id: u64,
    pub(crate) at_ms: i64,
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) allowed: bool,
    pub(crate) detail: String,
}

/// What a change leaves behind besides the catalog.
struct Change {
    model: ModelName,
    event: Event,
    audit: Audit,
    /// Digest and JSON of a manifest that becomes referenced.
    manifest: Option<(String, String)>,
    /// Id of a push that is over.
    push: Option<String>,
}

impl Store {
    /// Opens the store in a folder, making it where it is missing.
    pub(crate) async fn open(folder: &Path) -> Result<Self, ApiError> {
        let scratch = folder.join("scratch");
        // Whatever an earlier process left in there is of no use.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).map_err(|error| ApiError::internal(&scratch.display(), &error))?;
        let chunks = Chunks::open(&folder.join("chunks"))?;
        let database = database::open(&folder.join("sconce.db")).await?;
        let catalog = database::catalog(&database).await?;
        let newest: i64 = sqlx::query("SELECT coalesce(max(id), 0) AS id FROM events")
            .fetch_one(&database)
            .await?
            .try_get("id")?;
        Ok(Self(Arc::new(Inner {
            database,
            chunks,
            scratch,
            catalog: watch::Sender::new(Arc::new(catalog)),
            events: watch::Sender::new(newest.unsigned_abs()),
            writing: Arc::default(),
        })))
    }

    /// Follows the catalog.
    pub(crate) fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.catalog.subscribe()
    }

    /// Follows the id of the newest event.
    pub(crate) fn newest_event(&self) -> watch::Receiver<u64> {
        self.0.events.subscribe()
    }

    pub(crate) fn chunks(&self) -> &Chunks {
        &self.0.chunks
    }

    /// A file for something that is on its way in. It is gone when it is closed.
    pub(crate) fn scratch_file(&self) -> Result<std::fs::File, ApiError> {
        tempfile::tempfile_in(&self.0.scratch)
            .map_err(|error| ApiError::internal(&self.0.scratch.display(), &error))
    }

    fn current(&self) -> Arc<Catalog> {
        self.0.catalog.borrow().clone()
    }

    /// Sets who answers how much, and by what callers are known. Versions that one caller could not
    /// talk to alike are refused together.
    pub(crate) async fn set_split(
        &self,
        principal: &str,
        name: &ModelName,
        split: Split,
        sticky: Sticky,
    ) -> Result<Serial, ApiError> {
        let writing = self.write().await;
        let (mut catalog, mut model) = self.edit(name)?;
        for (version, _) in split.shares() {
            if !model.versions.contains_key(version) {
                return Err(no_version(name, version));
            }
        }
        let stable = split.stable();
        for (version, _) in split.shares() {
            let (ours, theirs) = (&model.versions[stable].signature, &model.versions[version].signature);
            let (left, right) = (format!("version {stable}"), format!("version {version}"));
            ours.fits(theirs, &left, &right).map_err(|difference| {
                ApiError::Failed(format!("these versions of `{name}` cannot share traffic: {difference}"))
            })?;
        }
        // Nothing changes, so nothing is announced: sidecars would wait for a serial in vain.
        let sticky = sticky.after(model.sticky.as_ref());
        if model.split.as_ref() == Some(&split) && model.sticky == sticky {
            return Ok(catalog.serial);
        }
        let mut message = match &model.split {
            Some(before) => format!("split of {name} moved from {before} to {split}"),
            None => format!("split of {name} set to {split}"),
        };
        if model.sticky != sticky {
            message.push_str(&match &sticky {
                Some(header) => format!(", callers are known by the header {header}"),
                None => ", among requests whoever sends them".to_owned(),
            });
        }
        let change = change("split.changed", principal, "split", name, None, message);
        model.split = Some(split);
        model.sticky = sticky;
        model.generation = catalog.next_generation();
        catalog.models.insert(name.clone(), model);
        self.commit(writing, catalog, change).await
    }

    /// Sets which sidecars serve a model.
    pub(crate) async fn set_selector(
        &self,
        principal: &str,
        name: &ModelName,
        selector: Selector,
    ) -> Result<Serial, ApiError> {
        let writing = self.write().await;
        let (mut catalog, mut model) = self.edit(name)?;
        if model.selector == selector {
            return Ok(catalog.serial);
        }
        let message = match selector.labels() {
            labels if labels.is_empty() => format!("{name} is for every sidecar of its namespace"),
            labels => format!("{name} is for sidecars with {labels}"),
        };
        let change = change("selector.changed", principal, "selector", name, None, message);
        model.selector = selector;
        catalog.models.insert(name.clone(), model);
        self.commit(writing, catalog, change).await
    }

    /// Deletes a version that answers nothing.
    pub(crate) async fn delete(
        &self,
        principal: &str,
        name: &ModelName,
        version: &Version,
    ) -> Result<Serial, ApiError> {
        let writing = self.write().await;
        let (mut catalog, mut model) = self.edit(name)?;
        let share = model.split.as_ref().map(|split| split.share(version));
        if let Some(share) = share.filter(|share| share.ten_thousandths() > 0)
            && model.versions.len() > 1
        {
            return Err(ApiError::Failed(format!(
                "version {version} of `{name}` still answers {share}; move its share first with `sconce split`"
            )));
        }
        model.versions.remove(version).ok_or_else(|| no_version(name, version))?;
        let change = change(
            "version.deleted",
            principal,
            "delete",
            name,
            Some(version),
            format!("{name}:{version} deleted"),
        );
        if model.versions.is_empty() {
            catalog.models.remove(name);
        } else {
            catalog.models.insert(name.clone(), model);
        }
        self.commit(writing, catalog, change).await
    }

    fn edit(&self, name: &ModelName) -> Result<(Catalog, Model), ApiError> {
        let catalog = Catalog::clone(&self.current());
        let model = catalog.models.get(name).cloned();
        let model = model.ok_or_else(|| ApiError::NotFound(format!("there is no model `{name}`")))?;
        Ok((catalog, model))
    }

    async fn write(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.writing).lock_owned().await
    }

    /// Makes a catalog the current one.
    ///
    /// It goes on when whoever asked for it hangs up: a database that is ahead of what is published
    /// would let no further change in.
    async fn commit(
        &self,
        writing: OwnedMutexGuard<()>,
        mut catalog: Catalog,
        change: Change,
    ) -> Result<Serial, ApiError> {
        let store = self.clone();
        let committed = tokio::spawn(async move {
            catalog.serial = Serial(store.current().serial.0 + 1);
            let event = database::commit(&store.0.database, &catalog, change).await?;
            let serial = catalog.serial;
            store.0.catalog.send_replace(Arc::new(catalog));
            store.0.events.send_replace(event);
            drop(writing);
            Ok(serial)
        });
        committed.await.map_err(|error| ApiError::internal(&"the change", &error))?
    }

    /// Records something that happened outside the catalog.
    pub(crate) async fn record(&self, event: Event) -> Result<(), ApiError> {
        let id = database::insert_event(&self.0.database, &event).await?;
        self.0.events.send_if_modified(|newest| {
            let newer = id > *newest;
            *newest = id.max(*newest);
            newer
        });
        Ok(())
    }

    /// Records an attempt that changed nothing, or a change outside the catalog.
    pub(crate) async fn audit(&self, entry: Audit) -> Result<(), ApiError> {
        database::insert_audit(&self.0.database, &entry).await
    }

    /// Events after this id, oldest first, at most a thousand.
    pub(crate) async fn events(&self, after: u64) -> Result<Vec<Event>, ApiError> {
        database::events(&self.0.database, after).await
    }

    /// Lines of the audit log after this id, oldest first.
    pub(crate) async fn audit_log(&self, after: u64, limit: u32) -> Result<Vec<Audit>, ApiError> {
        database::audit_log(&self.0.database, after, limit).await
    }
}

fn no_version(name: &ModelName, version: &Version) -> ApiError {
    ApiError::NotFound(format!("model `{name}` has no version {version}"))
}

fn change(
    kind: &str,
    principal: &str,
    action: &str,
    model: &ModelName,
    version: Option<&Version>,
    message: String,
) -> Change {
    let version = version.map(Version::to_string).unwrap_or_default();
    let subject = if version.is_empty() { model.to_string() } else { format!("{model}:{version}") };
    Change {
        model: model.clone(),
        audit: Audit {
            at_ms: now_ms(),
            principal: principal.to_owned(),
            action: action.to_owned(),
            subject,
            allowed: true,
            detail: message.clone(),
            ..Audit::default()
        },
        event: Event {
            at_ms: now_ms(),
            kind: kind.to_owned(),
            model: model.to_string(),
            version,
            message,
            ..Event::default()
        },
        manifest: None,
        push: None,
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    fn archive() -> std::fs::File {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/models/v1/digits.pt");
        std::fs::File::open(file).expect("the example")
    }

    #[tokio::test]
    async fn whoever_hangs_up_while_a_change_is_committed_keeps_nobody_from_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).await.expect("a store");
        let name: ModelName = "fraud".parse().expect("valid");
        let split = |version: &str| Split::whole(version.parse().expect("valid"));
        for version in ["1", "2"] {
            let what = Announced {
                model: name.clone(),
                version: Some(version.parse().expect("valid")),
                metadata: [("number".to_owned(), version.to_owned())].into(),
                selector: None,
                overrides: Default::default(),
                source: None,
            };
            store.take_in("test", archive(), what, false).await.expect("pushed");
        }
        for patience in 0..200 {
            let mut change = Box::pin(store.set_split("hangs up", &name, split("2"), Sticky::AsItIs));
            for _ in 0..patience {
                if poll!(&mut change).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(change);
            store.set_split("stays", &name, split("1"), Sticky::AsItIs).await.expect("the next is made");
            assert_eq!(store.current().models[&name].split, Some(split("1")));
        }
        let serial = store.current().serial;
        let reopened = database::catalog(&store.0.database).await.expect("read back");
        assert_eq!((reopened.serial, &reopened), (serial, &*store.current()));
    }
}
