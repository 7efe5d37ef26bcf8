//! Which source certifies this process: the one that is asked for, or the first that is there.
//!
//! What is there says where a process runs: a Workload API where somebody named one, the
//! socket of Istio's agent in a meshed pod, a folder that somebody renews, a token for
//! istiod in a pod of the mesh without an agent; and for the rest what the process has of
//! its own.

mod variables;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;

use crate::{
    Publisher, files, issued,
    istiod::{Istiod, IstiodIssuer},
    sds,
    workload_api::{self, Endpoint},
};

/// What the environment says about sources.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `SCONCE_IDENTITY`: the source to use, whether it is there or not; where none is asked
    /// for, the first that is there.
    pub only: Option<Kind>,
    /// `SPIFFE_ENDPOINT_SOCKET`.
    pub workload_api: Option<Endpoint>,
    /// `SCONCE_SDS_SOCKET`.
    pub sds_socket: Option<PathBuf>,
    /// Where the socket of Istio's agent is, in a pod that has one.
    pub istio_socket: PathBuf,
    /// How long that may take to appear where its folder is there.
    pub istio_patience: Duration,
    /// `SCONCE_IDENTITY_DIR`.
    pub files: Option<PathBuf>,
    /// `SCONCE_ISTIOD`, `SCONCE_ISTIOD_TOKEN` and `SCONCE_ISTIOD_ROOT`.
    pub istiod: Istiod,
    /// What this process has of its own.
    pub own: Own,
}

/// The source that is a process's own.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// What `SCONCE_IDENTITY` calls it.
    pub name: &'static str,
    /// Why it is not there, where it is not.
    pub missing: Option<&'static str>,
}

/// The kinds of sources, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A SPIFFE Workload API.
    WorkloadApi,
    /// A secret discovery service, such as Istio's agent.
    Sds,
    /// A folder that somebody renews.
    Files,
    /// istiod's CA.
    Istiod,
    /// What the process has of its own.
    Own,
}

/// One source that is nobody's own.
#[derive(Clone, Debug)]
pub enum Source {
    /// A SPIFFE Workload API.
    WorkloadApi(Endpoint),
    /// A secret discovery service at this socket.
    Sds(PathBuf),
    /// A folder that somebody renews.
    Files(PathBuf),
    /// istiod's CA.
    Istiod(Istiod),
}

/// What was chosen, which may still depend on whether a socket appears.
#[derive(Debug)]
pub struct Choice {
    kind: Kind,
    /// None is the process's own.
    source: Option<Source>,
    awaited: Option<Awaited>,
    own: &'static str,
    passed_over: Vec<(Kind, String)>,
}

#[derive(Debug)]
struct Awaited {
    socket: PathBuf,
    patience: Duration,
}

/// No source is there.
#[derive(Debug, thiserror::Error)]
#[error("nothing here certifies this process; {0}")]
pub struct NoSource(String);

