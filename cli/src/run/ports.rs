//! Sockets are bound before anything else happens, so that a port that is taken is told at once, with its purpose.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, bail};
use tokio::net::TcpListener;

/// A port and what it is for.
pub struct Port {
    pub number: u16,
    pub purpose: &'static str,
    /// How the user changes it.
    pub option: &'static str,
}

/// Binds all ports, or fails with every one that cannot be had.
pub async fn bind<const N: usize>(host: IpAddr, ports: [Port; N]) -> anyhow::Result<[TcpListener; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut problems = Vec::new();
    for port in &ports {
        match TcpListener::bind((host, port.number)).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => problems.push(describe(port, &error)),
        }
    }
    match <[TcpListener; N]>::try_from(listeners) {
        Ok(listeners) => Ok(listeners),
        Err(_) => bail!("{}", problems.join("\n")),
    }
}

fn describe(port: &Port, error: &std::io::Error) -> String {
    let Port { number, purpose, option } = port;
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return format!(
            "port {number} ({purpose}) is taken by another process; stop it (`ss -ltnp 'sport = :{number}'` names it) \
             or use other ports with {option}"
        );
    }
    format!("port {number} ({purpose}) cannot be listened on: {error}; use another with {option}")
}

/// `base + offset`, or an error that names the option.
pub fn shifted(base: u16, offset: u16) -> anyhow::Result<u16> {
    base.checked_add(offset).with_context(|| {
        format!("--port-offset: expected at most {}, got {offset}: {base} + {offset} is no port", u16::MAX - 10_911)
    })
}

/// The address that others reach this machine under: the one it would use itself to reach the world. Nothing is sent.
pub fn own_address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // An address of the range that documentation uses: any route to it will do.
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok()
    };
    let found = ask().map(|address: SocketAddr| address.ip()).filter(|ip| !ip.is_unspecified());
    found.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// The address of a host name or of an address in text.
pub async fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .with_context(|| format!("--advertise: {host:?} is no address and no known host name"))?
        .collect::<Vec<_>>();
    // Clients that know only IPv4 are the majority.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().with_context(|| format!("--advertise: {host:?} has no address"))
}
