//! What a change of a split says of how callers are known.

use sconce_catalog::{InvalidStickyHeader, StickyHeader};

/// By what callers are known once a split is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sticky {
    /// As before.
    AsItIs,
    /// By this header; by nothing.
    By(Option<StickyHeader>),
}

impl Sticky {
    /// What was said: nothing, an empty text, or the name of a header.
    ///
    /// # Errors
    /// Where callers cannot be known by such a header.
    pub(crate) fn read(said: Option<&str>) -> Result<Self, InvalidStickyHeader> {
        match said {
            None => Ok(Self::AsItIs),
            Some("") => Ok(Self::By(None)),
            Some(text) => text.parse().map(|header| Self::By(Some(header))),
        }
    }

    /// What it comes to.
    pub(super) fn after(self, before: Option<&StickyHeader>) -> Option<StickyHeader> {
        match self {
            Self::AsItIs => before.cloned(),
            Self::By(header) => header,
        }
    }

    /// Whether it would change anything.
    pub(crate) fn changes(&self, before: Option<&StickyHeader>) -> bool {
        match self {
            Self::AsItIs => false,
            Self::By(header) => header.as_ref() != before,
        }
    }
}
