//! A client and a server on one veth pair, the ports of the server, and packets for both.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "for tests: what cannot go on must not go on, and a skip must be loud"
)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{Batch, Device, Refused};
use turnpike_dataplane::ports::raw::GreSocket;
use turnpike_dataplane::ports::{HostConfig, ModeChoice, Nic, Ports, PortsConfig};
use turnpike_dataplane::wake::Wake;
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::wire::ipv4;
use xtask::lab::needs::is_root;
use xtask::lab::netns::{Lab, Namespace};

/// The server's outer address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
/// The client's outer address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// Linux' inner address on the server.
pub const INNER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// An inner address that a worker carries.
pub const INNER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);

/// Octets of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Octets in front of GRE.
pub const HEADERS: usize = ETHERNET + 20;

/// Small rings, so that they wrap around and fill up in a test.
pub const SIZES: Sizes = Sizes {
    ring: 256,
    worker: 256,
    held: 0,
    huge_pages: false,
    busy_poll: 0,
};

/// A client and a server on a veth pair with `queues` queues; `None` (said aloud) without the rights.
pub fn street(queues: u32) -> Option<(Lab, Namespace, Namespace)> {
    if !is_root() {
        eprintln!("SKIPPED: network namespaces and AF_XDP need root");
        return None;
    }
    let lab = Lab::new().unwrap();
    let client = lab.namespace("client").unwrap();
    let server = lab.namespace("server").unwrap();
    server
        .ip(&format!(
            "link add s0 numrxqueues {queues} numtxqueues {queues} type veth peer name c0 netns {} \
             numrxqueues {queues} numtxqueues {queues}",
            client.name()
        ))
        .unwrap();
    for (namespace, interface, address) in [(&client, "c0", CLIENT), (&server, "s0", SERVER)] {
        namespace.whole_checksums(interface).unwrap();
        namespace
            .ip(&format!("addr add {address}/24 dev {interface}"))
            .unwrap();
        namespace.ip(&format!("link set {interface} up")).unwrap();
    }
    Some((lab, client, server))
}

/// Ports on `s0`, with a host port.
pub fn config(mode: ModeChoice, workers: usize) -> PortsConfig {
    PortsConfig {
        access: Nic {
            interface: "s0".into(),
            mode,
        },
        uplink: None,
        host: HostConfig {
            interface: "turnpike0".into(),
            mtu: 1500,
            addresses: vec![format!("{INNER_SERVER}/32").parse().unwrap()],
        },
        workers,
        sizes: SIZES,
    }
}

/// Opens the ports and tells XDP what is ours.
pub fn open(config: &PortsConfig) -> (Ports, Vec<Xsk>) {
    let (mut ports, xsks) = Ports::open(config).unwrap();
    ports.local_add(SERVER).unwrap();
    ports
        .pool_add("10.20.0.8/29".parse::<ipnet::IpNet>().unwrap())
        .unwrap();
    (ports, xsks)
}

/// Waits until another thread has done [`open`]: its last step is the route to the pool.
pub fn wait_until_open(server: &Namespace) {
    xtask::lab::until("the ports are open", Duration::from_secs(10), || {
        Ok(server.ip("route")?.contains("10.20.0.8").then_some(()))
    })
    .unwrap();
}

/// Runs on a thread inside a namespace, and waits for it.
pub fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match namespace.enter(work).unwrap().join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// GRE v1 with PPP: a number and as many octets that depend on it.
pub fn gre(number: u32, octets: usize) -> Vec<u8> {
    let call = (number % 50) as u16;
    let mut packet = vec![0x30, 0x01, 0x88, 0x0b];
    packet.extend((octets as u16).to_be_bytes());
    packet.extend(call.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend((0..octets).map(|n| (n as u32).wrapping_mul(number).to_be_bytes()[3]));
    packet
}

/// How large the packet with this number is: all sizes, the largest that an MTU of 1500 takes among them.
pub fn octets(number: u32) -> usize {
    (number as usize * 37) % 1469
}

/// An IPv4 datagram.
pub fn datagram(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = ipv4::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP datagram from a port to the same port.
pub fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = port.to_be_bytes().repeat(2);
    segment.extend(((8 + payload.len()) as u16).to_be_bytes());
    // RFC 768: no checksum.
    segment.extend([0, 0]);
    segment.extend(payload);
    datagram(17, from, to, &segment)
}

/// A socket that sends whole IPv4 datagrams.
pub fn sender() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.set_header_included_v4(true).unwrap();
    socket
}

