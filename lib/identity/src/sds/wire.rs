//! The messages of secret discovery, as far as they are used.
//!
//! Numbers and names: envoyproxy/envoy `api/envoy/service/discovery/v3/discovery.proto` and
//! `api/envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto`. Fields that are
//! not here are skipped, as protobuf has it.

use prost::Message;

use super::SdsError;

pub(super) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
pub(super) const STREAM_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryRequest {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, optional, tag = "2")]
    pub(super) node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) response_nonce: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiscoveryResponse {
    #[prost(string, tag = "1")]
    pub(super) version_info: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Any>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

// Not printed: it may hold a private key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Secret {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) tls_certificate: Option<TlsCertificate>,
    #[prost(message, optional, tag = "4")]
    pub(super) validation_context: Option<ValidationContext>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct TlsCertificate {
    #[prost(message, optional, tag = "1")]
    pub(super) certificate_chain: Option<DataSource>,
    #[prost(message, optional, tag = "2")]
    pub(super) private_key: Option<DataSource>,
}

/// `CertificateValidationContext`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct ValidationContext {
    #[prost(message, optional, tag = "1")]
    pub(super) trusted_ca: Option<DataSource>,
}

/// Only what comes inline: a service on a socket has no files of ours to name.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct DataSource {
    #[prost(bytes = "vec", tag = "2")]
    pub(super) inline_bytes: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) inline_string: String,
}

impl DiscoveryResponse {
    /// The request that says that this state has been taken.
    pub(super) fn acknowledged(&self, name: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.version_info.clone(),
            node: None,
            resource_names: vec![name.to_owned()],
            type_url: SECRET.to_owned(),
            response_nonce: self.nonce.clone(),
        }
    }

    /// The secret with this name, if this state has it.
    pub(super) fn secret(&self, name: &'static str) -> Result<Option<Secret>, SdsError> {
        for resource in &self.resources {
            let secret = Secret::decode(&resource.value[..])
                .map_err(|error| SdsError::Secret { name, reason: error.to_string() })?;
            if secret.name == name {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }
}

impl Secret {
    /// PEM of the chain, leaf first, and of its key.
    pub(super) fn certificate(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let certificate = self.tls_certificate.as_ref()?;
        let chain = certificate.certificate_chain.as_ref()?.inline()?;
        Some((chain, certificate.private_key.as_ref()?.inline()?))
    }

    /// PEM of every root.
    pub(super) fn roots(&self) -> Option<Vec<u8>> {
        self.validation_context.as_ref()?.trusted_ca.as_ref()?.inline()
    }
}

impl DataSource {
    fn inline(&self) -> Option<Vec<u8>> {
        let text = self.inline_string.as_bytes();
        let bytes = if self.inline_bytes.is_empty() { text } else { &self.inline_bytes };
        (!bytes.is_empty()).then(|| bytes.to_vec())
    }
}
