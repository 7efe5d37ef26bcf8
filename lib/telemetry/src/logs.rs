//! Log lines: for people on a terminal, JSON for machines.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::{
    EnvFilter, Registry,
    filter::LevelFilter,
    fmt,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

/// Text that is no log filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not a log filter ({reason}); write a level such as `info`, or `info,sconce_identity=debug`"
)]
pub struct InvalidFilter {
    text: String,
    reason: String,
}

/// What is logged of what has no filter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The least level, `INFO` at most.
    pub level: LevelFilter,
    /// What Sconce itself logs beyond it: 0 nothing, 1 `debug`, from 2 on `trace`.
    pub verbose: u32,
}

/// The filter of a process's logs, which can be changed while it runs.
#[derive(Debug)]
pub struct Logs {
    handle: Handle<EnvFilter, Registry>,
    /// What it was told at the start: filters of single targets stay.
    filter: String,
    verbosity: Mutex<Verbosity>,
}

/// kube's client calls every attempt that fails an error. Whoever makes it tells it once.
const QUIET: &str = "kube_client::client::builder=off";

/// Like the subscriber itself, there is one in a process.
static LOGS: OnceLock<Logs> = OnceLock::new();

/// Starts logging to standard error.
///
/// `filter` is a level or a list of `target=level`. A second call in one process changes
/// nothing: tests start several servers in one.
///
/// # Errors
/// Where `filter` is neither.
pub fn init_logs(filter: &str, json: bool) -> Result<(), InvalidFilter> {
    let (layer, logs) = filtered(filter)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let registry = tracing_subscriber::registry().with(layer);
    let started = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
    };
    if started.is_ok() {
        let _the_first = LOGS.set(logs);
    }
    Ok(())
}

/// The filter of this process's logs; `None` where it logs nothing, or not by [`init_logs`].
pub fn logs() -> Option<&'static Logs> {
    LOGS.get()
}

fn filtered(filter: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Logs), InvalidFilter> {
    let parsed = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| InvalidFilter { text: filter.to_owned(), reason: error.to_string() })?;
    let (layer, handle) = reload::Layer::new(parsed);
    let verbosity = Mutex::new(Verbosity::of(filter));
    Ok((layer, Logs { handle, filter: filter.to_owned(), verbosity }))
}

impl Verbosity {
    /// What this filter says of what it does not name.
    fn of(filter: &str) -> Self {
        let mut levels = filter.split(',').rev().filter_map(|part| part.trim().parse::<LevelFilter>().ok());
        // As for the filter itself: the last counts, and without any it is errors.
        let level = levels.next().unwrap_or(LevelFilter::ERROR);
        let verbose = if level == LevelFilter::TRACE { 2 } else { u32::from(level == LevelFilter::DEBUG) };
        Self { level: level.min(LevelFilter::INFO), verbose }
    }

    fn directives(self) -> String {
        let own = match self.verbose {
            0 => return self.level.to_string(),
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        format!("{},sconce={own}", self.level)
    }
}

impl Logs {
    /// What is logged now.
    pub fn verbosity(&self) -> Verbosity {
        *self.verbosity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs this from now on, beside the filters that the process was started with.
    ///
    /// # Errors
    /// Where nothing is logged any more.
    pub fn set(&self, verbosity: Verbosity) -> Result<(), reload::Error> {
        let mut current = self.verbosity.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(EnvFilter::new(format!("{QUIET},{},{}", self.filter, verbosity.directives())))?;
        *current = verbosity;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(logs: &Logs) -> String {
        let mut parts: Vec<String> = logs
            .handle
            .with_current(ToString::to_string)
            .expect("it is there")
            .split(',')
            .map(str::to_owned)
            .collect();
        parts.retain(|part| part != QUIET);
        parts.sort();
        parts.join(",")
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_an_example() {
        let refused = filtered("loud=very").expect_err("no level").to_string();
        assert!(refused.contains("loud=very") && refused.contains("`info`"), "{refused}");
    }

    #[test]
    fn what_is_said_of_everything_else_changes_and_single_targets_keep_their_filters() {
        let (_layer, logs) = filtered("info,sconce_identity=debug").expect("valid");
        assert_eq!(logs.verbosity(), Verbosity { level: LevelFilter::INFO, verbose: 0 });
        logs.set(Verbosity { level: LevelFilter::WARN, verbose: 0 }).expect("it is there");
        assert_eq!(enabled(&logs), "sconce_identity=debug,warn");
        logs.set(Verbosity { level: LevelFilter::INFO, verbose: 3 }).expect("it is there");
        assert_eq!(enabled(&logs), "info,sconce=trace,sconce_identity=debug");
        logs.set(Verbosity { level: LevelFilter::INFO, verbose: 0 }).expect("it is there");
        assert_eq!(enabled(&logs), "info,sconce_identity=debug");
        assert_eq!(logs.verbosity(), Verbosity { level: LevelFilter::INFO, verbose: 0 });
    }

    #[test]
    fn what_a_filter_says_of_everything_else_is_known_at_the_start() {
        let of = |filter| (Verbosity::of(filter).level, Verbosity::of(filter).verbose);
        assert_eq!(of("warn"), (LevelFilter::WARN, 0));
        assert_eq!(of("debug,h2=info"), (LevelFilter::INFO, 1));
        assert_eq!(of("h2=info, TRACE"), (LevelFilter::INFO, 2));
        assert_eq!(of("h2=info"), (LevelFilter::ERROR, 0));
        assert_eq!(of("off"), (LevelFilter::OFF, 0));
    }
}
