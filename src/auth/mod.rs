//! Who somebody is, and what they may do.
//!
//! Only development mode exists so far: everybody is anonymous and may write, and therefore the server is reachable
//! from this machine alone ([`check_listen`]) and only by pages of this machine ([`host`]). What comes later (tokens,
//! tickets, sessions, grants) yields the same two answers, [`Identity`] and [`Access`].

pub mod host;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::ids::OrgId;

/// Who a session is. Comes from its credential, never from what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant; every document that the session names is looked up within it.
    pub org: OrgId,
    /// The stable id of the user, unique within the organisation. Empty for an anonymous one.
    pub user: Arc<str>,
    /// The name that other people see. Empty when the credential carries none.
    pub name: Arc<str>,
}

impl Identity {
    /// Everybody in development mode.
    pub fn anonymous() -> Self {
        Self {
            org: OrgId::default_org(),
            user: "".into(),
            name: "".into(),
        }
    }

    /// Whether two anonymous people cannot be told apart by this identity.
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty()
    }
}

/// What a session may do with one document. Ordered: more access is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// May read, and show its presence.
    Read,
    /// May read and edit.
    Write,
}

/// How sessions prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody proves anything: development on one machine.
    Development,
}

impl Mode {
    /// The most that `identity` may do with any document in this mode.
    pub fn access(self, _identity: &Identity) -> Access {
        match self {
            Self::Development => Access::Write,
        }
    }
}

/// A server without authentication was told to listen where other machines reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "listening on {address} would let anybody on the network read and edit every document, since authentication \
     arrives in a later version; bind a loopback address such as 127.0.0.1:{}", address.port()
)]
pub struct ExposedError {
    /// The address that was asked for.
    pub address: SocketAddr,
}

/// Refuses an address that other machines can reach, in development mode.
pub fn check_listen(mode: Mode, address: SocketAddr) -> Result<(), ExposedError> {
    match mode {
        Mode::Development if !host::is_loopback_ip(address.ip()) => Err(ExposedError { address }),
        Mode::Development => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_mode_listens_on_loopback_only() {
        for good in [
            "127.0.0.1:0",
            "127.8.9.1:8080",
            "[::1]:4433",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(
                check_listen(Mode::Development, good.parse().unwrap()),
                Ok(()),
                "{good}"
            );
        }
        for bad in [
            "0.0.0.0:8080",
            "[::]:4433",
            "192.168.1.2:80",
            "[::ffff:10.0.0.1]:1",
        ] {
            let error = check_listen(Mode::Development, bad.parse().unwrap()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(bad) && text.contains("bind a loopback address"),
                "{text}"
            );
        }
    }

    #[test]
    fn everybody_may_write_in_development_mode() {
        let identity = Identity::anonymous();
        assert!(identity.is_anonymous());
        assert_eq!(Mode::Development.access(&identity), Access::Write);
        assert!(Access::Read < Access::Write);
    }
}
