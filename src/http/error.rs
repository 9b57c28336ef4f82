//! The one map from errors to an HTTP status and the text that a client may read.
//!
//! What goes wrong inside is logged where it happened; what leaves is written here, variant by variant. No other error's
//! `Display` reaches a response.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::host::HostError;

/// Why an upgrade request got no WebSocket. Browsers hide the status from the page, so whatever a client must know is
/// said after the upgrade, by a close code; these are for what is no WebSocket at all, and for floods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUpgrade {
    /// The request is not a WebSocket handshake of version 13.
    #[error("not a WebSocket handshake")]
    NotWebSocket,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The node takes no more connections.
    #[error("too many connections")]
    TooMany,
}

/// Why a request is not answered as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is nothing at this path.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// `Host` or `Origin` is not acceptable.
    Host(HostError),
    /// No WebSocket.
    Upgrade(RefusedUpgrade),
}

/// Seconds after which a client that was refused for load may try again.
pub(super) const RETRY_AFTER_S: &str = "2";

impl Refusal {
    /// The status and the public text.
    pub(super) fn public(self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "There is nothing at this address."),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "This address does not know this method.",
            ),
            Self::Host(HostError::MissingHost) => (
                StatusCode::BAD_REQUEST,
                "The request needs exactly one Host header.",
            ),
            Self::Host(HostError::ForeignHost) => (
                StatusCode::MISDIRECTED_REQUEST,
                "This server runs without authentication, so it answers only under the names localhost, *.localhost, \
                 127.0.0.1 and [::1].",
            ),
            Self::Host(HostError::ForeignOrigin) => (
                StatusCode::FORBIDDEN,
                "This server runs without authentication, so it serves only pages whose origin is localhost, \
                 *.localhost, 127.0.0.1 or [::1].",
            ),
            Self::Upgrade(RefusedUpgrade::NotWebSocket) => (
                StatusCode::UPGRADE_REQUIRED,
                "This address takes WebSocket connections (version 13) only.",
            ),
            Self::Upgrade(RefusedUpgrade::Stopping) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is stopping. Connect again in a moment.",
            ),
            Self::Upgrade(RefusedUpgrade::TooMany) => (StatusCode::SERVICE_UNAVAILABLE, TOO_MANY),
        }
    }

    /// The value of the `reason` label of the metric that counts it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method",
            Self::Host(HostError::MissingHost) => "missing_host",
            Self::Host(HostError::ForeignHost) => "foreign_host",
            Self::Host(HostError::ForeignOrigin) => "foreign_origin",
            Self::Upgrade(RefusedUpgrade::NotWebSocket) => "not_websocket",
            Self::Upgrade(RefusedUpgrade::Stopping) => "stopping",
            Self::Upgrade(RefusedUpgrade::TooMany) => "too_many",
        }
    }
}

/// The text of the 503 that the accept loop writes itself when the cap is reached.
pub(super) const TOO_MANY: &str = "The server has too many connections. Connect again later.";

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, text) = self.public();
        let mut response = (status, format!("{text}\n")).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}
