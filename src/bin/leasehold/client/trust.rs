//! Whom a client trusts that was given certificates by `--ca`: those who were certified by one of them, and whoever
//! shows one of them itself.
//!
//! The usual self-signed certificate (`openssl req -x509`) says of itself that it certifies others. As a server's own it
//! is refused by the rules of the web for that alone; here somebody has named this very certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The settings of TLS for a client with these certificates.
///
/// # Errors
/// It is no PEM, there is no certificate in it, or one makes no sense.
pub(crate) fn only(pem: &[u8]) -> Result<ClientConfig, String> {
    let named: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let named: Vec<CertificateDer<'static>> = named.map_err(|why| why.to_string())?;
    if named.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in &named {
        roots.add(certificate.clone()).map_err(|why| why.to_string())?;
    }
    let provider = Arc::new(ring::default_provider());
    let by_the_rules = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = Named { by_the_rules: by_the_rules.build().map_err(|why| why.to_string())?, named };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|why| why.to_string())?.dangerous();
    Ok(config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The rules of the web, but for certificates that were named themselves.
#[derive(Debug)]
struct Named {
    by_the_rules: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.by_the_rules.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // Its time was checked before that.
            Err(why) if certifies_others(&why) && self.named.contains(end_entity) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_the_rules.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_the_rules.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_the_rules.supported_verify_schemes()
    }
}

/// Whether all that is wrong with a certificate is that it is a CA's.
fn certifies_others(why: &Error) -> bool {
    // rustls has no name of its own for it.
    matches!(why, Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}
