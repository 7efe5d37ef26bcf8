//! The model repository extension over gRPC, on both of its wires.

use sconce_proto::inference::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, repository_index_response::ModelIndex,
};

use super::super::{Server, error::ServeError, repository::Indexed};

pub(super) fn index(
    server: &Server,
    request: RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, ServeError> {
    let models = server.index(&request.repository_name, request.ready)?;
    Ok(RepositoryIndexResponse { models: models.into_iter().map(write).collect() })
}

pub(super) fn load(
    server: &Server,
    request: RepositoryModelLoadRequest,
) -> Result<RepositoryModelLoadResponse, ServeError> {
    let model = model(request.repository_name, request.model_name);
    server.load(&model, request.parameters.keys().map(String::as_str))?;
    Ok(RepositoryModelLoadResponse { model_name: model, is_loaded: true })
}

pub(super) fn unload(server: &Server, request: RepositoryModelUnloadRequest) -> ServeError {
    server.unload(&model(request.repository_name, request.model_name))
}

/// The model's name, which KServe has in the field where Triton has the repository's.
fn model(first: String, second: String) -> String {
    if second.is_empty() { first } else { second }
}

fn write(Indexed { name, version, state, reason }: Indexed) -> ModelIndex {
    ModelIndex { name, version: version.unwrap_or_default(), state: state.to_owned(), reason }
}
