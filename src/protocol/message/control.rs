//! Control channel: who the peers are, whether both are alive, and why a session ends.

use std::fmt;

use bytes::Bytes;

use super::{DecodeError, Refusal, flag, kind, list, other, start};
use crate::ids::SessionId;
use crate::protocol::varint::{Reader, Writer};

/// Keys of the limits that WELCOME names. A client ignores keys that it does not know.
pub mod limit_key {
    /// The largest UPDATE, in bytes of its update.
    pub const UPDATE_BYTES: u64 = 1;
    /// The largest SYNC, in bytes of its update.
    pub const INITIAL_SYNC_BYTES: u64 = 2;
    /// The largest presence entry, in bytes of its JSON.
    pub const PRESENCE_BYTES: u64 = 3;
    /// How many documents a session may have open.
    pub const DOCUMENTS: u64 = 4;
    /// The most payload of one FRAGMENT, in bytes.
    pub const FRAGMENT_BYTES: u64 = 5;
}

/// What a client proves its identity with. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: a server without authentication, or an anonymous reader.
    None,
    /// A single-use ticket from the HTTP side.
    Ticket(String),
    /// A short-lived access token.
    Token(String),
}

impl Credential {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.uint()? {
            0 => Ok(Self::None),
            1 => Ok(Self::Ticket(reader.str()?.to_owned())),
            2 => Ok(Self::Token(reader.str()?.to_owned())),
            value => Err(DecodeError::BadValue {
                field: "credential",
                value,
            }),
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::None => writer.uint(0),
            Self::Ticket(text) => writer.uint(1).str(text),
            Self::Token(text) => writer.uint(2).str(text),
        };
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Ticket(_) => "Ticket(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// HELLO: the client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that the client speaks, best first.
    pub versions: Vec<u64>,
    /// Names of optional features that the client understands.
    pub features: Vec<String>,
    /// Who it is.
    pub credential: Credential,
    /// Name of the client software, for logs.
    pub client_name: String,
    /// Its version, for logs.
    pub client_version: String,
    /// The session that this one replaces: its presence is handed over.
    pub previous_session: Option<SessionId>,
}

/// One limit of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Which, of [`limit_key`].
    pub key: u64,
    /// How much.
    pub value: u64,
}

/// WELCOME: the session is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version of `Hello::versions` that is spoken from here on.
    pub version: u64,
    /// The features of `Hello::features` that are in use.
    pub features: Vec<String>,
    /// The name of this session, to be given as `previous_session` by its successor.
    pub session: SessionId,
    /// The node, for people who look for trouble.
    pub node: String,
    /// The identity that the credential proved.
    pub user_id: String,
    /// A name to show for it.
    pub user_name: String,
    /// What the server accepts at most.
    pub limits: Vec<Limit>,
    /// How often the server pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long without any message until the peer counts as dead, in milliseconds.
    pub dead_after_ms: u64,
    /// How long the credential holds from now, in milliseconds; 0 for ever.
    pub auth_lifetime_ms: u64,
}

impl Welcome {
    /// The value of a limit, when the server named it.
    pub fn limit(&self, key: u64) -> Option<u64> {
        self.limits
            .iter()
            .find(|limit| limit.key == key)
            .map(|limit| limit.value)
    }
}

/// What a client may send on the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientControl {
    /// HELLO.
    Hello(Hello),
    /// PING.
    Ping([u8; 8]),
    /// PONG, with the bytes of the PING.
    Pong([u8; 8]),
    /// AUTH; never with [`Credential::None`].
    Auth(Credential),
}

impl ClientControl {
    /// Reads one message; `None` for a type to skip.
    pub fn decode(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let message = match reader.uint()? {
            kind::HELLO => Self::Hello(Hello {
                versions: list(&mut reader, "versions", |r| Ok(r.uint()?))?,
                features: list(&mut reader, "features", |r| Ok(r.str()?.to_owned()))?,
                credential: Credential::read(&mut reader)?,
                client_name: reader.str()?.to_owned(),
                client_version: reader.str()?.to_owned(),
                previous_session: if flag(&mut reader, "previous session")? {
                    Some(SessionId::from_bytes(reader.array()?))
                } else {
                    None
                },
            }),
            kind::PING => Self::Ping(reader.array()?),
            kind::PONG => Self::Pong(reader.array()?),
            kind::AUTH => match Credential::read(&mut reader)? {
                Credential::None => {
                    return Err(DecodeError::BadValue {
                        field: "credential",
                        value: 0,
                    });
                }
                credential @ (Credential::Ticket(_) | Credential::Token(_)) => {
                    Self::Auth(credential)
                }
            },
            kind => return other(kind),
        };
        reader.end()?;
        Ok(Some(message))
    }

