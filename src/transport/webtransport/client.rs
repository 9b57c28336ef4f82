//! The dialling side, for tests and the load test. Browsers are the real clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::timeout;
use wtransport::endpoint::ConnectOptions;
use wtransport::tls::Sha256Digest;
use wtransport::{ClientConfig, Endpoint};

use super::{Config, link, transport_config};
use crate::shutdown::Scope;
use crate::transport::dial::{DialError, Options, Url};
use crate::transport::tls::CertificateHash;
use crate::transport::{Carrier, End, Link, Peer, Sender, SenderKind};

/// Opens a session with a server whose certificate has this hash. Everything runs in `scope`.
pub(in crate::transport) async fn connect(
    url: &Url,
    certificate: CertificateHash,
    options: &Options,
    scope: &Scope,
) -> Result<Link, DialError> {
    let unspecified = match url.host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V6(_)) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        Ok(IpAddr::V4(_)) | Err(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    let mut config = ClientConfig::builder()
        .with_bind_address(SocketAddr::new(unspecified, 0))
        .with_server_certificate_hashes([Sha256Digest::new(*certificate.as_bytes())])
        .build();
    let defaults = Config::default();
    let transport = transport_config(&defaults).map_err(|error| DialError::Connect {
        detail: error.to_string(),
    })?;
    config
        .quic_config_mut()
        .transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(config).map_err(|error| DialError::Connect {
        detail: error.to_string(),
    })?;
    let mut request = ConnectOptions::builder(url.text.clone());
    if let Some(origin) = &options.origin {
        request = request.add_header("origin", origin);
    }
    let connection = timeout(options.timeout, endpoint.connect(request.build()))
        .await
        .map_err(|_| DialError::TimedOut)?
        .map_err(|error| match error {
            wtransport::error::ConnectingError::SessionRejected => DialError::Refused {
                status: None,
                detail: "the server refused the session".to_owned(),
            },
            other => DialError::Connect {
                detail: other.to_string(),
            },
        })?;
    let address = connection.remote_address();
    let (receiver, sender) = link::start(
        connection,
        link::Options {
            end: End::Client,
            first_frame_wait: defaults.first_stream_timeout,
            n_streams: defaults.n_streams_initial,
        },
        scope,
    );
    Ok(Link {
        receiver,
        sender: Sender {
            kind: SenderKind::WebTransport(sender),
        },
        peer: Peer {
            carrier: Carrier::WebTransport,
            address,
            origin: None,
            host: Some(url.authority()),
            path: url.path.clone(),
            query: url.query.clone(),
        },
    })
}
