//! TLS for the server: a certificate chain and its key from PEM files, by rustls. Both can be exchanged while it runs.
//!
//! HTTP/2 is not offered: actix-web does not cancel its handlers, so a waiter whose client has gone would stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::exit::Failure;
use crate::settings::ServeArgs;

/// What a handshake that begins now is answered with.
#[derive(Debug)]
pub(crate) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// What the command line says of TLS; `None`: nothing.
///
/// # Errors
/// `Usage` if a file cannot be read, holds something else, or the two do not belong together.
pub(crate) fn certificate(args: &ServeArgs) -> Result<Option<Arc<Certificate>>, Failure> {
    match (&args.tls_cert, &args.tls_key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            super::tokens::warn_if_others_read(key);
            let current = RwLock::new(Arc::new(read(cert, key)?));
            Ok(Some(Arc::new(Certificate { cert: cert.clone(), key: key.clone(), current })))
        }
        _ => Err(Failure::Usage("--tls-cert and --tls-key go together".to_owned())),
    }
}

impl Certificate {
    /// The server's side of a handshake, whichever certificate there is by then.
    ///
    /// # Errors
    /// This rustls has no version of TLS to speak.
    pub(crate) fn config(self: &Arc<Self>) -> Result<ServerConfig, Failure> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|why| Failure::Os(why.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
    }

    pub(crate) fn files(&self) -> [&Path; 2] {
        [&self.cert, &self.key]
    }

    /// Reads the files again. Connections that are open go on with what they have.
    ///
    /// # Errors
    /// As when they were read first; what there was stays then.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        let new = Arc::new(read(&self.cert, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, Failure> {
    let wrong = |path: &Path, why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let no_pem = |path, why: PemError| wrong(path, why.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(|why| no_pem(cert, why))?.collect();
    let chain = chain.map_err(|why| no_pem(cert, why))?;
    if chain.is_empty() {
        return Err(wrong(cert, "there is no certificate in it".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| no_pem(key, why))?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|why| wrong(key, why.to_string()))
}
