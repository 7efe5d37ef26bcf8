//! The messages of Istio's certificate service.
//!
//! Numbers and names: istio/api `security/v1alpha1/ca.proto`.

use prost::Message;

pub(super) const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CertificateRequest {
    /// In PEM; only its public key counts.
    #[prost(string, tag = "1")]
    pub(super) csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub(super) validity_duration: i64,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CertificateResponse {
    /// In PEM, an element each: the leaf first, the root last.
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}
