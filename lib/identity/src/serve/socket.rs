//! The Unix socket, for the processes of this pod.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as Dial,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use super::{
    Entrance, HANDSHAKE, MAX_CONNECTIONS,
    caller::{Caller, Proof},
    entrance::{Entered, Http, greeted},
};
use crate::{Identity, PeerAddr, Principal, Reason, Refusal};

/// A listening Unix socket, whose file is removed when it is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Anybody who can open the file: it is shared with no other pod.
const MODE: u32 = 0o666;

impl LocalSocket {
    /// Listens at this path, where a file that an earlier process left is replaced.
    ///
    /// # Errors
    /// Where somebody listens there already, the file is no socket, or its folder cannot be
    /// written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        clear(path)?;
        let listener = UnixListener::bind(path)?;
        // Whatever the umask: the application has a user of its own.
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        let inode = fs::metadata(path)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

/// Removes what is left of a socket that nobody listens on.
fn clear(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is there and is no socket"));
    }
    match Dial::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on it")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Another process may have put its own in the place.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The door of a Unix socket: whoever comes in is the pod itself.
#[derive(Clone)]
pub(super) struct LocalDoor(pub(super) Identity);

impl Entrance for LocalDoor {
    type Listener = LocalSocket;
    type Socket = UnixStream;

    fn max_connections(&self) -> usize {
        MAX_CONNECTIONS
    }

    async fn accept(socket: &LocalSocket) -> io::Result<(UnixStream, PeerAddr)> {
        let (stream, _) = socket.listener.accept().await?;
        Ok((stream, PeerAddr::Unix))
    }

    async fn enter(&self, stream: UnixStream, peer: PeerAddr) -> Option<Entered> {
        let proof = Proof::Connection(Principal::Loopback);
        let caller = Caller { proof, identity: Some(self.0.clone()) };
        let entering = greeted(stream, caller, Http::Either);
        tokio::time::timeout(HANDSHAKE, entering).await.unwrap_or_else(|_| {
            Refusal::new(Reason::TooSlow, format!("over {HANDSHAKE:?}")).log_connection(peer);
            None
        })
    }
}
