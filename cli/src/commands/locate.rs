//! Which sidecar is asked, where a command may name one or leave it open.

use sconce_catalog::ModelName;

use crate::{
    client::{Control, State},
    context::{self, Access},
    failure::{Exit, Failure},
};

/// The sidecar named, else the first of `sconce up`, else one that has the model ready.
///
/// # Errors
/// Where none has that name or the model.
pub(super) async fn sidecar(
    model: &ModelName,
    named: Option<&str>,
    access: &Access,
) -> Result<String, Failure> {
    if let Some(known) = without_asking(named, &access.sidecars) {
        return Ok(known);
    }
    let sidecars = Control::connect(access).await?.model(model).await?.sidecars;
    let of = |name: &str| name.parse().is_ok_and(|name: ModelName| name == *model);
    let chosen = sidecars.into_iter().find(|sidecar| match named {
        Some(named) => sidecar.name == named,
        None => sidecar.connected && sidecar.versions.iter().any(|v| v.state == State::Ready && of(&v.model)),
    });
    match (chosen, named) {
        (Some(sidecar), _) => Ok(sidecar.address),
        (None, Some(named)) => {
            Err(Failure::new(Exit::NotFound, format!("no sidecar {named:?} serves {model}"))
                .hint("see `sconce sidecars`, or give its address as https://host:port"))
        }
        (None, None) => Err(Failure::new(Exit::NotFound, format!("no connected sidecar has {model} ready"))
            .hint(format!("see `sconce versions {model}`"))),
    }
}

/// An address, or what the context file has of this name, or first.
pub(super) fn without_asking(named: Option<&str>, known: &[context::Sidecar]) -> Option<String> {
    let Some(named) = named else { return known.first().map(|sidecar| sidecar.address.clone()) };
    // No name of a sidecar in the context file holds a colon.
    match named.split_once("://") {
        Some(_) => Some(named.to_owned()),
        None if named.contains(':') => Some(format!("https://{named}")),
        None => known.iter().find(|sidecar| sidecar.name == named).map(|sidecar| sidecar.address.clone()),
    }
}
