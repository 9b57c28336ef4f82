//! Certificates on disk: made once, reused, renewed in time; the operator's own refused with words that help.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Some moment in 2026, seconds since 1970.
const NOW_S: u64 = 1_790_000_000;
const DAY_S: u64 = 24 * 3600;

fn development(data: &Path, now_s: u64) -> Tls {
    Tls::load(&Config::default(), data, now_s).unwrap()
}

#[test]
fn the_development_certificate_is_one_that_browsers_let_a_page_pin() {
    use x509_parser::prelude::{FromDer, X509Certificate};

    let data = tempfile::tempdir().unwrap();
    let tls = development(data.path(), NOW_S);
    assert!(tls.is_development());
    assert_eq!(tls.hashes_to_pin(), vec![tls.hash()]);

    let key = tls.current.get().key;
    let (_, parsed) = X509Certificate::from_der(&key.cert[0]).unwrap();
    let validity = parsed.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
    assert_eq!(days, 13);
    let curve = parsed.public_key().algorithm.parameters.as_ref().unwrap();
    assert_eq!(
        curve.as_oid().unwrap().to_id_string(),
        "1.2.840.10045.3.1.7",
        "P-256"
    );
    let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap());
    assert!(names.contains("localhost"), "{names}");
    assert!(names.contains("[127, 0, 0, 1]"), "{names}");

    let key_file = data.path().join("tls/development.key.pem");
    let mode = fs::metadata(key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_development_certificate_is_reused_until_a_day_is_left() {
    let data = tempfile::tempdir().unwrap();
    let first = development(data.path(), NOW_S);
    let later = development(data.path(), NOW_S + 11 * DAY_S);
    assert_eq!(first.hash(), later.hash());
    let last_day = development(data.path(), NOW_S + 12 * DAY_S);
    assert_ne!(first.hash(), last_day.hash());
    assert!(last_day.expires_s() > NOW_S + 24 * DAY_S);
    let long_after = development(data.path(), NOW_S + 300 * DAY_S);
    assert_ne!(long_after.hash(), last_day.hash());
}

#[test]
fn a_running_server_renews_for_new_connections() {
    let data = tempfile::tempdir().unwrap();
    let tls = development(data.path(), NOW_S);
    let first = tls.hash();
    assert!(!tls.refresh(NOW_S + DAY_S).unwrap());
    assert_eq!(tls.hash(), first);
    assert!(tls.refresh(NOW_S + 12 * DAY_S).unwrap());
    assert_ne!(tls.hash(), first);
}

#[test]
fn a_damaged_development_certificate_is_replaced() {
    let data = tempfile::tempdir().unwrap();
    let first = development(data.path(), NOW_S);
    fs::write(data.path().join("tls/development.key.pem"), "nonsense").unwrap();
    let second = development(data.path(), NOW_S);
    assert_ne!(first.hash(), second.hash());
}

#[test]
fn a_configured_certificate_is_checked_with_words_that_help() {
    let data = tempfile::tempdir().unwrap();
    development(data.path(), NOW_S);
    let certificate = data.path().join("tls/development.crt.pem");
    let key = data.path().join("tls/development.key.pem");
    let load = |certificate: &Path, key: &Path, now_s| {
        let config = Config {
            certificate: Some(certificate.to_owned()),
            key: Some(key.to_owned()),
        };
        Tls::load(&config, data.path(), now_s)
    };
    let refused = |certificate: &Path, key: &Path, now_s| {
        load(certificate, key, now_s).unwrap_err().to_string()
    };

    let own = load(&certificate, &key, NOW_S).unwrap();
    assert!(!own.is_development());
    assert!(own.hashes_to_pin().is_empty());

    let text = refused(&certificate, &key, NOW_S + 13 * DAY_S);
    assert!(
        text.contains("expired on") && text.contains("renew it"),
        "{text}"
    );
    let text = refused(&certificate, &key, NOW_S - 2 * DAY_S);
    assert!(text.contains("not valid before"), "{text}");
    let text = refused(Path::new("/nowhere/a.pem"), &key, NOW_S);
    assert!(text.contains("there is no file /nowhere/a.pem"), "{text}");
    let text = refused(data.path(), &key, NOW_S);
    assert!(text.starts_with("cannot read"), "{text}");
    let text = refused(&key, &key, NOW_S);
    assert!(text.contains("no CERTIFICATE section"), "{text}");
    let text = refused(&certificate, &certificate, NOW_S);
    assert!(text.contains("no usable private key"), "{text}");

    let other = tempfile::tempdir().unwrap();
    development(other.path(), NOW_S);
    let text = refused(
        &certificate,
        &other.path().join("tls/development.key.pem"),
        NOW_S,
    );
    assert!(text.contains("is not the key of the certificate"), "{text}");

    let half = Config {
        certificate: Some(certificate),
        key: None,
    };
    let text = Tls::load(&half, data.path(), NOW_S)
        .unwrap_err()
        .to_string();
    assert!(text.contains("tls.key is not set"), "{text}");
}

#[test]
fn a_replaced_file_is_taken_up_and_a_bad_one_leaves_the_old_in_use() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    development(data.path(), NOW_S);
    let renewed = development(other.path(), NOW_S);
    let certificate = data.path().join("tls/development.crt.pem");
    let key = data.path().join("tls/development.key.pem");
    let config = Config {
        certificate: Some(certificate.clone()),
        key: Some(key.clone()),
    };
    let tls = Tls::load(&config, data.path(), NOW_S).unwrap();
    let first = tls.hash();

    fs::copy(other.path().join("tls/development.crt.pem"), &certificate).unwrap();
    assert!(matches!(tls.refresh(NOW_S), Err(TlsError::Mismatch { .. })));
    assert_eq!(tls.hash(), first, "half a renewal changes nothing");

    fs::copy(other.path().join("tls/development.key.pem"), &key).unwrap();
    assert!(tls.refresh(NOW_S).unwrap());
    assert_eq!(tls.hash(), renewed.hash());
}

#[test]
fn base64_is_the_standard_one() {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(place).unwrap() * 8 + 7;
    }
    assert_eq!(
        CertificateHash::from_bytes(bytes).base64(),
        "Bw8XHycvNz9HT1dfZ293f4ePl5+nr7e/x8/X3+fv9/8="
    );
}