    /// The message's bytes, type included.
    pub fn encode(&self) -> Bytes {
        let mut writer;
        match self {
            Self::Hello(hello) => {
                writer = start(kind::HELLO, 128);
                write_uints(&mut writer, &hello.versions);
                write_texts(&mut writer, &hello.features);
                hello.credential.write(&mut writer);
                writer.str(&hello.client_name).str(&hello.client_version);
                match hello.previous_session {
                    Some(session) => writer.uint(1).bytes(session.as_bytes()),
                    None => writer.uint(0),
                };
            }
            Self::Ping(bytes) => {
                writer = start(kind::PING, 8);
                writer.bytes(bytes);
            }
            Self::Pong(bytes) => {
                writer = start(kind::PONG, 8);
                writer.bytes(bytes);
            }
            Self::Auth(credential) => {
                writer = start(kind::AUTH, 128);
                credential.write(&mut writer);
            }
        }
        writer.finish()
    }
}

/// What the server may send on the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerControl {
    /// WELCOME.
    Welcome(Welcome),
    /// PING.
    Ping([u8; 8]),
    /// PONG, with the bytes of the PING.
    Pong([u8; 8]),
    /// AUTH_OK.
    AuthOk {
        /// How long the fresh credential holds, in milliseconds; 0 for ever.
        lifetime_ms: u64,
    },
    /// AUTH_EXPIRING.
    AuthExpiring {
        /// How long the credential still holds, in milliseconds.
        left_ms: u64,
    },
    /// GOAWAY: reconnect at a random moment of the window; this session goes on until then.
    GoAway {
        /// A sentence for a person.
        reason: String,
        /// Start of the window, in milliseconds from now.
        reconnect_min_ms: u64,
        /// End of the window, in milliseconds from now.
        reconnect_max_ms: u64,
    },
    /// ERROR: the session ends.
    Error(Refusal),
}

impl ServerControl {
    /// Reads one message; `None` for a type to skip.
    pub fn decode(frame: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let message = match reader.uint()? {
            kind::WELCOME => Self::Welcome(Welcome {
                version: reader.uint()?,
                features: list(&mut reader, "features", |r| Ok(r.str()?.to_owned()))?,
                session: SessionId::from_bytes(reader.array()?),
                node: reader.str()?.to_owned(),
                user_id: reader.str()?.to_owned(),
                user_name: reader.str()?.to_owned(),
                limits: list(&mut reader, "limits", |r| {
                    Ok(Limit {
                        key: r.uint()?,
                        value: r.uint()?,
                    })
                })?,
                heartbeat_ms: reader.uint()?,
                dead_after_ms: reader.uint()?,
                auth_lifetime_ms: reader.uint()?,
            }),
            kind::PING => Self::Ping(reader.array()?),
            kind::PONG => Self::Pong(reader.array()?),
            kind::AUTH_OK => Self::AuthOk {
                lifetime_ms: reader.uint()?,
            },
            kind::AUTH_EXPIRING => Self::AuthExpiring {
                left_ms: reader.uint()?,
            },
            kind::GOAWAY => Self::GoAway {
                reason: reader.str()?.to_owned(),
                reconnect_min_ms: reader.uint()?,
                reconnect_max_ms: reader.uint()?,
            },
            kind::ERROR => Self::Error(Refusal::read(&mut reader)?),
            kind => return other(kind),
        };
        reader.end()?;
        Ok(Some(message))
    }

    /// The message's bytes, type included.
    pub fn encode(&self) -> Bytes {
        let mut writer;
        match self {
            Self::Welcome(welcome) => {
                writer = start(kind::WELCOME, 160);
                writer.uint(welcome.version);
                write_texts(&mut writer, &welcome.features);
                writer
                    .bytes(welcome.session.as_bytes())
                    .str(&welcome.node)
                    .str(&welcome.user_id)
                    .str(&welcome.user_name)
                    .uint(welcome.limits.len() as u64);
                for limit in &welcome.limits {
                    writer.uint(limit.key).uint(limit.value);
                }
                writer
                    .uint(welcome.heartbeat_ms)
                    .uint(welcome.dead_after_ms)
                    .uint(welcome.auth_lifetime_ms);
            }
            Self::Ping(bytes) => {
                writer = start(kind::PING, 8);
                writer.bytes(bytes);
            }
            Self::Pong(bytes) => {
                writer = start(kind::PONG, 8);
                writer.bytes(bytes);
            }
            Self::AuthOk { lifetime_ms } => {
                writer = start(kind::AUTH_OK, 8);
                writer.uint(*lifetime_ms);
            }
            Self::AuthExpiring { left_ms } => {
                writer = start(kind::AUTH_EXPIRING, 8);
                writer.uint(*left_ms);
            }
            Self::GoAway {
                reason,
                reconnect_min_ms,
                reconnect_max_ms,
            } => {
                writer = start(kind::GOAWAY, reason.len() + 16);
                writer
                    .str(reason)
                    .uint(*reconnect_min_ms)
                    .uint(*reconnect_max_ms);
            }
            Self::Error(refusal) => {
                writer = start(kind::ERROR, refusal.text.len() + 16);
                refusal.write(&mut writer);
            }
        }
        writer.finish()
    }
}

fn write_uints(writer: &mut Writer, values: &[u64]) {
    writer.uint(values.len() as u64);
    for value in values {
        writer.uint(*value);
    }
}

fn write_texts(writer: &mut Writer, texts: &[String]) {
    writer.uint(texts.len() as u64);
    for text in texts {
        writer.str(text);
    }
}
