//! The UDP socket under the QUIC endpoint.
//!
//! One socket serves every client, so its kernel buffers must hold a burst of all of them: the default of 208 KiB loses
//! packets even on loopback. The kernel may silently give less than asked, so the sizes are read back.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// What one buffer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BufferSize {
    wanted: usize,
    got: usize,
}

/// Binds a non-blocking UDP socket with buffers of `buffer_bytes` in each direction. An IPv6 wildcard address serves IPv4
/// too. Logs one WARN when the kernel gave smaller buffers.
pub(super) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // Asking for more than the kernel allows is not an error on Linux, and elsewhere it must not stop the server.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    let receive = BufferSize {
        wanted: buffer_bytes,
        got: usable(socket.recv_buffer_size()?),
    };
    let send = BufferSize {
        wanted: buffer_bytes,
        got: usable(socket.send_buffer_size()?),
    };
    if let Some(advice) = advice(receive, send) {
        tracing::warn!("{advice}");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Linux reports twice what it grants, since it counts its own bookkeeping.
fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") {
        reported / 2
    } else {
        reported
    }
}

/// What to tell the operator, or nothing when both buffers are as asked.
fn advice(receive: BufferSize, send: BufferSize) -> Option<String> {
    if receive.got >= receive.wanted && send.got >= send.wanted {
        return None;
    }
    Some(format!(
        "the kernel limits the UDP buffers to {} KiB receiving and {} KiB sending instead of {} KiB: many clients at once \
         may lose packets. Raise them with: sysctl -w net.core.rmem_max={} net.core.wmem_max={}",
        receive.got / 1024,
        send.got / 1024,
        receive.wanted / 1024,
        receive.wanted,
        send.wanted,
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_clamped_buffer_is_told_with_the_cure() {
        let full = BufferSize {
            wanted: 4 << 20,
            got: 4 << 20,
        };
        let clamped = BufferSize {
            wanted: 4 << 20,
            got: 212_992,
        };
        assert_eq!(advice(full, full), None);
        let text = advice(clamped, full).unwrap();
        assert!(text.contains("208 KiB receiving"), "{text}");
        assert!(text.contains("net.core.rmem_max=4194304"), "{text}");
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into(), 1 << 16).unwrap();
        let error = bind(first.local_addr().unwrap(), 1 << 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
