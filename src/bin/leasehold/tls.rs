//! TLS for the server: a certificate chain and its key from PEM files, by rustls.
//!
//! HTTP/2 is not offered: actix-web does not cancel its handlers, so a waiter whose client has gone would stay.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::exit::Failure;
use crate::settings::ServeArgs;

/// What the command line says of TLS; `None`: nothing.
///
/// # Errors
/// `Usage` if a file cannot be read, holds something else, or the two do not belong together.
pub(crate) fn config(args: &ServeArgs) -> Result<Option<ServerConfig>, Failure> {
    match (&args.tls_cert, &args.tls_key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => read(cert, key).map(Some),
        _ => Err(Failure::Usage("--tls-cert and --tls-key go together".to_owned())),
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, Failure> {
    let wrong = |path: &Path, why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let no_pem = |path, why: PemError| wrong(path, why.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(|why| no_pem(cert, why))?.collect();
    let chain = chain.map_err(|why| no_pem(cert, why))?;
    if chain.is_empty() {
        return Err(wrong(cert, "there is no certificate in it".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| no_pem(key, why))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| Failure::Os(why.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|why| wrong(key, why.to_string()))
}
