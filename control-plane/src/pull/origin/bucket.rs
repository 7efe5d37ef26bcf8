//! Objects of S3, Google Cloud Storage and Azure Blob Storage.
//!
//! Only the credentials that come with a pull are used. The control plane's own would let whoever
//! may push read whatever it can.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::AmazonS3Builder,
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};

use super::{Body, PullError};
use crate::pull::{
    address::{Address, Scheme},
    credentials::Credentials,
    policy::Refusal,
    web::Web,
};

/// An object, and the store that has it.
pub(in crate::pull) struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Which edition of it was begun.
    tag: Option<String>,
}

impl Object {
    pub(super) fn open(web: &Web, address: &Address, credentials: &Credentials) -> Result<Self, PullError> {
        let (store, path): (Arc<dyn ObjectStore>, _) = match address.scheme {
            Scheme::S3 => (Arc::new(s3(web, address, credentials).map_err(invalid)?), address.path.as_str()),
            Scheme::Gs => (Arc::new(gs(web, address, credentials).map_err(invalid)?), address.path.as_str()),
            Scheme::Az | Scheme::Https | Scheme::Oci => {
                let (container, path) = address.path.split_once('/').unwrap_or((&address.path, ""));
                (Arc::new(az(web, address, container, credentials).map_err(invalid)?), path)
            }
        };
        if let Some(endpoint) = endpoint(address, credentials) {
            permit(web, endpoint)?;
        }
        let path = Path::parse(path).map_err(|error| PullError::Invalid(format!("{address}: {error}")))?;
        Ok(Self { store, path, tag: None })
    }

    pub(super) async fn read(&mut self, address: &Address, from: u64) -> Result<Body, PullError> {
        let range = (from > 0).then_some(GetRange::Offset(from));
        let options = GetOptions { range, if_match: self.tag.clone(), ..GetOptions::default() };
        let found = match self.store.get_opts(&self.path, options).await {
            Ok(found) => found,
            // It was replaced meanwhile: its beginning is of no use any more.
            Err(Error::Precondition { .. }) if from > 0 => {
                self.store.get(&self.path).await.map_err(|error| failed(address, error))?
            }
            Err(error) => return Err(failed(address, error)),
        };
        self.tag = found.meta.e_tag.clone();
        let (from, total) = (found.range.start, Some(found.meta.size));
        let whose = address.clone();
        let stream = found.into_stream().map_err(move |error| failed(&whose, error));
        Ok(Body { from, total, stream: stream.boxed() })
    }
}

fn s3(
    web: &Web,
    address: &Address,
    credentials: &Credentials,
) -> object_store::Result<impl ObjectStore + use<>> {
    let mut store = AmazonS3Builder::new()
        .with_http_connector(web.connector())
        .with_retry(retry())
        .with_bucket_name(&address.authority)
        .with_region(credentials.get("AWS_REGION").unwrap_or("us-east-1"));
    if let Some(endpoint) = endpoint(address, credentials) {
        store = store.with_endpoint(endpoint);
    }
    match (credentials.get("AWS_ACCESS_KEY_ID"), credentials.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => store = store.with_access_key_id(id).with_secret_access_key(secret),
        _ => store = store.with_skip_signature(true),
    }
    if let Some(token) = credentials.get("AWS_SESSION_TOKEN") {
        store = store.with_token(token);
    }
    store.build()
}

fn gs(
    web: &Web,
    address: &Address,
    credentials: &Credentials,
) -> object_store::Result<impl ObjectStore + use<>> {
    let mut store = GoogleCloudStorageBuilder::new()
        .with_http_connector(web.connector())
        .with_retry(retry())
        .with_bucket_name(&address.authority);
    if let Some(endpoint) = endpoint(address, credentials) {
        store = store.with_base_url(endpoint);
    }
    match credentials.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
        Some(key) => store = store.with_service_account_key(key),
        None => store = store.with_skip_signature(true),
    }
    store.build()
}

fn az(
    web: &Web,
    address: &Address,
    container: &str,
    credentials: &Credentials,
) -> object_store::Result<impl ObjectStore + use<>> {
    let mut store = MicrosoftAzureBuilder::new()
        .with_http_connector(web.connector())
        .with_retry(retry())
        .with_account(&address.authority)
        .with_container_name(container);
    if let Some(endpoint) = endpoint(address, credentials) {
        store = store.with_endpoint(endpoint.to_owned());
    }
    let keys = [
        ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
        ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
        ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
        ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ];
    let mut anonymous = true;
    for (name, key) in keys {
        if let Some(value) = credentials.get(name) {
            anonymous = false;
            store = store.with_config(key, value);
        }
    }
    store.with_skip_signature(anonymous).build()
}

/// Where the bucket is, if not at the cloud that gave the scheme its name.
fn endpoint<'a>(address: &Address, credentials: &'a Credentials) -> Option<&'a str> {
    credentials.get(match address.scheme {
        Scheme::S3 => "AWS_ENDPOINT_URL",
        Scheme::Gs => "GOOGLE_ENDPOINT_URL",
        Scheme::Az | Scheme::Https | Scheme::Oci => "AZURE_ENDPOINT_URL",
    })
}

/// A bucket of another's endpoint is another bucket, so the endpoint must be allowed as well.
fn permit(web: &Web, endpoint: &str) -> Result<(), PullError> {
    let endpoint = Address::prefix(endpoint).map_err(|error| PullError::Invalid(error.to_string()))?;
    if endpoint.scheme != Scheme::Https {
        return Err(Refusal::Plaintext(endpoint.to_string()).into());
    }
    Ok(web.policy().permits(&endpoint)?)
}

/// Of single requests; a file that breaks off is gone on with elsewhere.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() }
}

fn invalid(error: Error) -> PullError {
    PullError::Invalid(error.to_string())
}

fn failed(address: &Address, error: Error) -> PullError {
    let named = address.to_string();
    match error {
        Error::NotFound { .. } => {
            PullError::Missing { address: named, said: "there is no such object".into() }
        }
        Error::PermissionDenied { .. } => {
            PullError::Denied { address: named, said: "access is denied".into() }
        }
        Error::Unauthenticated { .. } => {
            PullError::Denied { address: named, said: "the credentials are not accepted".into() }
        }
        error => PullError::request(address, &error),
    }
}
