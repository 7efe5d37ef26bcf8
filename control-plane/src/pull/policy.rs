//! What may be pulled from, and what may be connected to on the way.
//!
//! Whoever may push must not be able to read, through the control plane, what only the control
//! plane reaches: a cloud's metadata, the API server, other people's services. So an address
//! is judged when it is named, every URL when it is asked for, redirects and token services
//! included, and every IP address when a name is resolved to it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use url::{Host, Url};

use super::address::{self, Address, Scheme};

/// What an operator allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// Anything that is on the internet.
    public: bool,
    /// These, wherever their hosts are.
    prefixes: Vec<Address>,
}

/// Something that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The address that was given.
    #[error("{0} may not be pulled from; an operator can allow it with SCONCE_SOURCES")]
    Address(String),
    /// A host, or the address that its name stands for.
    #[error(
        "{host} is {what}, which a pull may reach only where SCONCE_SOURCES names the host, such as https://{host}/"
    )]
    Host { host: String, what: &'static str },
    /// A host that nobody can allow.
    #[error("{0} is where clouds keep the machine's own credentials; no pull goes there")]
    Metadata(String),
    /// No TLS.
    #[error("{0} leads to a URL without TLS")]
    Plaintext(String),
}

impl FromStr for Policy {
    type Err = String;

    /// `public`, `off`, and prefixes of addresses, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Policy::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "off") {
            match part {
                "public" => policy.public = true,
                prefix => policy.prefixes.push(Address::prefix(prefix).map_err(|error| error.to_string())?),
            }
        }
        Ok(policy)
    }
}

impl Policy {
    /// Whether this may be pulled from at all.
    pub(super) fn permits(&self, address: &Address) -> Result<(), Refusal> {
        if self.public || self.names_address(address) {
            return Ok(());
        }
        Err(Refusal::Address(address.to_string()))
    }

    /// Whether some prefix is of this address; what is public does not count.
    pub(crate) fn names_address(&self, address: &Address) -> bool {
        self.prefixes.iter().any(|prefix| address.is_below(prefix))
    }

    /// Whether this may be asked for. Where a name leads is judged when it is resolved.
    pub(super) fn permits_url(&self, url: &Url) -> Result<(), Refusal> {
        if url.scheme() != "https" {
            return Err(Refusal::Plaintext(address::authority(url)));
        }
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            // Its port counts where it is allowed by name: other ports of it are other services.
            Some(Host::Domain(name)) if self.names(name) && !self.names_port(&address::authority(url)) => {
                let what = "allowed at other ports only";
                return Err(Refusal::Host { host: address::authority(url), what });
            }
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.permits_ip(&address::authority(url), ip, self.names_port(&address::authority(url)))
    }

    /// Whether a name may be connected to at this address.
    pub(super) fn permits_resolved(&self, name: &str, ip: IpAddr) -> Result<(), Refusal> {
        self.permits_ip(name, ip, self.names(name))
    }

    fn permits_ip(&self, host: &str, ip: IpAddr, named: bool) -> Result<(), Refusal> {
        let host = host.to_owned();
        match Kind::of(ip) {
            Kind::Public => Ok(()),
            Kind::Metadata => Err(Refusal::Metadata(host)),
            Kind::Private if named => Ok(()),
            Kind::Private => Err(Refusal::Host { host, what: "at an address that is not public" }),
        }
    }