/// Sends a whole datagram.
pub fn send(socket: &Socket, packet: &[u8], to: Ipv4Addr) {
    socket
        .send_to(packet, &SocketAddrV4::new(to, 0).into())
        .unwrap();
}

/// Sends a packet in a frame of the device's own.
pub fn transmit(
    xsk: &mut Xsk,
    port: Port,
    from: [u8; 6],
    to: [u8; 6],
    packet: &[u8],
) -> Result<(), Refused> {
    let mut frame = xsk.allocate(port).ok_or(Refused::NoMemory)?;
    assert!(frame.set_len(ETHERNET + packet.len()));
    let bytes = xsk.bytes(&mut frame);
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&from);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..].copy_from_slice(packet);
    xsk.transmit(port, frame)
}

/// Every chunk is in the device's hands.
pub fn assert_complete(xsk: &Xsk) {
    let accounts = xsk.accounts();
    assert_eq!(accounts.held, accounts.total, "chunks are missing");
}

/// A worker in miniature: sends every GRE packet back to where it came from, in the frame it came in, and returns how
/// many. Ends when `enough` came or nothing comes for a while.
pub fn echo(xsk: &mut Xsk, enough: u32) -> u32 {
    let wake = Wake::new().unwrap();
    let mut batch = Batch::new();
    let mut echoed = 0;
    let mut last = Instant::now();
    while echoed < enough && last.elapsed() < Duration::from_secs(3) {
        let received = xsk.receive(Port::Access, &mut batch);
        assert_eq!(received, batch.len());
        let accounts = xsk.accounts();
        assert_eq!(accounts.held + batch.len(), accounts.total);
        for mut frame in batch.drain(..) {
            let bytes = xsk.bytes(&mut frame);
            let number = u32::from_be_bytes(bytes[HEADERS + 8..HEADERS + 12].try_into().unwrap());
            assert_eq!(
                bytes[HEADERS..],
                gre(number, octets(number)),
                "number {number} came changed"
            );
            let (to, from) = bytes.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            let (from, to) = bytes[ETHERNET + 12..].split_at_mut(4);
            from.swap_with_slice(&mut to[..4]);
            xsk.transmit(Port::Access, frame).unwrap();
            echoed += 1;
            last = Instant::now();
        }
        xsk.flush();
        if received == 0 {
            xsk.wait(&wake, Duration::from_millis(20));
        }
    }
    // What was sent comes back.
    let end = Instant::now() + Duration::from_secs(1);
    while xsk.accounts().held < xsk.accounts().total && Instant::now() < end {
        xsk.flush();
    }
    assert_complete(xsk);
    echoed
}

/// Sends numbered packets to the server and takes the echoes; returns the numbers that came back whole.
pub fn numbers_sent_and_echoed(count: u32) -> BTreeSet<u32> {
    let back = GreSocket::open().unwrap();
    let socket = sender();
    let mut numbers = BTreeSet::new();
    let mut buffer = [0; 2048];
    let mut take = |on_the_way: usize, sent: u32| {
        let end = Instant::now() + Duration::from_secs(5);
        while numbers.len() + on_the_way < sent as usize {
            match back.receive(&mut buffer) {
                Ok(len) => {
                    let packet = &buffer[20..len];
                    let number = u32::from_be_bytes(packet[8..12].try_into().unwrap());
                    assert_eq!(packet, gre(number, octets(number)));
                    assert!(numbers.insert(number), "{number} came twice");
                }
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_micros(200)),
                Err(_) => return false,
            }
        }
        true
    };
    for number in 0..count {
        let packet = datagram(47, CLIENT, SERVER, &gre(number, octets(number)));
        send(&socket, &packet, SERVER);
        // Less than a ring at once, however busy the machine is: nothing may be lost here.
        if !take(SIZES.ring as usize / 4, number + 1) {
            break;
        }
    }
    take(0, count);
    numbers
}

/// How often the XDP program came to this verdict.
pub fn verdict(ports: &Ports, name: &str) -> u64 {
    let verdicts = ports.verdicts().unwrap();
    verdicts.iter().find(|v| v.0 == name).unwrap().1
}
