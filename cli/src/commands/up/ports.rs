//! Which addresses everything listens on, chosen and found free before anything starts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use crate::failure::{Exit, Failure};

/// An admin port is this much above the port it belongs to.
const ADMIN: u16 = 1_000;

/// The addresses of everything.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) control_plane: SocketAddr,
    pub(super) control_plane_admin: SocketAddr,
    /// Inference and admin of each sidecar.
    pub(super) sidecars: Vec<(SocketAddr, SocketAddr)>,
}

impl Ports {
    /// Chooses addresses; port 0 stands for any free one.
    ///
    /// All of them are bound at the same time, so that no two are the same, and given
    /// free again: the children bind them themselves.
    pub(super) fn choose(listen: SocketAddr, sidecar_port: u16, sidecars: u16) -> Result<Self, Failure> {
        let mut held = Vec::new();
        let control_plane = hold(&mut held, listen, "--listen")?;
        let control_plane_admin = hold(&mut held, admin(listen), "--listen")?;
        let mut each = Vec::new();
        for index in 0..sidecars {
            let port = match sidecar_port {
                0 => 0,
                first => first.checked_add(index).ok_or_else(|| {
                    Failure::usage(format!("{sidecars} sidecars do not fit above --sidecar-port {first}"))
                })?,
            };
            let address = SocketAddr::new(listen.ip(), port);
            let inference = hold(&mut held, address, "--sidecar-port")?;
            each.push((inference, hold(&mut held, admin(address), "--sidecar-port")?));
        }
        Ok(Self { control_plane, control_plane_admin, sidecars: each })
    }
}

/// The address by which this machine's clients call what listens on `address`.
pub(super) fn dialled(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// Probes and metrics stay on this machine.
fn admin(address: SocketAddr) -> SocketAddr {
    let port = match address.port() {
        0 => 0,
        port => port.checked_add(ADMIN).unwrap_or(0),
    };
    (Ipv4Addr::LOCALHOST, port).into()
}

fn hold(held: &mut Vec<TcpListener>, address: SocketAddr, option: &str) -> Result<SocketAddr, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(Exit::Conflict, format!("{address} is taken"))
            .hint(format!("is another `sconce up` running? else choose another {option}, or port 0 for any")),
        _ => Failure::failed(format!("{address} cannot be listened on: {error}"))
            .hint(format!("choose another {option}")),
    })?;
    held.push(listener);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn port_0_takes_free_ports_and_no_two_are_the_same() {
        let ports = Ports::choose(([127, 0, 0, 1], 0).into(), 0, 3).expect("there are free ports");
        let mut all = BTreeSet::from([ports.control_plane, ports.control_plane_admin]);
        all.extend(ports.sidecars.iter().flat_map(|(inference, admin)| [*inference, *admin]));
        assert_eq!(all.len(), 8);
        assert!(all.iter().all(|address| address.port() != 0));
    }

    #[test]
    fn a_taken_port_is_a_conflict_that_names_it_and_the_option() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        let failure = Ports::choose(address, 0, 0).expect_err("taken");
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.to_string().contains(&address.to_string()), "{failure}");
        assert!(failure.to_string().contains("--listen"), "{failure}");
    }

    #[test]
    fn the_admin_port_stays_on_this_machine() {
        assert_eq!(admin(([0, 0, 0, 0], 8_440).into()), ([127, 0, 0, 1], 9_440).into());
        assert_eq!(admin(([0, 0, 0, 0], 65_000).into()), ([127, 0, 0, 1], 0).into());
    }
}
