//! Certificates: the development certificate that makes itself, and one of the operator's own.
//!
//! A page may connect to a self-signed WebTransport server when it knows the certificate's SHA-256, provided that the
//! certificate is ECDSA P-256 and valid for at most 14 days. So the development certificate lives 13 days and is renewed
//! when one day is left, also while the server runs: new connections get the new one, old ones keep
//! what they have. A configured certificate is read again when its file changes.
//!
//! The cryptography is always `ring`, named explicitly: no process-wide default is relied on or set.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::shutdown::Scope;

mod development;
mod files;

pub use files::TlsError;

/// How often the certificate is looked at: renewed when it is due, read again when its file changed. A file that was
/// replaced is in use within this time.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Which certificate to use. Without any setting, the server makes a development certificate under its data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate chain as a PEM file, the server's own certificate first. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// The private key as a PEM file (PKCS#8, PKCS#1 or SEC1), readable by the server only. Needs `certificate`.
    pub key: Option<PathBuf>,
}

/// The SHA-256 of a certificate's DER form: what a page pins with `serverCertificateHashes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// From the 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a certificate.
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Self(
            digest
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest has 32 bytes"),
        )
    }

    /// In standard base64 with padding, as `/v1/connect` gives it to pages.
    pub fn base64(&self) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(44);
        for chunk in self.0.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let group = u32::from_be_bytes(group);
            for place in 0..4 {
                if place <= chunk.len() {
                    let index = (group >> (18 - 6 * place)) & 63;
                    text.push(char::from(ALPHABET[index as usize]));
                } else {
                    text.push('=');
                }
            }
        }
        text
    }
}

/// A certificate with its key, ready to serve.
#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    hash: CertificateHash,
    /// The last second of its validity, since 1970.
    expires_s: u64,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Loaded>);

impl Current {
    fn get(&self) -> Loaded {
        // A panic while the lock is held cannot leave half a certificate: it is replaced by one assignment.
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn replace(&self, loaded: Loaded) {
        *self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().key)
    }
}

#[derive(Debug, Clone)]
enum Source {
    Development { directory: PathBuf },
    Files { certificate: PathBuf, key: PathBuf },
}

/// The server's certificate and everything that is built on it. Cheap to clone; clones share the certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    source: Source,
    current: Arc<Current>,
}

impl Tls {
    /// Loads the configured certificate, or the development certificate in `<data>/tls` (made when it is missing, damaged
    /// or due). `now_s` is the wall clock in seconds since 1970.
    ///
    /// # Errors
    /// See [`TlsError`]; each says what to do.
    pub fn load(config: &Config, data: &Path, now_s: u64) -> Result<Self, TlsError> {
        let source = match (&config.certificate, &config.key) {
            (None, None) => Source::Development {
                directory: data.join("tls"),
            },
            (Some(certificate), Some(key)) => Source::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            (Some(_), None) => return Err(TlsError::HalfConfigured { missing: "key" }),
            (None, Some(_)) => {
                return Err(TlsError::HalfConfigured {
                    missing: "certificate",
                });
            }
        };
        let loaded = source.load(now_s)?;
        Ok(Self {
            source,
            current: Arc::new(Current(RwLock::new(loaded))),
        })
    }

    /// Whether this is the certificate that we made ourselves.
    pub fn is_development(&self) -> bool {
        matches!(self.source, Source::Development { .. })
    }

    /// The hash of the certificate that new connections get.
    pub fn hash(&self) -> CertificateHash {
        self.current.get().hash
    }

    /// The hashes that a page must pin to connect: one for the development certificate, none for a configured one (which
    /// a browser checks by itself).
    pub fn hashes_to_pin(&self) -> Vec<CertificateHash> {
        if self.is_development() {
            vec![self.hash()]
        } else {
            Vec::new()
        }
    }

    /// The last second of the certificate's validity, since 1970.
    pub fn expires_s(&self) -> u64 {
        self.current.get().expires_s
    }

    /// Takes up a renewed certificate, for connections from now on: renews the development certificate when less than a
    /// day is left, or reads the configured files again. True when the certificate is another one now.
    ///
    /// # Errors
    /// As [`Tls::load`]. The certificate in use stays.
    pub fn refresh(&self, now_s: u64) -> Result<bool, TlsError> {
        let loaded = self.source.load(now_s)?;
        let changed = loaded.hash != self.hash();
        if changed {
            self.current.replace(loaded);
        }
        Ok(changed)
    }

    /// Refreshes every minute until the scope stops. Logs a change and hands it to `changed`; one WARN when refreshing
    /// begins to fail.
    pub async fn keep_fresh(self, scope: Scope, changed: impl Fn(&Self) + Send) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = scope.stopping() => return,
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
            }
            match self.refresh(clock::unix_millis() / 1000) {
                Ok(is_new) => {
                    failing = false;
                    if is_new {
                        tracing::info!("use the renewed certificate for new connections");
                        changed(&self);
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "cannot take up a renewed certificate, go on with the old one");
                }
                Err(error) => tracing::debug!(%error, "the certificate still cannot be renewed"),
            }
        }
    }

    /// TLS for the HTTP port: HTTP/1.1, TLS 1.2 and 1.3.
    ///
    /// # Panics
    /// Never: `ring` supports both versions.
    pub fn https(&self) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// TLS for the QUIC endpoint: HTTP/3, TLS 1.3, no early data (a replayed CONNECT would be a second session).
    pub(super) fn quic(&self) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring supports TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.max_early_data_size = 0;
        Arc::new(config)
    }
}

impl Source {
    fn load(&self, now_s: u64) -> Result<Loaded, TlsError> {
        match self {
            Self::Development { directory } => development::load_or_create(directory, now_s),
            Self::Files { certificate, key } => files::load(certificate, key, now_s),
        }
    }
}

/// The one place that names the cryptography.
pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
