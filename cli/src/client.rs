//! The control plane's API as this program sees it. The wire is spoken here and in the
//! modules below, and nowhere else: what goes out of here is domain or [`answers`].

use std::{error::Error, time::Duration};

use sconce_identity::ConnectError;
use sconce_proto::{InvalidMessage, v1::registry_client::RegistryClient};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    connection::{self, Callee},
    context::Access,
    failure::{Exit, Failure, chain},
};

mod answers;
mod change;
mod look;
mod pull;
mod push;
#[cfg(test)]
pub(crate) mod standin;

pub(crate) use answers::{
    AuditEntry, Described, Event, Sidecar, SplitProgress, SplitState, State, VersionStatus,
};
pub(crate) use pull::{Stage as PullStage, Wanted};
pub(crate) use push::{Announcement, Begun};

const PORT: u16 = 8440;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The manifest of a very large model is larger than tonic's usual limit.
const LARGEST_MESSAGE: usize = 64 << 20;

/// An open connection to a control plane.
#[derive(Clone)]
pub(crate) struct Control {
    registry: RegistryClient<Channel>,
    address: String,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Control {
    /// Connects and proves who we are.
    pub(crate) async fn connect(access: &Access) -> Result<Self, Failure> {
        let address = access.control_plane.clone();
        let endpoint = Endpoint::from(dialled(&address)?)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let connector = connection::connector(access, Callee::ControlPlane).await?;
        let connecting = endpoint.connect_with_connector(connector);
        let channel = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(no_connection(&address, &error)),
            Err(_) => {
                let why = format!("no answer in {} s", CONNECT_TIMEOUT.as_secs());
                return Err(Failure::unreachable("control plane", &address, why));
            }
        };
        Ok(Self {
            registry: RegistryClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE),
            address,
            authorization: access.token.as_deref().map(bearer).transpose()?,
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    fn failure(&self, status: Status) -> Failure {
        from_status(&self.address, &status)
    }
}

/// The address as tonic dials it: TLS is our connector's, so it is called `http` here.
fn dialled(address: &str) -> Result<Uri, Failure> {
    let invalid = |why: &str| {
        Failure::usage(format!("{address:?} is no address of a control plane: {why}"))
            .hint("write it as https://host:8440")
    };
    let uri: Uri = address.parse().map_err(|_| invalid("it is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(invalid("the control plane speaks only https"));
    }
    let host = uri.host().ok_or_else(|| invalid("it names no host"))?;
    let port = uri.port_u16().unwrap_or(PORT);
    format!("http://{host}:{port}").parse().map_err(|_| invalid("it is no URL"))
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| Failure::usage("the token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn connect_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn no_connection(address: &str, error: &(dyn Error + 'static)) -> Failure {
    match connect_error(error) {
        Some(found) => connection::failure(Callee::ControlPlane, address, found),
        None => Failure::unreachable("control plane", address, chain(error)),
    }
}

/// What a refused call means for the user.
fn from_status(address: &str, status: &Status) -> Failure {
    if status.source().is_some() {
        let cause = chain(status);
        // In TLS 1.3 a refused client learns of it only with its first call.
        if cause.contains("alert") {
            return Failure::new(
                Exit::Denied,
                format!("the control plane at {address} refused our certificate: {cause}"),
            )
            .hint("are --cert and --key of its trust domain, and not expired?");
        }
        return no_connection(address, status);
    }
    let message = status.message();
    match status.code() {
        Code::Unavailable => Failure::unreachable("control plane", address, message),
        Code::Unauthenticated => Failure::new(Exit::Denied, format!("not authenticated: {message}"))
            .hint("give a certificate (--cert and --key) or a token (--token)"),
        Code::PermissionDenied => Failure::new(Exit::Denied, message),
        Code::NotFound => Failure::new(Exit::NotFound, message),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => {
            Failure::new(Exit::Conflict, message)
        }
        Code::Unimplemented => {
            Failure::failed(format!("the control plane at {address} does not know this call: {message}"))
                .hint("is it older than this program?")
        }
        code if message.is_empty() => Failure::failed(format!("the control plane answered {code:?}")),
        _ => Failure::failed(message),
    }
}

/// An answer that means nothing to us.
fn nonsense(error: InvalidMessage) -> Failure {
    Failure::failed(format!("the control plane's answer cannot be understood: {error}"))
        .hint("is it newer than this program?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_refusal_has_its_exit_code() {
        let exit = |code| from_status("https://a:1", &Status::new(code, "why")).exit;
        assert_eq!(exit(Code::Unavailable), Exit::Unreachable);
        assert_eq!(exit(Code::Unauthenticated), Exit::Denied);
        assert_eq!(exit(Code::PermissionDenied), Exit::Denied);
        assert_eq!(exit(Code::NotFound), Exit::NotFound);
        assert_eq!(exit(Code::AlreadyExists), Exit::Conflict);
        assert_eq!(exit(Code::FailedPrecondition), Exit::Conflict);
        assert_eq!(exit(Code::InvalidArgument), Exit::Failed);
        assert_eq!(exit(Code::Internal), Exit::Failed);
    }

    #[test]
    fn an_address_is_https_and_has_a_port() {
        let text = |address| dialled(address).map(|uri| uri.to_string()).map_err(|f| f.exit);
        assert_eq!(text("https://10.0.0.1"), Ok("http://10.0.0.1:8440/".into()));
        assert_eq!(text("https://[::1]:9"), Ok("http://[::1]:9/".into()));
        assert_eq!(text("http://10.0.0.1"), Err(Exit::Usage));
        assert_eq!(text("10.0.0.1:8440"), Err(Exit::Usage));
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_unreachable_and_the_failure_names_it() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("https://{}", nobody.local_addr().expect("bound"));
        drop(nobody);
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca");
        let authority =
            sconce_identity::authority::Authority::load_or_create(&ca, "test.local").expect("a CA");
        let roots = folder.path().join("ca.pem");
        std::fs::write(&roots, authority.roots_pem()).expect("written");
        let access = Access {
            control_plane: address.clone(),
            control_plane_id: crate::context::CONTROL_PLANE_ID.into(),
            identity: crate::context::Credentials::Files { ca: roots, certificate: None },
            token: Some("t".into()),
            sidecars: vec![],
        };
        let failure = Control::connect(&access).await.err().expect("nobody is there");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.to_string().contains(&address), "{failure}");
    }
}
