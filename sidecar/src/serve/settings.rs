//! The logging extension, and what is answered of traces.
//!
//! Triton's settings are switches by level; ours is a threshold, of which they are a view. What a
//! sidecar logs may be read by whoever may call it, and changed only by its own pod: a caller from
//! elsewhere could have it write as much as it likes.

use std::collections::BTreeMap;

use sconce_identity::Principal;
use sconce_telemetry::{Logs, Verbosity};
use tracing::level_filters::LevelFilter;

use super::{Server, error::ServeError};

/// A setting's value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "a setting is a bool, a whole number from 0 on or a text")]
pub(super) enum Setting {
    Bool(bool),
    Number(u32),
    Text(String),
}

/// Settings by name.
pub(super) type Settings = BTreeMap<String, Setting>;

/// Settings of traces by name; none of a name is what the whole server has.
pub(super) type TraceSettings = BTreeMap<String, Vec<String>>;

impl Server {
    /// Changes what is logged, where anything is to be changed, and tells what it is then.
    pub(super) fn log_settings(
        &self,
        changes: Settings,
        caller: Option<&Principal>,
    ) -> Result<Settings, ServeError> {
        let logs = self.0.config.logs;
        let current = logs.map_or(Verbosity { level: LevelFilter::OFF, verbose: 0 }, Logs::verbosity);
        if changes.is_empty() {
            return Ok(told(current));
        }
        if caller != Some(&Principal::Loopback) {
            return Err(ServeError::LocalOnly("log settings can be changed"));
        }
        let next = changed(current, changes)?;
        let unchangeable =
            || ServeError::Setting("this process does not log by a filter of its own".to_owned());
        logs.ok_or_else(unchangeable)?.set(next).map_err(|_| unchangeable())?;
        tracing::info!(level = %next.level, verbose = next.verbose, "log settings changed by the pod");
        Ok(told(next))
    }

    /// Tells that nothing is traced, and refuses to have anything traced. `model` must be one.
    pub(super) fn trace_settings(
        &self,
        model: Option<&str>,
        changes: &TraceSettings,
    ) -> Result<TraceSettings, ServeError> {
        if let Some(spelled) = model {
            self.model(&self.0.live.snapshot(), spelled)?;
        }
        let none = |(name, values): (&String, &Vec<String>)| {
            values.is_empty() || name == "trace_level" && values.iter().all(|value| value == "OFF")
        };
        match changes.iter().find(|change| !none(*change)) {
            Some((name, _)) => Err(ServeError::Setting(format!(
                "`{name}` cannot be set: requests are not traced here. Where time goes is in the statistics \
                 (v2/models/stats) and in /metrics"
            ))),
            None => Ok([("trace_level".to_owned(), vec!["OFF".to_owned()])].into()),
        }
    }
}

fn told(Verbosity { level, verbose }: Verbosity) -> Settings {
    let on = |of: LevelFilter| Setting::Bool(level >= of);
    [
        ("log_error", on(LevelFilter::ERROR)),
        ("log_warning", on(LevelFilter::WARN)),
        ("log_info", on(LevelFilter::INFO)),
        ("log_verbose_level", Setting::Number(verbose)),
        // Standard error, and the format that SCONCE_LOG_FORMAT says.
        ("log_file", Setting::Text(String::new())),
        ("log_format", Setting::Text("default".to_owned())),
    ]
    .map(|(name, setting)| (name.to_owned(), setting))
    .into()
}

fn changed(current: Verbosity, changes: Settings) -> Result<Verbosity, ServeError> {
    let (mut settings, known) = (told(current), told(current));
    for (name, value) in changes {
        let fits = match (known.get(&name), &value) {
            (None, _) => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                return Err(ServeError::Malformed(format!(
                    "there is no log setting `{name}`; there are {}",
                    names.join(", ")
                )));
            }
            (Some(Setting::Bool(_)), Setting::Bool(_)) | (Some(Setting::Number(_)), Setting::Number(_)) => {
                true
            }
            (Some(known @ Setting::Text(_)), value @ Setting::Text(_)) if known == value => true,
            (Some(Setting::Text(_)), Setting::Text(_)) => {
                return Err(ServeError::Setting(format!(
                    "`{name}` cannot be set: logs go to standard error, as SCONCE_LOG_FORMAT says"
                )));
            }
            _ => false,
        };
        if !fits {
            return Err(ServeError::Malformed(format!(
                "the log setting `{name}` has a value of another type"
            )));
        }
        settings.insert(name, value);
    }
    let on = |name: &str| settings.get(name) == Some(&Setting::Bool(true));
    let (error, warning, info) = (on("log_error"), on("log_warning"), on("log_info"));
    let verbose = match settings.get("log_verbose_level") {
        Some(Setting::Number(verbose)) => *verbose,
        _ => 0,
    };
    let level = match (error, warning, info) {
        (true, true, true) => LevelFilter::INFO,
        (true, true, false) => LevelFilter::WARN,
        (true, false, false) => LevelFilter::ERROR,
        (false, false, false) => LevelFilter::OFF,
        _ => {
            return Err(ServeError::Malformed(
                "a level brings those above it: log_info needs log_warning, and log_warning needs log_error"
                    .to_owned(),
            ));
        }
    };
    Ok(Verbosity { level, verbose })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: Verbosity = Verbosity { level: LevelFilter::INFO, verbose: 0 };

    fn change(from: Verbosity, changes: &[(&str, Setting)]) -> Result<Verbosity, String> {
        let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        changed(from, changes.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn switches_by_level_are_one_threshold() {
        let warn = change(INFO, &[("log_info", Setting::Bool(false))]).unwrap();
        assert_eq!(warn, Verbosity { level: LevelFilter::WARN, verbose: 0 });
        let verbose = change(warn, &[("log_verbose_level", Setting::Number(1))]).unwrap();
        assert_eq!(verbose, Verbosity { level: LevelFilter::WARN, verbose: 1 });
        // What a client has read it can send back.
        assert_eq!(changed(INFO, told(warn)).unwrap(), warn);
        assert_eq!(changed(warn, told(INFO)).unwrap(), INFO);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (change_of, says) in [
            (("log_error", Setting::Bool(false)), "log_warning needs log_error"),
            (("log_colour", Setting::Bool(true)), "`log_colour`"),
            (("log_info", Setting::Number(1)), "`log_info`"),
            (("log_file", Setting::Text("/tmp/log".to_owned())), "standard error"),
            (("log_format", Setting::Text("ISO8601".to_owned())), "SCONCE_LOG_FORMAT"),
        ] {
            let refused = change(INFO, &[change_of]).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
