//! What istiod gives becomes an identity, whatever the shape of the chain.

use super::*;

fn pem(name: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----")
}

#[test]
fn the_last_certificate_is_a_root_beside_those_of_the_file() {
    let chain = ["leaf", "intermediate", "root"].map(pem).to_vec();
    let given = issued(chain, pem("file").as_bytes()).unwrap();
    assert_eq!(given.chain_pem, format!("{}\n{}\n", pem("leaf"), pem("intermediate")));
    assert_eq!(given.roots_pem, format!("{}\n{}\n", pem("root"), pem("file")));

    let alone = issued(vec![pem("leaf")], pem("file").as_bytes()).unwrap();
    assert_eq!(alone.chain_pem, format!("{}\n", pem("leaf")));
    assert!(alone.roots_pem.contains("file"));
    assert!(issued(Vec::new(), b"").is_none());
}
