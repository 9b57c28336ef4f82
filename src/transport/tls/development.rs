//! The development certificate: made, kept and renewed without anybody's help.

use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::Loaded;
use super::files::{self, TlsError};
use crate::transport::keys::{create_private_directory, write_private};

/// How long one lives. Browsers accept a pinned certificate of at most 14 days; one day of margin.
const LIFETIME_S: u64 = 13 * 24 * 3600;

/// Renewed when less than this is left, so that a page that just learned the hash can still use it for a day.
const RENEW_BEFORE_S: u64 = 24 * 3600;

/// Valid from a little before it was made, for clients whose clock is behind.
const CLOCK_SKEW_S: u64 = 3600;

/// The names and addresses that it is valid for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificate in `directory`, or a new one when there is none, it is damaged, or less than a day is left.
pub(super) fn load_or_create(directory: &Path, now_s: u64) -> Result<Loaded, TlsError> {
    let certificate = directory.join("development.crt.pem");
    let key = directory.join("development.key.pem");
    match files::load(&certificate, &key, now_s) {
        Ok(loaded) if loaded.expires_s > now_s + RENEW_BEFORE_S => return Ok(loaded),
        Ok(_) | Err(TlsError::Missing { .. } | TlsError::Expired { .. }) => {}
        // Nobody but us writes these files, and nothing is lost with them.
        Err(error) => tracing::info!(%error, "make a new development certificate"),
    }

    let (certificate_pem, key_pem) = generate(now_s)?;
    let store = |path: &Path, pem: &str| {
        write_private(path, pem.as_bytes()).map_err(|source| TlsError::Store {
            path: path.to_owned(),
            source,
        })
    };
    create_private_directory(directory).map_err(|source| TlsError::Store {
        path: directory.to_owned(),
        source,
    })?;
    // A crash between the two leaves a pair that does not match, which the next start replaces.
    store(&key, &key_pem)?;
    store(&certificate, &certificate_pem)?;
    files::load(&certificate, &key, now_s)
}

/// A fresh key and a certificate for it, as PEM.
fn generate(now_s: u64) -> Result<(String, String), TlsError> {
    let failed = |error: rcgen::Error| TlsError::Generate(error.to_string());
    // rcgen's default is ECDSA P-256 with SHA-256, the only kind that browsers let a page pin.
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Syncline development");
    let from_s = now_s.saturating_sub(CLOCK_SKEW_S);
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from_s);
    params.not_after = params.not_before + Duration::from_secs(LIFETIME_S);
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
