//! TLS as a connection string asks for it: the server must have a certificate of the CA that is named, for the address that
//! was dialled. Knows no engine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Believes the CAs in a PEM file, and nobody else.
pub fn believing(ca: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "{}: no certificate", ca.display());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// The CAs as PEM, for a client that judges them itself.
pub fn read(ca: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(ca).with_context(|| ca.display().to_string())
}

/// Takes the value of a parameter out of a URL's query.
pub fn take(url: &str, parameter: &str) -> (String, Option<String>) {
    let Some((front, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let is_it = |pair: &&str| pair.split('=').next() == Some(parameter);
    let value = query.split('&').find(is_it).map(|pair| pair.split_once('=').map_or("", |(_, value)| value));
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_it(pair)).collect();
    (format!("{front}?{}", rest.join("&")), value.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_taken_out_and_the_others_stay() {
        let (rest, value) = take("postgresql://h/d?a=1&sslmode=verify-full&b=2", "sslmode");
        assert_eq!((rest.as_str(), value.as_deref()), ("postgresql://h/d?a=1&b=2", Some("verify-full")));
        assert_eq!(take("postgresql://h/d?a=1", "sslmode").1, None);
        assert_eq!(take("postgresql://h/d", "sslmode").1, None);
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(believing(&path).is_err());
        std::fs::write(&path, "nothing").unwrap();
        assert!(believing(&path).is_err());
    }
}
