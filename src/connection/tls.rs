//! What a TLS connection to Redis is made with: whom to trust, and what to show.

use std::sync::Arc;

use redis::TlsCertificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Trusts the given authorities, else those of the machine. The error never repeats what is in a file.
pub(super) fn connector(certificates: &TlsCertificates) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let trusted = match &certificates.root_cert {
        Some(pem) => chain(pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    for authority in trusted {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match &certificates.client_tls {
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(&own.client_key);
            let key = key.map_err(|_| "no private key in PEM".to_owned())?;
            let config = config.with_client_auth_cert(chain(&own.client_cert)?, key);
            config.map_err(|error| error.to_string())?
        }
        None => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err("no certificate in PEM".into()),
    }
}
