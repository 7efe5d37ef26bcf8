//! The OpenAPI document: what holds for every operation is said once, here.

use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, ResponseBuilder,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

/// Adds who may call, and what every operation answers when it fails.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Sconce control plane")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Callers show a client certificate, or a token as `Authorization: Bearer`."))
        .build();
    let certificate = SecurityScheme::MutualTls {
        description: Some("A certificate of the control plane's trust domain.".into()),
        deprecated: None,
        extensions: None,
    };
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("certificate", certificate);
    components.add_security_scheme("token", token);
    let either = ["certificate", "token"].map(|scheme| SecurityRequirement::new(scheme, [""; 0]));
    document.security = Some(either.into());

    let why = ContentBuilder::new().schema(Some(Ref::from_schema_name("Failed"))).build();
    let failed = ResponseBuilder::new()
        .description("It was not done; the body says why.")
        .content("application/json", why)
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".into(), failed.clone().into());
        }
    }
    document
}
