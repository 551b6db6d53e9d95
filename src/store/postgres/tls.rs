//! `sslmode` as libpq means it: [`without_sslmode`], [`connector`].

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a server's certificate has to prove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    None,
    /// That an authority has issued it.
    Authority,
    /// The same, and for the name that was connected to.
    AuthorityAndName,
}

/// Takes the `sslmode` out of a URL: the client library does not know all of them.
pub(super) fn without_sslmode(url: &str) -> Result<(String, Option<String>), &'static str> {
    if url.chars().any(char::is_control) {
        return Err("a URL has no control characters");
    }
    let Some((before, query)) = url.split_once('?') else {
        return Ok((url.into(), None));
    };
    let (ours, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(|word| word.starts_with("sslmode="));
    let mode = ours.last().and_then(|word| word.split_once('=')).map(|(_, mode)| mode.to_owned());
    let rest = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
    Ok((rest, mode))
}

/// What speaks TLS to servers. Without a root certificate, the system's count.
pub(super) fn connector(proof: Proof, root: Option<&[u8]>) -> Result<MakeRustlsConnect, &'static str> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let config = config.map_err(|_| "there is no version of TLS")?;
    let config = match proof {
        Proof::None => config.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Proof::AuthorityAndName => config.with_root_certificates(roots(root)?),
        Proof::Authority => {
            let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root)?), provider).build();
            let strict = strict.map_err(|_| "there is no root certificate")?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(strict)))
        }
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn roots(root: Option<&[u8]>) -> Result<RootCertStore, &'static str> {
    let mut store = RootCertStore::empty();
    match root {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| "the root certificate is no PEM")?;
                store.add(certificate).map_err(|_| "the root certificate is none")?;
            }
        }
        None => _ = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if store.is_empty() { Err("there is no root certificate") } else { Ok(store) }
}

/// Takes any certificate, as libpq does unless it is told to verify: what is sent is hidden from who listens, not from
/// who stands between.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes what an authority has issued, for whatever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last.
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_taken_out_of_a_url_and_nothing_else() {
        let cases = [
            ("postgres://u:p@h/d", "postgres://u:p@h/d", None),
            ("postgres://h/d?sslmode=verify-full", "postgres://h/d", Some("verify-full")),
            ("postgres://h/d?a=b&sslmode=require&c=d", "postgres://h/d?a=b&c=d", Some("require")),
        ];
        for (url, rest, mode) in cases {
            assert_eq!(without_sslmode(url), Ok((rest.into(), mode.map(str::to_owned))), "{url}");
        }
        assert!(without_sslmode("postgres://h/\nd").is_err());
    }

    #[test]
    fn a_root_certificate_that_is_none_is_refused() {
        assert!(connector(Proof::AuthorityAndName, Some(b"none")).is_err());
        assert!(connector(Proof::Authority, Some(b"")).is_err());
        assert!(connector(Proof::None, None).is_ok());
    }
}
