//! `sconce token` and `sconce join-token`: secrets that are shown once.

use serde::Serialize;

use crate::{
    args::{CreateJoinToken, Role},
    client::Control,
    failure::Failure,
    output::Output,
};

#[derive(Serialize)]
struct Created {
    token: String,
}

#[derive(Serialize)]
struct Revoked<'a> {
    revoked: &'a str,
}

/// Creates a token. Only the token goes to standard output, fit for `$(…)`.
pub(super) async fn create(name: &str, role: Role, mut control: Control, out: Output) -> Result<(), Failure> {
    let token = control.create_token(name, role).await?;
    eprintln!("keep it now, it is not shown again; use it as SCONCE_TOKEN or --token");
    out.show(&Created { token }, |created| created.token.clone())
}

/// Revokes a token.
pub(super) async fn revoke(name: &str, mut control: Control, out: Output) -> Result<(), Failure> {
    control.revoke_token(name).await?;
    out.show(&Revoked { revoked: name }, |_| format!("revoked token {name}"))
}

/// Creates a join token.
pub(super) async fn create_join(
    args: &CreateJoinToken,
    mut control: Control,
    out: Output,
) -> Result<(), Failure> {
    let token = control.create_join_token(&args.path, &args.name, args.ttl, args.uses).await?;
    eprintln!(
        "keep it now, it is not shown again; write it to a file and name that in SCONCE_JOIN_TOKEN_FILE"
    );
    out.show(&Created { token }, |created| created.token.clone())
}
