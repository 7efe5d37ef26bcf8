//! What a route says of a sticky model that its one destination cannot: who answers how much.
//!
//! The pods decide, so the route has no weights; and what is published must be readable from the
//! cluster all the same. It stands in two annotations.

use sconce_catalog::{Share, Split, StickyHeader};
use serde_json::Value;

use crate::names::{SPLIT_ANNOTATION, STICKY_ANNOTATION};

/// Writes the annotations.
pub(super) fn annotate(metadata: &mut Value, split: &Split, header: &StickyHeader) {
    let share = |(version, share): &(_, Share)| format!("{version}={}", share.ten_thousandths());
    let shares: Vec<String> = split.shares().iter().map(share).collect();
    metadata["annotations"][SPLIT_ANNOTATION] = shares.join(",").into();
    metadata["annotations"][STICKY_ANNOTATION] = header.as_str().into();
}

/// Reads them; `None` where they do not say what [`annotate`] writes.
pub(super) fn read(metadata: &Value) -> Option<(Split, StickyHeader)> {
    let text = |key: &str| metadata["annotations"][key].as_str();
    let shares = text(SPLIT_ANNOTATION)?.split(',').map(|pair| {
        let (version, share) = pair.split_once('=')?;
        Some((version.parse().ok()?, Share::new(share.parse().ok()?).ok()?))
    });
    let split = Split::new(shares.collect::<Option<Vec<_>>>()?).ok()?;
    Some((split, text(STICKY_ANNOTATION)?.parse().ok()?))
}
