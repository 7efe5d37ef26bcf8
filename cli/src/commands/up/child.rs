//! One process that `up` runs: its log, whether it is ready, and its end.

use std::{
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{failure::Failure, http};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Longer than a sidecar's own drain.
const STOP_WITHIN: Duration = Duration::from_secs(30);
const LAST_LINES: usize = 12;
/// Variables of the shell that would contradict what `up` says.
const NOT_INHERITED: [&str; 4] = ["SCONCE_IDENTITY_DIR", "SCONCE_TOKEN", "SCONCE_ROLES", "SCONCE_CALLERS"];

/// A running child.
pub(super) struct Child {
    name: String,
    log: PathBuf,
    /// Where its part of the log begins.
    log_from: u64,
    admin: SocketAddr,
    process: tokio::process::Child,
}

impl Child {
    /// Starts a process whose output goes to `log`.
    pub(super) fn start(
        name: &str,
        binary: &Path,
        environment: &[(&str, String)],
        log: PathBuf,
        admin: SocketAddr,
    ) -> Result<Self, Failure> {
        let failed = |what: &Path, error| Failure::failed(format!("{}: {error}", what.display()));
        let file = OpenOptions::new().create(true).append(true).open(&log).map_err(|e| failed(&log, e))?;
        let log_from = file.metadata().map_err(|error| failed(&log, error))?.len();
        let errors = file.try_clone().map_err(|error| failed(&log, error))?;
        let mut command = std::process::Command::new(binary);
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        die_with_parent(&mut command);
        let process = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(binary, error).hint("is it built for this machine?"))?;
        Ok(Self { name: name.to_owned(), log, log_from, admin, process })
    }

    /// Waits until it says so on its admin port.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        let admin = self.admin;
        let mut pending = String::new();
        let asking = async {
            loop {
                match http::admin(admin, "/readyz").await {
                    Ok((status, _)) if status.is_success() => return,
                    Ok((_, body)) => pending = body,
                    Err(error) => pending = error,
                }
                // Another process's state cannot be awaited, only asked for.
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let asked = tokio::select! {
            asked = tokio::time::timeout(READY_WITHIN, asking) => asked,
            failure = Self::end(&mut self.process, &self.name, &self.log, self.log_from) => return Err(failure),
        };
        asked.map_err(|_| {
            Failure::failed(format!(
                "{} is not ready after {} s: {pending}",
                self.name,
                READY_WITHIN.as_secs()
            ))
            .hint(format!("see {}", self.log.display()))
        })
    }

    /// Ends when the process does, which is never what was wanted.
    pub(super) async fn ended(&mut self) -> Failure {
        Self::end(&mut self.process, &self.name, &self.log, self.log_from).await
    }

    async fn end(process: &mut tokio::process::Child, name: &str, log: &Path, from: u64) -> Failure {
        let how = match process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let lines = last_lines(log, from);
        Failure::failed(format!("{name} ended by itself: {how}{lines}"))
            .hint(format!("all of its log is in {}", log.display()))
    }

    /// Asks it to stop, and ends it if it does not.
    pub(super) async fn stop(&mut self) {
        if let Some(id) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            // SAFETY: `kill` has no memory effects, and the id is of our own child, which
            // has not been waited for, so it cannot have become another process's.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
        if tokio::time::timeout(STOP_WITHIN, self.process.wait()).await.is_err() {
            eprintln!("{} did not stop within {} s and is killed", self.name, STOP_WITHIN.as_secs());
            if let Err(error) = self.process.kill().await {
                eprintln!("{} cannot be killed: {error}", self.name);
            }
        }
    }
}

/// Ties the child's life to ours, however we end, and keeps the terminal's Ctrl-C from it,
/// so that it is stopped in order.
fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let tie = move || {
            // SAFETY: `prctl` and `getppid` are async-signal-safe and touch no memory.
            let tied = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0;
            // We may have died before the tie was made; then it would never act.
            // SAFETY: as above.
            let ours = u32::try_from(unsafe { libc::getppid() }) == Ok(parent);
            if tied && ours { Ok(()) } else { Err(std::io::Error::from_raw_os_error(libc::ESRCH)) }
        };
        // SAFETY: the closure only makes system calls between fork and exec; it neither
        // allocates nor locks.
        unsafe { command.pre_exec(tie) };
    }
}

fn last_lines(log: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = std::fs::File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("\n  ({}: {error})", log.display());
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES));
    last.map(|line| format!("\n  | {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(folder: &Path, script: &str) -> Child {
        let binary = folder.join("child");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).expect("written");
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(&binary, mode).expect("set");
        let admin = ([127, 0, 0, 1], 1).into();
        Child::start("sidecar-1", &binary, &[("SCONCE_NAME", "x".into())], folder.join("log"), admin)
            .expect("it starts")
    }

    #[tokio::test]
    async fn a_child_that_ends_before_it_is_ready_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("log"), "from an earlier run\n").expect("written");
        let mut child = child(folder.path(), "echo \"$SCONCE_NAME is broken\"; exit 64");
        let failure = child.ready().await.expect_err("it ended");
        let text = failure.to_string();
        assert!(
            text.contains("sidecar-1") && text.contains("64") && text.contains("| x is broken"),
            "{text}"
        );
        assert!(!text.contains("earlier run"), "{text}");
    }

    #[tokio::test]
    async fn stopping_ends_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = child(folder.path(), "exec sleep 600");
        child.stop().await;
        assert!(child.process.try_wait().expect("ours").is_some());
    }
}
