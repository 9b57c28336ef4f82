//! Which `Host` and `Origin` development mode answers to.
//!
//! Any web page that a developer visits can send requests to `localhost`, and by DNS rebinding it can even read the
//! answers: its own name then resolves to 127.0.0.1 and the browser believes that it talks to itself. The name in `Host`
//! and `Origin` gives both away, so a server without authentication accepts names of this machine only. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a request of a browser was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is no `Host` header (or authority), or more than one.
    #[error("the request needs exactly one Host")]
    MissingHost,
    /// `Host` is a name of another machine: DNS rebinding, or a proxy in front of a development server.
    #[error("this server has no authentication and answers to localhost only, not to this Host")]
    ForeignHost,
    /// `Origin` is a page of another machine, or one that hides where it comes from (`null`).
    #[error(
        "this server has no authentication and serves pages of localhost only, not this Origin"
    )]
    ForeignOrigin,
}

/// Checks `Host` and `Origin` of one request. No `Origin` is accepted: browsers always send it on what could do harm
/// (WebSocket, WebTransport, cross-site reads), and programs do not.
pub fn check(host: Option<&str>, origin: Option<&str>) -> Result<(), HostError> {
    let host = host.ok_or(HostError::MissingHost)?;
    if !is_loopback_authority(host) {
        return Err(HostError::ForeignHost);
    }
    match origin {
        Some(origin) if !is_loopback_origin(origin) => Err(HostError::ForeignOrigin),
        Some(_) | None => Ok(()),
    }
}

/// Whether a serialised origin (`scheme://host[:port]`) is `http` or `https` on a loopback name. `null` is not.
pub fn is_loopback_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && is_loopback_authority(authority)
}

/// Whether `host[:port]` is a loopback name: `localhost`, `*.localhost`, 127.0.0.0/8 or `[::1]`, with any port. Anything
/// else that an authority may contain (user information, a path, a scope) makes it foreign.
pub fn is_loopback_authority(authority: &str) -> bool {
    let host = if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        return is_port_suffix(after)
            && address
                .parse::<Ipv6Addr>()
                .is_ok_and(|ip| is_loopback_ip(ip.into()));
    } else {
        match authority.split_once(':') {
            Some((host, port)) if is_port(port) => host,
            Some(_) => return false,
            None => authority,
        }
    };
    // `localhost.` is the same name, fully qualified. One dot only, and not for an address.
    let name = host.strip_suffix('.').unwrap_or(host);
    is_loopback_name(name)
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|ip| is_loopback_ip(ip.into()))
}

/// Whether an address reaches this machine only.
pub fn is_loopback_ip(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// `localhost` and the names below it, which RFC 6761 reserves: no resolver may send them elsewhere.
fn is_loopback_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix("localhost") {
        Some("") => true,
        Some(above) => above
            .strip_suffix('.')
            .is_some_and(|labels| labels.split('.').all(is_label)),
        None => false,
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_port_suffix(after: &str) -> bool {
    after.is_empty() || after.strip_prefix(':').is_some_and(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_of_this_machine_and_of_others() {
        let table = [
            ("localhost", true),
            ("localhost:8080", true),
            ("LOCALHOST:8080", true),
            ("LocalHost", true),
            ("localhost.", true),
            ("localhost.:8080", true),
            ("app.localhost:8080", true),
            ("a.b-c.localhost", true),
            ("127.0.0.1", true),
            ("127.0.0.1:8080", true),
            ("127.255.0.3:1", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("[0:0:0:0:0:0:0:1]:8080", true),
            ("[::ffff:127.0.0.1]:80", true),
            // Names that only look like it.
            ("", false),
            (":8080", false),
            (".", false),
            (".localhost", false),
            ("..localhost", false),
            ("localhost..", false),
            ("localhost.evil.com", false),
            ("localhost.evil.com:8080", false),
            ("evillocalhost", false),
            ("localhost-evil", false),
            ("127.0.0.1.nip.io", false),
            ("127.0.0.1.", false),
            ("127.1", false),
            ("0x7f.0.0.1", false),
            ("0177.0.0.1", false),
            ("2130706433", false),
            ("128.0.0.1", false),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("[::1", false),
            ("::1", false),
            ("[::1%lo]:80", false),
            ("[::1]x", false),
            ("[::1].evil.com", false),
            ("[fe80::1]", false),
            ("192.168.0.1:8080", false),
            ("evil.com", false),
            // User information, paths, ports that are none.
            ("localhost@evil.com", false),
            ("user@localhost", false),
            ("user:8080@localhost", false),
            ("localhost:8080@evil.com", false),
            ("localhost/evil.com", false),
            ("localhost\\.evil.com", false),
            ("evil.com#.localhost", false),
            ("evil.com/.localhost", false),
            ("evil.com?.localhost", false),
            ("localhost:", false),
            ("localhost:x", false),
            ("localhost:+80", false),
            ("localhost:80:80", false),
            ("localhost:65536", false),
            ("localhost ", false),
            (" localhost", false),
            ("localhost\t", false),
            ("l\u{43e}calhost", false),
        ];
        for (authority, expected) in table {
            assert_eq!(is_loopback_authority(authority), expected, "{authority:?}");
        }
    }

    #[test]
    fn origins_of_this_machine_and_of_others() {
        let table = [
            ("http://localhost", true),
            ("http://localhost:8080", true),
            ("https://localhost:8443", true),
            ("HTTP://LOCALHOST:8080", true),
            ("http://127.0.0.1:5173", true),
            ("http://[::1]:3000", true),
            ("null", false),
            ("", false),
            ("localhost", false),
            ("file://", false),
            ("file://localhost", false),
            ("chrome-extension://localhost", false),
            ("http:localhost", false),
            ("http://localhost/", false),
            ("http://localhost.evil.com", false),
            ("http://evil.com", false),
            ("https://127.0.0.1.nip.io:8080", false),
            ("http://localhost:8080@evil.com", false),
            ("http://evil.com://localhost", false),
            ("http://localhost, http://evil.com", false),
        ];
        for (origin, expected) in table {
            assert_eq!(is_loopback_origin(origin), expected, "{origin:?}");
        }
    }

    #[test]
    fn a_request_needs_a_host_and_may_lack_an_origin() {
        assert_eq!(check(Some("localhost:8080"), None), Ok(()));
        assert_eq!(
            check(Some("localhost:8080"), Some("http://127.0.0.1:8080")),
            Ok(())
        );
        assert_eq!(check(None, None), Err(HostError::MissingHost));
        assert_eq!(check(Some("evil.com"), None), Err(HostError::ForeignHost));
        assert_eq!(
            check(Some("evil.com"), Some("http://localhost")),
            Err(HostError::ForeignHost)
        );
        assert_eq!(
            check(Some("localhost"), Some("null")),
            Err(HostError::ForeignOrigin)
        );
    }
}
