//! A server that talks TLS, and the certificates for it.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::{rights_were_enough, user};
use crate::support::{RedisServer, free_port};

/// A Redis that talks TLS, wants a certificate of its clients, and knows no default user.
pub struct TlsServer {
    pub server: RedisServer,
    tls_port: u16,
    certificates: tempfile::TempDir,
}

impl TlsServer {
    pub fn start() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let dir = certificates.path();
        make_certificates(dir);
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let tls_port = free_port();
        let tls_port_text = tls_port.to_string();
        let mut options = vec![
            "--appendonly",
            "no",
            "--tls-port",
            &tls_port_text,
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--user",
            "default",
            "off",
            "--user",
            "tests",
            "on",
            ">tests-password",
            "~*",
            "&*",
            "+@all",
        ];
        options.extend(user());
        let login = ("tests".to_owned(), "tests-password".to_owned());
        let server = RedisServer::start_in(tempfile::tempdir().unwrap(), Some(login), &options);
        Self {
            server,
            tls_port,
            certificates,
        }
    }

    pub fn url(&self) -> String {
        format!("rediss://unread:p%40ss%20word@127.0.0.1:{}", self.tls_port)
    }

    pub fn rights_were_enough(&self) {
        rights_were_enough(&self.server);
    }

    /// What goes into `[redis]`.
    pub fn settings(&self) -> String {
        let file = |name: &str| self.certificates.path().join(name).display().to_string();
        format!(
            "ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            file("ca.pem"),
            file("client.pem"),
            file("client.key")
        )
    }
}

/// An authority of our own, and what it has signed for the server and for its client.
pub(super) fn make_certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "tests");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, key).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    for (name, purposes) in [
        // The nodes of a cluster are each other's clients too.
        (
            "server",
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        ),
        ("client", vec![ExtendedKeyUsagePurpose::ClientAuth]),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = purposes;
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
