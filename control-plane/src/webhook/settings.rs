//! How to inject: a file, usually a mounted ConfigMap, read again when it changes.

use std::{fs, path::Path, time::Duration};

use sconce_istio::inject::{InvalidSettings, Settings};
use tokio::sync::watch;

use super::StartError;

/// A mounted ConfigMap takes up to a minute to change anyway.
const PERIOD: Duration = Duration::from_secs(5);

/// The settings now, and the task that follows the file. A file that cannot be used later on
/// changes nothing.
pub(super) fn watch(
    file: Option<&Path>,
    namespace: &str,
) -> Result<(watch::Receiver<Settings>, impl Future<Output = ()> + Send + use<>), StartError> {
    let (file, namespace) = (file.map(Path::to_owned), namespace.to_owned());
    let first = match &file {
        Some(file) => read(file, &namespace)
            .map_err(|source| StartError::Settings { path: file.display().to_string(), source })?,
        None => Settings { own_namespace: namespace.clone(), ..Settings::default() },
    };
    let (sender, receiver) = watch::channel(first);
    let follow = async move {
        let Some(file) = file else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PERIOD).await;
            match read(&file, &namespace) {
                Ok(settings) => {
                    let changed = sender
                        .send_if_modified(|known| std::mem::replace(known, settings.clone()) != settings);
                    if changed {
                        tracing::info!(file = %file.display(), "the settings have changed");
                    }
                }
                Err(error) => {
                    tracing::error!(file = %file.display(), %error, "the settings stay as they were")
                }
            }
        }
    };
    Ok((receiver, follow))
}

fn read(file: &Path, namespace: &str) -> Result<Settings, InvalidSettings> {
    let text = fs::read_to_string(file).map_err(|error| InvalidSettings::Unreadable(error.to_string()))?;
    let settings = Settings::from_yaml(&text)?;
    // Where this process runs is not a matter of settings.
    Ok(Settings { own_namespace: namespace.to_owned(), ..settings })
}
