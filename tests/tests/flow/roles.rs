//! Who may call what on the control plane: every method, asked by every kind of caller.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request as HttpRequest;
use sconce_identity::{PeerPolicy, trust_only_client_config};
use sconce_proto::v1::{
    self, Role, registry_client::RegistryClient, sidecar_control_client::SidecarControlClient,
};
use sconce_tests::{Client, Plane};
use tonic::{Code, Request, transport::Channel};

/// Someone who calls, and what they may do.
struct Caller {
    name: &'static str,
    channel: Channel,
    token: Option<String>,
    /// `None` where nobody knows who it is.
    role: Option<Role>,
}

impl Caller {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {token}").parse().expect("text");
            request.metadata_mut().insert("authorization", bearer);
        }
        request
    }

    /// What a call that takes `needed` is answered with; `None` is anything but a refusal.
    fn refusal(&self, needed: Role) -> Option<Code> {
        match self.role {
            None => Some(Code::Unauthenticated),
            Some(role) if role < needed => Some(Code::PermissionDenied),
            Some(_) => None,
        }
    }
}

async fn callers(plane: &Plane) -> Vec<Caller> {
    let mut callers = vec![
        Caller { name: "nobody", channel: plane.channel(None), token: None, role: None },
        Caller {
            name: "a made-up token",
            channel: plane.channel(None),
            token: Some("sct_0".into()),
            role: None,
        },
        Caller {
            name: "a workload",
            channel: plane.channel(Some("/ns/default/sa/app")),
            token: None,
            role: Some(Role::Unspecified),
        },
    ];
    for (name, role) in
        [("a reader", Role::Reader), ("a pusher", Role::Pusher), ("an operator", Role::Operator)]
    {
        let request = v1::CreateTokenRequest { name: name.into(), role: role.into() };
        let token = plane.registry().create_token(request).await.expect("made").into_inner().token;
        callers.push(Caller { name, channel: plane.channel(None), token: Some(token), role: Some(role) });
    }
    let channel = plane.channel(Some("/sconce/operator"));
    callers.push(Caller { name: "the operator", channel, token: None, role: Some(Role::Operator) });
    callers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_the_megabytes_of_strangers() {
    let mut plane = Plane::start().await;
    let (large, path) = (Bytes::from(vec![b' '; 1 << 20]), format!("{}/api/v1/pushes", plane.address()));
    let post = || HttpRequest::post(&path).header("content-type", "application/json").body(large.clone());
    let stranger = Client::with_tls(plane.tls(None)).exchange(post().expect("a request")).await;
    // Either it hears why or, still sending, that the connection is closed.
    if let Ok(reply) = stranger {
        assert!(reply.status == 400 && reply.json.to_string().contains("limit"), "{reply:?}");
    }
    let known = plane.caller("/sconce/operator").exchange(post().expect("a request")).await.expect("read");
    assert!(known.status == 400 && known.json.to_string().contains("JSON"), "{known:?}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_asks_for_its_role() {
    let mut plane = Plane::start().await;
    for caller in callers(&plane).await {
        let mut registry = RegistryClient::new(caller.channel.clone());
        macro_rules! asked {
            ($needed:ident, $method:ident($message:expr)) => {
                let answer =
                    registry.$method(caller.request($message)).await.err().map(|status| status.code());
                match caller.refusal(Role::$needed) {
                    Some(code) => assert_eq!(answer, Some(code), "{} {}", caller.name, stringify!($method)),
                    None => assert!(
                        !matches!(answer, Some(Code::Unauthenticated | Code::PermissionDenied)),
                        "{} {}: {answer:?}",
                        caller.name,
                        stringify!($method)
                    ),
                }
            };
        }
        asked!(Reader, list_models(v1::ListModelsRequest::default()));
        asked!(Reader, get_model(v1::GetModelRequest::default()));
        asked!(Reader, watch_events(v1::WatchEventsRequest { past_only: true, ..Default::default() }));
        asked!(Reader, list_sidecars(v1::ListSidecarsRequest::default()));
        asked!(Pusher, begin_push(v1::BeginPushRequest::default()));
        asked!(Pusher, upload_chunks(futures::stream::iter([v1::UploadChunksRequest::default()])));
        asked!(Pusher, commit_push(v1::CommitPushRequest::default()));
        asked!(Operator, commit_push(v1::CommitPushRequest { activate: true, ..Default::default() }));
        asked!(Operator, set_split(v1::SetSplitRequest::default()));
        asked!(Operator, delete_version(v1::DeleteVersionRequest::default()));
        asked!(Operator, list_audit(v1::ListAuditRequest::default()));
        asked!(Operator, create_token(v1::CreateTokenRequest::default()));
        asked!(Operator, revoke_token(v1::RevokeTokenRequest::default()));
        asked!(Operator, create_join_token(v1::CreateJoinTokenRequest::default()));

        // Artifacts are for workloads, whatever token somebody has.
        let mut control = SidecarControlClient::new(caller.channel.clone());
        let answer =
            control.get_manifest(caller.request(v1::GetManifestRequest { artifact: vec![0; 32] })).await;
        let wanted = match caller.name {
            "a workload" => Code::NotFound,
            // It proves no namespace, so it is no sidecar.
            "the operator" => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        };
        assert_eq!(answer.err().map(|status| status.code()), Some(wanted), "{}", caller.name);
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_asks_for_the_same_role() {
    let mut plane = Plane::start().await;
    let roots = plane.authority().roots_pem().to_owned();
    let bare =
        trust_only_client_config(roots.as_bytes(), PeerPolicy::own_trust_domain()).expect("valid roots");
    let (bare, workload, operator) =
        (Client::with_tls(bare), plane.caller("/ns/default/sa/app"), plane.caller("/sconce/operator"));
    let digest = format!("blake3:{}", "0".repeat(64));
    let paths = [
        (Role::Reader, "GET", "models".to_owned()),
        (Role::Reader, "GET", "models/default/none".to_owned()),
        (Role::Reader, "GET", "sidecars".to_owned()),
        (Role::Reader, "GET", "events".to_owned()),
        (Role::Operator, "GET", "audit".to_owned()),
        (Role::Pusher, "PUT", "models/default/none/versions/1".to_owned()),
        (Role::Operator, "PUT", "models/default/none/versions/1?activate=true".to_owned()),
        (Role::Pusher, "POST", "pushes".to_owned()),
        (Role::Pusher, "PUT", format!("pushes/none/chunks/{digest}")),
        (Role::Pusher, "POST", "pushes/none/commit".to_owned()),
        (Role::Operator, "POST", "pushes/none/commit?activate=true".to_owned()),
        (Role::Operator, "PUT", "models/default/none/split".to_owned()),
        (Role::Operator, "DELETE", "models/default/none/versions/1".to_owned()),
        (Role::Operator, "POST", "tokens".to_owned()),
        (Role::Operator, "DELETE", "tokens/none".to_owned()),
        (Role::Operator, "POST", "join-tokens".to_owned()),
    ];
    for caller in callers(&plane).await {
        let client = match caller.name {
            "a workload" => &workload,
            "the operator" => &operator,
            _ => &bare,
        };
        for (needed, method, path) in &paths {
            let mut request = HttpRequest::builder()
                .method(*method)
                .uri(format!("{}/api/v1/{path}", plane.address()))
                .header("content-type", "application/json");
            if let Some(token) = &caller.token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            // A body that every path can read: who may not call is refused all the same.
            let body = match path.as_str() {
                "pushes" => r#"{"model":"a","manifest":{"chunks":[],"pieces":[]}}"#,
                "tokens" => r#"{"name":"","role":"reader"}"#,
                "join-tokens" => r#"{"spiffe_path":"no path"}"#,
                _ => r#"{"1":100}"#,
            };
            let reply = client.exchange(request.body(Bytes::from(body)).expect("a request")).await;
            let reply = reply.expect("answered");
            let context = format!("{} {method} {path}: {reply:?}", caller.name);
            match caller.refusal(*needed) {
                Some(Code::Unauthenticated) => assert_eq!(reply.status, 401, "{context}"),
                Some(_) => assert_eq!(reply.status, 403, "{context}"),
                None => assert!(![401, 403].contains(&reply.status), "{context}"),
            }
            if reply.status >= 400 {
                assert!(reply.json["error"].is_string(), "{context}");
            }
        }
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_is_on_record_and_a_revoked_token_opens_nothing() {
    let mut plane = Plane::start().await;
    let request = v1::CreateTokenRequest { name: "ci".into(), role: Role::Pusher.into() };
    let token = plane.registry().create_token(request).await.expect("made").into_inner().token;
    let ci =
        Caller { name: "ci", channel: plane.channel(None), token: Some(token), role: Some(Role::Pusher) };
    let mut registry = RegistryClient::new(ci.channel.clone());
    let split = v1::SetSplitRequest { model: "default/a".into(), ..Default::default() };
    let refused = registry.set_split(ci.request(split)).await.expect_err("not its to do");
    assert!(refused.message().contains("token:ci is a pusher and needs the role operator"), "{refused:?}");

    registry.list_models(ci.request(v1::ListModelsRequest::default())).await.expect("a pusher may read");
    plane.registry().revoke_token(v1::RevokeTokenRequest { name: "ci".into() }).await.expect("revoked");
    let late = registry.list_models(ci.request(v1::ListModelsRequest::default())).await;
    assert_eq!(late.expect_err("revoked").code(), Code::Unauthenticated);

    let log =
        plane.registry().list_audit(v1::ListAuditRequest::default()).await.expect("the log").into_inner();
    let lines: BTreeMap<_, _> = log.entries.iter().map(|line| (line.action.as_str(), line)).collect();
    let split = lines["split"];
    assert_eq!(
        (split.principal.as_str(), split.subject.as_str(), split.allowed),
        ("token:ci", "default/a", false)
    );
    assert!(lines["token.create"].allowed && lines["token.create"].subject == "ci");
    assert!(lines["token.revoke"].allowed);
    plane.stop().await;
}
