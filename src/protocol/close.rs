//! Why something ended or was refused: one table for every carrier and dialect. A number goes into native messages, a
//! close code onto WebSockets, a text to a person; nothing else in the server invents a code.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $retryable:literal, $close:literal, $text:literal;)*) => {
        /// Why a session, a channel or an update was refused or ended. Numbers are on the wire: never reuse one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number in native messages.
            pub const fn number(self) -> u64 {
                self as u64
            }

            /// From the number in a native message; `None` for one that this version does not know.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in logs, metrics and HTTP bodies: stable, snake case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A sentence for a person, for when the site has nothing better to say. Says nothing internal.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Whether the same request can succeed later, unchanged or with a fresh credential. A client never loops on
            /// a code that is not retryable.
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(Self::$variant => $retryable,)*
                }
            }

            /// The WebSocket close code. 4400 to 4499 are final: y-websocket 3.1 stops on them, and so do we.
            pub const fn ws_close_code(self) -> u16 {
                match self {
                    $(Self::$variant => $close,)*
                }
            }

            /// From a WebSocket close code; `None` for one that is not of this table.
            pub const fn from_ws_close_code(code: u16) -> Option<Self> {
                match code {
                    $($close => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// Nothing is wrong: the peer asked for the end.
    Normal = 0, "normal", false, 1000, "The connection was closed as asked.";
    /// No credential was given where one is needed, or it is not valid.
    AuthRequired = 1, "auth_required", false, 4401, "Please sign in: a valid credential is needed.";
    /// The credential was valid and has run out: come again with a fresh one.
    AuthExpired = 2, "auth_expired", true, 4501, "The sign-in has expired and has to be renewed.";
    /// Access was taken away by an administrator.
    Revoked = 3, "revoked", false, 4410, "Access has been withdrawn.";
    /// The identity is known and may not do this.
    PermissionDenied = 4, "permission_denied", false, 4403, "You do not have permission for this.";
    /// There is no such document or path.
    NotFound = 5, "not_found", false, 4404, "There is no such document.";
    /// The client's copy belongs to another history of this document: it must be set aside, never merged.
    EpochMismatch = 6, "epoch_mismatch", false, 4409, "This document was replaced; the local copy belongs to its earlier history.";
    /// A message breaks the protocol.
    InvalidMessage = 7, "invalid_message", false, 4400, "The server could not read a message of this client.";
    /// An update is not a valid update of the document.
    InvalidUpdate = 8, "invalid_update", false, 4422, "An edit was not valid and was not accepted.";
    /// A message or document passes a limit on size.
    TooLarge = 9, "too_large", false, 4413, "This is larger than the server accepts.";
    /// Too many requests for now.
    RateLimited = 10, "rate_limited", true, 4529, "Too many requests; it will be tried again shortly.";
    /// An agreed amount is used up, and waiting does not help.
    OverQuota = 11, "over_quota", false, 4407, "The quota is used up.";
    /// The server has no room for this right now.
    Overloaded = 12, "overloaded", true, 4503, "The server is busy; it will be tried again shortly.";
    /// The server is going away: connect again, perhaps to another node.
    ShuttingDown = 13, "shutting_down", true, 1012, "The server is restarting.";
    /// No protocol version in common.
    UnsupportedVersion = 14, "unsupported_version", false, 4426, "This client and this server have no protocol version in common.";
    /// A fault of the server.
    Internal = 15, "internal", true, 1011, "The server met an error; it will be tried again shortly.";
}

impl ErrorCode {
    /// From the number in a message of a peer that may be newer. An unknown number reads as [`ErrorCode::Internal`]; the
    /// message carries its own text and its own word on whether to retry, and those hold (EC3).
    pub fn from_number_or_internal(number: u64) -> Self {
        Self::from_number(number).unwrap_or(Self::Internal)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EC1: numbers and close codes are unique and read back.
    #[test]
    fn ec1_codes_read_back() {
        for (i, &code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.number(), i as u64);
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
            assert_eq!(
                ErrorCode::from_ws_close_code(code.ws_close_code()),
                Some(code)
            );
        }
        assert_eq!(ErrorCode::from_number(16), None);
        assert_eq!(ErrorCode::from_ws_close_code(1006), None);
        assert_eq!(ErrorCode::from_number_or_internal(99), ErrorCode::Internal);
    }

    /// EC2: the range 4400 to 4499 is final, and nothing else but a normal close is.
    #[test]
    fn ec2_final_close_codes_are_not_retryable() {
        for &code in ErrorCode::ALL {
            let is_final = (4400..4500).contains(&code.ws_close_code());
            assert_eq!(is_final || code == ErrorCode::Normal, !code.is_retryable());
        }
    }
}
