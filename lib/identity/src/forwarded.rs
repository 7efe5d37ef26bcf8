//! The caller that a mesh's Envoy vouches for, in `x-forwarded-client-cert`.
//!
//! Envoy ends the mutual TLS of other pods and hands their requests over in plaintext, each
//! with what it saw of the client's certificate. It appends, so only the last element is its
//! word: those before it are whatever the client sent. (envoyproxy/envoy
//! `docs/root/configuration/http/http_conn_man/headers.rst`, "x-forwarded-client-cert".)

use http::HeaderMap;

use crate::{Identity, PeerPolicy, Reason, Refusal, SpiffeId};

/// Name of the header.
const HEADER: &str = "x-forwarded-client-cert";

/// The caller of a request that came from Envoy, if the policy accepts it.
pub(crate) fn caller(
    headers: &HeaderMap,
    identity: &Identity,
    policy: &PeerPolicy,
) -> Result<SpiffeId, Refusal> {
    // Without an own trust domain there is nothing to compare a caller's with.
    let own = identity.current().ok_or_else(Refusal::no_identity)?;
    let id = vouched(headers)?;
    match policy.check(&id, Some(own.id().trust_domain())) {
        Ok(()) => Ok(id),
        Err(reason) => Err(Refusal::of_id(reason, &id, policy)),
    }
}

/// The one workload that the last element names.
fn vouched(headers: &HeaderMap) -> Result<SpiffeId, Refusal> {
    let mut values = headers.get_all(HEADER).iter();
    let bad = |why: &str| Refusal::new(Reason::BadlyForwarded, why);
    let value = match (values.next(), values.next()) {
        // Envoy leaves it out where the client showed no certificate.
        (None, _) => return Err(Refusal::new(Reason::NotForwarded, format!("Envoy set no {HEADER}"))),
        (Some(value), None) => value.to_str().map_err(|_| bad("it is not ASCII text"))?,
        // Envoy joins them: another one was added behind its back.
        (Some(_), Some(_)) => return Err(bad("it came more than once")),
    };
    let mut uris = last_uris(value).map_err(bad)?.into_iter().filter(|uri| !uri.is_empty());
    let id: SpiffeId = match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|error| bad(&format!("{error}")))?,
        (None, _) => return Err(bad("its last element names no URI, so the certificate has no SPIFFE id")),
        (Some(_), Some(_)) => return Err(bad("its last element names several URIs; exactly one is allowed")),
    };
    // The rule of X509-SVID that Envoy does not check.
    if id.path().is_empty() { Err(bad("its URI names a trust domain, not a workload")) } else { Ok(id) }
}

/// The values of `URI` in the last element.
///
/// Elements are joined by `,`, pairs of key and value by `;`. A value with one of these in
/// it is quoted, and inside quotes a backslash takes the next character as it is. Whatever
/// breaks this is refused as a whole: where a quote is missing, what the client sent would
/// run into what Envoy says.
fn last_uris(header: &str) -> Result<Vec<String>, &'static str> {
    let mut uris = Vec::new();
    let mut rest = header;
    loop {
        let (key, after) = rest.split_once('=').ok_or("a part of it is not key=value")?;
        // What HTTP allows after the comma of a list.
        let key = key.trim_start_matches(' ');
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("a part of it is not key=value");
        }
        let (value, after) = value(after)?;
        if key.eq_ignore_ascii_case("URI") {
            uris.push(value);
        }
        rest = match after.split_at_checked(1) {
            None => return Ok(uris),
            Some((";", next)) => next,
            Some((",", next)) => {
                uris.clear();
                next
            }
            Some(_) => return Err("a quoted value goes on after its quotes"),
        };
    }
}

