//! Reading a certificate and its key from PEM files, with errors that a person can act on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{CertificateHash, Loaded, provider};

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of the two files is configured.
    #[error(
        "tls.{missing} is not set: give both tls.certificate and tls.key, or neither for a development certificate"
    )]
    HalfConfigured {
        /// The setting that is missing.
        missing: &'static str,
    },
    /// A file is not there.
    #[error("there is no file {}: check tls.{setting}", .path.display())]
    Missing {
        /// The setting that named it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file is there and cannot be read.
    #[error("cannot read {}: {source}. Check that this user may read it (tls.{setting})", .path.display())]
    Unreadable {
        /// The setting that named it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not the PEM that it should be.
    #[error("{} holds no usable {wanted}: {detail}", .path.display())]
    NotPem {
        /// What it should hold.
        wanted: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The key is not the certificate's.
    #[error("the key in {} is not the key of the certificate in {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("the certificate in {} expired on {expired}: renew it", .path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When, UTC.
        expired: String,
    },
    /// The certificate's time has not come, or this machine's clock is wrong.
    #[error("the certificate in {} is not valid before {from}: check this machine's clock", .path.display())]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// From when, UTC.
        from: String,
    },
    /// The development certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
    /// The development certificate could not be stored.
    #[error("cannot write {}: {source}. The data directory must be writable by this user", .path.display())]
    Store {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Loads a chain and its key, and checks that they belong together and are valid at `now_s`.
pub(super) fn load(certificate: &Path, key: &Path, now_s: u64) -> Result<Loaded, TlsError> {
    let chain = read(certificate, "certificate")?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::NotPem {
            wanted: "certificate",
            path: certificate.to_owned(),
            detail: error.to_string(),
        })?;
    let Some(own) = chain.first() else {
        return Err(TlsError::NotPem {
            wanted: "certificate",
            path: certificate.to_owned(),
            detail: "there is no CERTIFICATE section in it".to_owned(),
        });
    };
    let expires_s = check_validity(own, certificate, now_s)?;
    let hash = CertificateHash::of(own);

    let key_pem = read(key, "key")?;
    let key_der = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| TlsError::NotPem {
        wanted: "private key",
        path: key.to_owned(),
        detail: error.to_string(),
    })?;
    let certified =
        CertifiedKey::from_der(chain, key_der, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            other => TlsError::NotPem {
                wanted: "private key",
                path: key.to_owned(),
                detail: other.to_string(),
            },
        })?;
    Ok(Loaded {
        key: Arc::new(certified),
        hash,
        expires_s,
    })
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TlsError::Missing {
            setting,
            path: path.to_owned(),
        },
        _ => TlsError::Unreadable {
            setting,
            path: path.to_owned(),
            source,
        },
    })
}

/// The last second of the certificate's validity, if `now_s` lies within it.
fn check_validity(
    certificate: &CertificateDer<'_>,
    path: &Path,
    now_s: u64,
) -> Result<u64, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| TlsError::NotPem {
        wanted: "certificate",
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    let validity = parsed.validity();
    // Times before 1970 count as 1970: all that matters is that they have passed.
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (from_s, expires_s) = (seconds(validity.not_before), seconds(validity.not_after));
    if now_s > expires_s {
        return Err(TlsError::Expired {
            path: path.to_owned(),
            expired: validity.not_after.to_string(),
        });
    }
    if now_s < from_s {
        return Err(TlsError::NotYetValid {
            path: path.to_owned(),
            from: validity.not_before.to_string(),
        });
    }
    Ok(expires_s)
}
