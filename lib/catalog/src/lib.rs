//! What should be served: models, versions, splits, and the one pick function.
//!
//! Pure values. Nothing here does I/O, waits, or knows a wire format; a value that
//! exists is valid, so nothing downstream checks it again.

mod batching;
mod digest;
mod lane;
mod manifest;
mod model;
mod name;
mod pick;
mod route;
mod selector;
mod signature;
mod split;
mod sticky;

pub use batching::{Batching, NoRows, UnknownBatching};
pub use digest::{Digest, InvalidDigest};
pub use lane::Lane;
pub use manifest::{ChunkRef, InvalidManifest, Manifest, Piece};
pub use model::{Catalog, Model, Serial, VersionRecord};
pub use name::{InvalidName, ModelName, Version};
pub use pick::{Ask, Pick, PickError, Ticket, pick};
pub use route::{Generation, InvalidRoute, Route, RouteHeader};
pub use selector::{InvalidLabel, Labels, Selector};
pub use signature::{Datatype, Difference, Field, Kind, Shape, Signature, UnknownDatatype};
pub use split::{InvalidSplit, ServedSplit, Share, Split};
pub use sticky::{InvalidStickyHeader, Place, StickyHeader};