/// One value, and what follows it.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (bare, rest) = text.split_at(text.find([',', ';']).unwrap_or(text.len()));
        let special = bare.contains(['"', '=']);
        return if special {
            Err("a value with `\"` or `=` is not quoted")
        } else {
            Ok((bare.to_owned(), rest))
        };
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next().ok_or("a quoted value does not end")? {
            '"' => return Ok((value, characters.as_str())),
            '\\' => value.push(characters.next().ok_or("a quoted value does not end")?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{authority, certified};

    fn named(values: &[&str]) -> Result<String, String> {
        let (_keep, identity) = certified(&authority(), "/ns/a/sa/us");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        caller(&headers, &identity, &PeerPolicy::own_trust_domain())
            .map(|id| id.to_string())
            .map_err(|refusal| refusal.to_string())
    }

    const CLIENT: &str = "spiffe://test.local/ns/a/sa/client";

    #[test]
    fn the_caller_is_the_uri_of_the_last_element() {
        for value in [
            // As Istio's Envoy writes it.
            "By=spiffe://test.local/ns/a/sa/us;Hash=0a1b;Subject=\"\";URI=spiffe://test.local/ns/a/sa/client",
            "URI=spiffe://test.local/ns/a/sa/king,By=;URI=spiffe://test.local/ns/a/sa/client",
            "URI=spiffe://test.local/ns/a/sa/king, By=;uri=\"spiffe://test.local/ns/a/sa/client\"",
            // Names with everything in them that separates.
            r#"Subject="CN=a\\,b\",URI=spiffe://test.local/x;";URI=spiffe://test.local/ns/a/sa/client"#,
            r#"Subject="CN=\\";URI=spiffe://test.local/ns/a/sa/client"#,
            "DNS=a.b;DNS=c.d;URI=spiffe://test.local/ns/a/sa/client;URI=",
        ] {
            assert_eq!(named(&[value]).as_deref(), Ok(CLIENT), "{value}");
        }
    }

    #[test]
    fn whatever_is_not_exactly_one_workload_is_refused() {
        let last = format!("URI={CLIENT}");
        for (values, why) in [
            (vec![], "no caller named by the mesh"),
            (vec![last.as_str(), &last], "more than once"),
            (vec![""], "not key=value"),
            (vec!["URI"], "not key=value"),
            (vec!["=a"], "not key=value"),
            (vec![&*format!("{last},")], "not key=value"),
            (vec![&*format!("{last};")], "not key=value"),
            (vec![&*format!("a b=c,{last}")], "not key=value"),
            (vec![&*format!("{last};URI=spiffe://test.local/other")], "several URIs"),
            (vec![&*format!("{last},Subject=\"\"")], "names no URI"),
            (vec![&*format!("{last},URI=")], "names no URI"),
            (vec!["URI=https://a"], "not a SPIFFE id"),
            (vec!["URI=spiffe://test.local"], "names a trust domain"),
            (vec!["URI=spiffe://other.local/ns/a/sa/client"], "foreign trust domain"),
            (vec!["URI=spiffe://test.local/ä"], "not ASCII"),
            (vec!["URI=spiffe://test.local/a=b"], "not quoted"),
        ] {
            let refused = named(&values).expect_err(why);
            assert!(refused.contains(why), "{values:?}: {refused}");
        }
    }

    #[test]
    fn a_quote_that_the_client_leaves_open_swallows_nobody() {
        let envoys = format!("By=spiffe://test.local/us;Hash=0a;Subject=\"\";URI={CLIENT}");
        for sent in ["Subject=\"", "Subject=\"x", "Subject=\"\\", "URI=\"spiffe://test.local/king", "\""] {
            let value = format!("{sent},{envoys}");
            assert!(named(&[&value]).is_err(), "{value}");
        }
    }

    #[test]
    fn before_the_first_certificate_nobody_is_believed() {
        let (_publisher, nobody) = crate::identity();
        let headers =
            HeaderMap::from_iter([(HEADER.parse().unwrap(), format!("URI={CLIENT}").parse().unwrap())]);
        let refused = caller(&headers, &nobody, &PeerPolicy::own_trust_domain()).unwrap_err();
        assert_eq!(refused.reason(), Reason::NoIdentity);
    }
}
