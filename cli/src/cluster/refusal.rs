//! What an API server's errors mean for whoever typed the command.

use kube::core::Status;

use crate::failure::{Exit, Failure, chain};

/// Whether an object, or its kind, is not there.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What the server says, where it is the one who refuses.
pub(crate) fn refused(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// The failure, with an exit code and what to do next.
pub(super) fn failure(address: &str, what: &str, error: kube::Error) -> Failure {
    let kube::Error::Api(status) = error else {
        return Failure::new(
            Exit::Unreachable,
            format!("the API server at {address} cannot be asked about {what}: {}", chain(&error)),
        )
        .hint("does `kubectl version` answer? Another cluster is named with --context or --kubeconfig");
    };
    let said = &status.message;
    match status.code {
        401 => Failure::new(
            Exit::Denied,
            format!("{what}: the API server at {address} does not know you: {said}"),
        )
        .hint("log in again, or name another context with --context"),
        403 => Failure::new(Exit::Denied, format!("{what}: {said}"))
            .hint("somebody who administers the cluster can do it, or give you the right"),
        404 => Failure::new(Exit::NotFound, format!("{what}: {said}")),
        409 => Failure::new(Exit::Conflict, format!("{what}: {said}"))
            .hint("undo what the other has set, or take the fields over with --force-conflicts"),
        // One that takes too long, or too many at once, is the server's state and not ours.
        408 | 429 | 500.. => Failure::new(Exit::Unreachable, format!("{what}: {said}")).hint("try again"),
        _ => Failure::failed(format!("{what}: the API server refuses: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: "because".into(), ..Status::default() }))
    }

    #[test]
    fn each_refusal_has_its_exit_code_and_names_its_object() {
        for (code, exit) in [
            (401, Exit::Denied),
            (403, Exit::Denied),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (422, Exit::Failed),
            (503, Exit::Unreachable),
        ] {
            let failure = failure("https://a", "Service shop/fraud", api(code));
            assert_eq!(failure.exit, exit, "{code}");
            assert!(
                failure.to_string().contains("Service shop/fraud") && failure.to_string().contains("because")
            );
        }
    }
}
