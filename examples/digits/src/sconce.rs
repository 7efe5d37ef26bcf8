//! The `sconce` command, used as a person would.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A control plane and two sidecars, in a folder that goes away.
pub(crate) struct Sconce {
    program: PathBuf,
    up: Child,
    context: Context,
    home: TempDir,
}

/// What `sconce up` writes down.
#[derive(Clone, Deserialize)]
pub(crate) struct Context {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) sidecars: Vec<Sidecar>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) address: String,
}

/// What a push cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Push {
    version: String,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_moved: u64,
}

const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Sconce {
    pub(crate) async fn up() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("sconce");
        let home = tempfile::Builder::new().prefix("sconce-demo-").tempdir()?;
        let ready = home.path().join("ready.json");
        let log = std::fs::File::create(home.path().join("up.log"))?;
        let up = Command::new(&program)
            .args(["up", "--sidecars", "2", "--listen", "127.0.0.1:0", "--sidecar-port", "0"])
            .arg("--dir")
            .arg(home.path())
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Its own children die with it, so nothing is left behind however this ends.
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .with_context(|| {
                format!("{} cannot be started; run the demo with `make demo`", program.display())
            })?;
        let context =
            Context { ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new(), sidecars: vec![] };
        let mut sconce = Self { program, up, context, home };
        sconce.context = tokio::select! {
            context = appears(&ready) => context?,
            died = sconce.died() => { died?; bail!("`sconce up` ended") }
            () = tokio::time::sleep(PATIENCE) => bail!("nothing was ready in {} s", PATIENCE.as_secs()),
        };
        Ok(sconce)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Pushes a version and waits until every sidecar has it ready.
    pub(crate) async fn push(&self, file: &Path, version: &str, activate: bool) -> anyhow::Result<Push> {
        let file = file.display().to_string();
        let mut arguments = vec!["push", &file, "--model", "digits", "--version", version];
        arguments.extend(activate.then_some("--activate"));
        let said = self.run(&arguments).await?;
        let number =
            |key: &str| said[key].as_u64().with_context(|| format!("`sconce push` did not say {key}"));
        let push = Push {
            version: version.to_owned(),
            bytes_total: number("bytes_total")?,
            bytes_moved: number("bytes_sent")?,
        };
        self.everywhere(|sidecar| {
            let versions = sidecar["versions"].as_array().into_iter().flatten();
            versions.into_iter().any(|known| known["version"] == version && known["state"] == "ready")
        })
        .await?;
        Ok(push)
    }

    /// Sets the split and waits until every sidecar serves it.
    pub(crate) async fn split(&self, shares: &[(&str, u32)]) -> anyhow::Result<()> {
        let shares: Vec<String> =
            shares.iter().map(|(version, percent)| format!("{version}={percent}")).collect();
        let mut arguments = vec!["split", "digits"];
        arguments.extend(shares.iter().map(String::as_str));
        let said = self.run(&arguments).await?;
        let serial = said["serial"].as_u64().context("`sconce split` did not say its serial")?;
        self.everywhere(|sidecar| sidecar["serial"].as_u64() >= Some(serial)).await
    }

    /// Waits until something is true of every sidecar.
    async fn everywhere(&self, is_true: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let look = async {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                let said = self.run(&["sidecars"]).await?;
                let sidecars = said.as_array().context("`sconce sidecars` did not list them")?;
                if sidecars.len() == self.context.sidecars.len() && sidecars.iter().all(&is_true) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.context("the sidecars did not follow")?
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.program)
            .args(arguments)
            .args(["-o", "json"])
            .env("SCONCE_HOME", self.home.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "`sconce {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`sconce {}` gave no JSON", arguments.join(" ")))
    }

    /// Resolves when `sconce up` ends, which it should not.
    pub(crate) async fn died(&mut self) -> anyhow::Result<()> {
        let status = self.up.wait().await?;
        let log = std::fs::read_to_string(self.home.path().join("up.log")).unwrap_or_default();
        bail!("`sconce up` ended with {status}:\n{log}")
    }

    /// Stops everything in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.up.id().and_then(|id| i32::try_from(id).ok()) {
            // SAFETY: a plain system call; the child has not been waited for, so the id is its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
        let status =
            tokio::time::timeout(GRACE, self.up.wait()).await.context("`sconce up` did not stop")??;
        anyhow::ensure!(status.success(), "`sconce up` stopped with {status}");
        Ok(())
    }
}

async fn appears(file: &Path) -> anyhow::Result<Context> {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        if let Ok(text) = std::fs::read(file) {
            return serde_json::from_slice(&text).context("the ready file of `sconce up`");
        }
    }
}
