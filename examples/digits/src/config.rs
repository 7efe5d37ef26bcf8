//! What the demo can be told.

use std::path::PathBuf;

/// The demo's settings.
pub(crate) struct Config {
    /// `DEMO_OUT`: where to write what was seen, as JSON.
    pub(crate) out: Option<PathBuf>,
    /// The folder with the models and the images.
    pub(crate) example: PathBuf,
}

impl Config {
    pub(crate) fn from_env() -> Self {
        Self {
            out: std::env::var_os("DEMO_OUT").filter(|path| !path.is_empty()).map(PathBuf::from),
            example: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        }
    }
}
