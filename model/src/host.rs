//! Address of a client or broker as records and message ids carry it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An IP address and a port. In records: the address bytes, then the port as a 4-byte big-endian integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host(pub SocketAddr);

impl Host {
    /// The loopback address with port 0, for records that the broker itself makes.
    pub const LOCAL: Self = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

    /// Length of the encoded form: 8 bytes for IPv4, 20 for IPv6.
    pub fn encoded_len(self) -> usize {
        if self.is_v6() { 20 } else { 8 }
    }

    pub fn is_v6(self) -> bool {
        self.0.is_ipv6()
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        match self.0.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
        out.extend_from_slice(&u32::from(self.0.port()).to_be_bytes());
    }

    /// Reads 8 bytes (IPv4) or 20 bytes (IPv6); `None` for any other length or a port above 65535.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, port) = match bytes.len() {
            8 => (IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).ok()?)), &bytes[4..]),
            20 => (IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).ok()?)), &bytes[16..]),
            _ => return None,
        };
        let port = u16::try_from(u32::from_be_bytes(port.try_into().ok()?)).ok()?;
        Some(Self(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