const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Sources {
    /// Chooses, by what is there now.
    ///
    /// # Errors
    /// Naming for each source why it is not there.
    pub fn choose(&self) -> Result<Choice, NoSource> {
        let choice = |kind, source, awaited, passed_over| {
            Ok(Choice { kind, source, awaited, own: self.own.name, passed_over })
        };
        if let Some(kind) = self.only {
            let source = self.source(kind).map_err(NoSource)?;
            return choice(kind, source, None, Vec::new());
        }
        let mut passed_over = Vec::new();
        for kind in Kind::ALL {
            match self.find(kind) {
                Ok(source) => {
                    let awaited = (kind > Kind::Sds).then(|| self.awaited()).flatten();
                    return choice(kind, source, awaited, passed_over);
                }
                Err(why) => passed_over.push((kind, why)),
            }
        }
        if self.awaited().is_some() {
            // Nothing else could come, so it is waited for as long as it takes.
            return choice(Kind::Sds, Some(Source::Sds(self.istio_socket.clone())), None, passed_over);
        }
        Err(NoSource(told(&passed_over, self.own.name)))
    }

    /// The source of this kind, if it is there.
    fn find(&self, kind: Kind) -> Result<Option<Source>, String> {
        match kind {
            Kind::Sds if self.sds_socket.is_none() && !self.istio_socket.exists() => match self.awaited() {
                Some(Awaited { socket, patience }) => {
                    Err(format!("{} did not appear in {} s", socket.display(), patience.as_secs_f32()))
                }
                None => Err(format!("{} is not there", self.istio_socket.display())),
            },
            Kind::Istiod if !self.istiod.token.exists() => {
                Err(format!("{} is not there", self.istiod.token.display()))
            }
            _ => self.source(kind),
        }
    }

    /// The source of this kind, there or not; nothing where it is the process's own.
    fn source(&self, kind: Kind) -> Result<Option<Source>, String> {
        let unset = |variable: &str| format!("{variable} is not set");
        match kind {
            Kind::WorkloadApi => {
                let endpoint = self.workload_api.clone().ok_or_else(|| unset("SPIFFE_ENDPOINT_SOCKET"))?;
                Ok(Some(Source::WorkloadApi(endpoint)))
            }
            Kind::Sds => {
                Ok(Some(Source::Sds(self.sds_socket.clone().unwrap_or_else(|| self.istio_socket.clone()))))
            }
            Kind::Files => {
                let folder = self.files.clone().ok_or_else(|| unset("SCONCE_IDENTITY_DIR"))?;
                Ok(Some(Source::Files(folder)))
            }
            Kind::Istiod => Ok(Some(Source::Istiod(self.istiod.clone()))),
            Kind::Own => self.own.missing.map_or(Ok(None), |why| Err(why.to_owned())),
        }
    }

    /// The socket that Istio's agent may be about to make: its folder is a volume that is
    /// there before the agent.
    fn awaited(&self) -> Option<Awaited> {
        let folder = self.istio_socket.parent()?;
        let awaited = self.sds_socket.is_none() && !self.istio_socket.exists() && folder.is_dir();
        awaited.then(|| Awaited { socket: self.istio_socket.clone(), patience: self.istio_patience })
    }
}

impl Choice {
    /// Whether the process's own source may be the one.
    pub fn may_be_own(&self) -> bool {
        self.kind == Kind::Own
    }

    /// The source, once it is certain; nothing where it is the process's own. Says in the log
    /// which it is, and why none of those before.
    pub async fn settle(mut self) -> Option<Source> {
        if let Some(Awaited { socket, patience }) = self.awaited.take()
            && appears(&socket, patience).await
        {
            self.passed_over.retain(|(kind, _)| *kind < Kind::Sds);
            (self.kind, self.source) = (Kind::Sds, Some(Source::Sds(socket)));
        }
        let passed_over = told(&self.passed_over, self.own);
        tracing::info!(source = self.kind.name(self.own), passed_over, "source of certificates chosen");
        self.source
    }
}

async fn appears(socket: &Path, patience: Duration) -> bool {
    let appears = async {
        while !socket.exists() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(patience, appears).await.is_ok()
}

impl Source {
    /// Publishes what the source says, now and whenever it changes, for ever. What istiod
    /// issues is kept below `data`.
    pub fn watch(self, data: &Path, publisher: Publisher) -> BoxFuture<'static, ()> {
        match self {
            Self::WorkloadApi(endpoint) => Box::pin(workload_api::watch(endpoint, publisher)),
            Self::Sds(socket) => Box::pin(sds::watch(socket, publisher)),
            Self::Files(folder) => Box::pin(files::watch(folder, publisher)),
            Self::Istiod(istiod) => {
                let issuer = Arc::new(IstiodIssuer::new(istiod));
                // It says itself who we are, so no name is worth asking for.
                Box::pin(issued::renew(data.join("istiod"), Vec::new(), issuer, publisher))
            }
        }
    }
}

impl Kind {
    const ALL: [Self; 5] = [Self::WorkloadApi, Self::Sds, Self::Files, Self::Istiod, Self::Own];

    /// What `SCONCE_IDENTITY` calls it.
    fn name(self, own: &'static str) -> &'static str {
        match self {
            Self::WorkloadApi => "workload-api",
            Self::Sds => "sds",
            Self::Files => "files",
            Self::Istiod => "istiod",
            Self::Own => own,
        }
    }
}

fn told(passed_over: &[(Kind, String)], own: &'static str) -> String {
    let one = |(kind, why): &(Kind, String)| format!("{}: {why}", kind.name(own));
    passed_over.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