    /// Whether some prefix is of this host, whatever the port.
    fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let of = |authority: &str| authority.rsplit_once(':').map_or(authority, |(name, _)| name) == host;
        self.hosts().any(of)
    }

    fn names_port(&self, authority: &str) -> bool {
        self.hosts().any(|host| host == authority)
    }

    fn hosts(&self) -> impl Iterator<Item = &str> {
        let hosts =
            self.prefixes.iter().filter(|prefix| matches!(prefix.scheme, Scheme::Https | Scheme::Oci));
        hosts.map(|prefix| prefix.authority.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    /// Private, shared, local, or of no use.
    Private,
    /// Where a machine finds its credentials, and addresses that are no host's.
    Metadata,
}

impl Kind {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => Self::of_v4(ip),
                None => Self::of_v6(ip),
            },
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        // Azure and Alibaba Cloud have theirs outside of the link-local range.
        let metadata = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
        if ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || metadata.contains(&ip) {
            return Self::Metadata;
        }
        let special = a == 0
            || (a == 100 && (64..128).contains(&b))
            || (a == 192 && b == 0 && c == 0)
            || (a == 198 && (18..20).contains(&b))
            || a >= 240;
        if special || ip.is_private() || ip.is_loopback() || ip.is_documentation() {
            return Self::Private;
        }
        Self::Public
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let [a, b, ..] = ip.segments();
        let aws = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        if ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == aws {
            return Self::Metadata;
        }
        // Tunnels and translations have an IPv4 address inside, which is not looked at here.
        let tunnel = a == 0x2002 || (a == 0x2001 && (b == 0 || b == 0xdb8));
        if a & 0xe000 == 0x2000 && !tunnel { Self::Public } else { Self::Private }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn permits(policy: &Policy, url: &str) -> bool {
        policy.permits_url(&Url::parse(url).expect("a URL")).is_ok()
    }

    fn resolves(policy: &Policy, name: &str, ip: &str) -> bool {
        policy.permits_resolved(name, ip.parse().expect("an address")).is_ok()
    }

    #[test]
    fn without_anything_nothing_is_allowed_and_prefixes_allow_what_is_below_them() {
        let address = |text: &str| text.parse::<Address>().expect("valid");
        assert!(policy("off").permits(&address("s3://models/a.pt")).is_err());
        assert!(policy("public").permits(&address("s3://models/a.pt")).is_ok());
        let only = policy("s3://models/fraud, https://models.example.com");
        assert!(only.permits(&address("s3://models/fraud/7.pt")).is_ok());
        assert!(only.permits(&address("https://models.example.com/7.pt")).is_ok());
        let refused = only.permits(&address("s3://models/other/7.pt")).expect_err("not below").to_string();
        assert!(
            refused.contains("s3://models/other/7.pt") && refused.contains("SCONCE_SOURCES"),
            "{refused}"
        );
        assert!("http://models.example.com".parse::<Policy>().is_err());
    }

    #[test]
    fn private_addresses_are_reached_only_by_hosts_that_are_named() {
        let public = policy("public");
        for ip in
            ["10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1", "0.1.2.3", "255.255.255.255"]
        {
            assert!(!permits(&public, &format!("https://{ip}/a")), "{ip}");
            assert!(!resolves(&public, "models.example.com", ip), "{ip}");
            assert!(!resolves(&public, "models.example.com", &format!("::ffff:{ip}")), "{ip}");
        }
        for ip in ["::1", "fc00::1", "2002:7f00:1::", "64:ff9b::a00:1", "2001:db8::1"] {
            assert!(!permits(&public, &format!("https://[{ip}]/a")), "{ip}");
            assert!(!resolves(&public, "models.example.com", ip), "{ip}");
        }
        assert!(resolves(&public, "models.example.com", "93.184.216.34"));
        assert!(resolves(&public, "models.example.com", "2606:2800:220:1::1"));
        assert!(!permits(&public, "https://2130706433/a"), "127.0.0.1 in another spelling");
        assert!(!permits(&public, "http://models.example.com/a"), "no TLS");

        let named = policy("public,https://minio.storage.svc:9000/models,oci://10.0.0.7:5000");
        assert!(resolves(&named, "minio.storage.svc", "10.1.2.3"));
        assert!(!resolves(&named, "kubernetes.default.svc", "10.96.0.1"));
        assert!(permits(&named, "https://minio.storage.svc:9000/other"));
        assert!(!permits(&named, "https://minio.storage.svc:6443/api"), "another port is another service");
        assert!(permits(&named, "https://10.0.0.7:5000/v2/"));
        assert!(!permits(&named, "https://10.0.0.7/v2/"));
    }

    #[test]
    fn where_machines_find_their_credentials_nobody_goes_whatever_is_allowed() {
        let named = policy("public,https://169.254.169.254,https://metadata,https://[fd00:ec2::254]");
        for ip in
            ["169.254.169.254", "168.63.129.16", "100.100.100.200", "fe80::1", "fd00:ec2::254", "0.0.0.0"]
        {
            assert!(!resolves(&named, "metadata", ip), "{ip}");
        }
        for url in
            ["https://169.254.169.254/latest", "https://[fd00:ec2::254]/", "https://[::ffff:a9fe:a9fe]/"]
        {
            assert!(!permits(&named, url), "{url}");
        }
    }
}
