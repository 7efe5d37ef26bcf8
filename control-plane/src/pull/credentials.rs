//! What a source wants to be shown. Handed over with a pull or read from a Secret, kept nowhere.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;

/// Names and values, such as `AWS_ACCESS_KEY_ID`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials(BTreeMap<String, String>);

const DOCKER_CONFIG: &str = ".dockerconfigjson";
const KNOWN: [&str; 17] = [
    "username",
    "password",
    "token",
    DOCKER_CONFIG,
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_ENDPOINT_URL",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_ENDPOINT_URL",
];

impl Credentials {
    /// The value of one of them.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// `username` and `password`.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let (user, password) = (self.get("username")?, self.get("password")?);
        secret(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    /// For a registry: as above, or as `docker login` keeps them.
    pub(super) fn registry(&self, host: &str) -> Option<HeaderValue> {
        if let Some(basic) = self.basic() {
            return Some(basic);
        }
        let config: serde_json::Value = serde_json::from_str(self.get(DOCKER_CONFIG)?).ok()?;
        let auths = config["auths"].as_object()?;
        let of = |key: &str| key.trim_start_matches("https://").split('/').next() == Some(host);
        let (_, auth) = auths.iter().find(|(key, _)| of(key))?;
        match (auth["auth"].as_str(), auth["username"].as_str(), auth["password"].as_str()) {
            (Some(both), _, _) => secret(&format!("Basic {both}")),
            (None, Some(user), Some(password)) => {
                secret(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            }
            _ => None,
        }
    }

    /// The first name that means nothing to any source.
    pub(crate) fn unknown(&self) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| !KNOWN.contains(name))
    }

    /// Of two that make sense only together, the one that is missing.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let together = [
            ["username", "password"],
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            ["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"],
            ["AZURE_CLIENT_ID", "AZURE_TENANT_ID"],
        ];
        together.into_iter().find_map(|[one, other]| match (self.get(one), self.get(other)) {
            (Some(_), None) => Some(other),
            (None, Some(_)) => Some(one),
            (Some(_), Some(_)) | (None, None) => None,
        })
    }

    /// `token`, else `username` and `password`, as a server of files takes them.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        match self.get("token") {
            Some(token) => secret(&format!("Bearer {token}")),
            None => self.basic(),
        }
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl FromIterator<(String, String)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_configuration_is_read_for_its_own_registry_alone() {
        let config = r#"{"auths": {"https://r.example.com/v2/": {"auth": "Y2k6c2VjcmV0"}, "other.example": {"username": "a", "password": "b"}}}"#;
        let held = Credentials::from_iter([(DOCKER_CONFIG.to_owned(), config.to_owned())]);
        let shown = |host: &str| held.registry(host).map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(shown("r.example.com").as_deref(), Some("Basic Y2k6c2VjcmV0"));
        assert_eq!(shown("other.example").as_deref(), Some("Basic YTpi"));
        assert_eq!(shown("evil.example"), None);
    }

    #[test]
    fn credentials_are_never_printed() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = Credentials::from_iter([pair("username", "ci"), pair("password", "secret\n")]);
        assert_eq!(format!("{both:?}"), r#"{"password", "username"}"#);
        let shown = both.authorization().expect("both are there");
        let name =
            |names: &[&str]| Credentials::from_iter(names.iter().map(|name| pair(name, "x"))).missing();
        assert_eq!(name(&["AWS_ACCESS_KEY_ID"]), Some("AWS_SECRET_ACCESS_KEY"));
        assert_eq!((name(&["username", "password"]), both.unknown()), (None, None));
        assert_eq!(
            (shown.as_bytes(), format!("{shown:?}").as_str()),
            (&b"Basic Y2k6c2VjcmV0"[..], "Sensitive")
        );
    }
}
