//! Ports and sockets over veth pairs: whole frames in and out in both modes, several queues and workers, the host port,
//! one NIC in two roles, and what is left after an end without warning.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test: what cannot go on must not go on, and a skip must be loud"
)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{Batch, Device, Refused};
use turnpike_dataplane::ports::raw::GreSocket;
use turnpike_dataplane::ports::{self, HostConfig, Mode, ModeChoice, Nic, Ports, PortsConfig};
use turnpike_dataplane::wake::Wake;
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::wire::ipv4;
use xtask::lab::needs::is_root;
use xtask::lab::netns::{Lab, Namespace};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// Linux' inner address on the server, and one that a worker carries.
const INNER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const INNER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);

const ETHERNET: usize = 14;
const HEADERS: usize = ETHERNET + 20;

/// Small rings, so that they wrap around and fill up in a test.
const SIZES: Sizes = Sizes {
    ring: 256,
    worker: 256,
    huge_pages: false,
};

/// A client and a server on a veth pair with `queues` queues; `None` (said aloud) without the rights.
fn street(queues: u32) -> Option<(Lab, Namespace, Namespace)> {
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

fn config(mode: ModeChoice, workers: usize) -> PortsConfig {
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
fn open(config: &PortsConfig) -> (Ports, Vec<Xsk>) {
    let (mut ports, xsks) = Ports::open(config).unwrap();
    ports.local_add(SERVER).unwrap();
    ports.pool_add("10.20.0.8/29".parse().unwrap()).unwrap();
    (ports, xsks)
}

/// Waits until another thread has done [`open`]: its last step is the route to the pool.
fn wait_until_open(server: &Namespace) {
    xtask::lab::until("the ports are open", Duration::from_secs(10), || {
        Ok(server.ip("route")?.contains("10.20.0.8").then_some(()))
    })
    .unwrap();
}

/// Runs on a thread inside a namespace, and waits for it.
fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match namespace.enter(work).unwrap().join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// GRE v1 with PPP: a number and as many octets that depend on it.
fn gre(number: u32, octets: usize) -> Vec<u8> {
    let call = (number % 50) as u16;
    let mut packet = vec![0x30, 0x01, 0x88, 0x0b];
    packet.extend((octets as u16).to_be_bytes());
    packet.extend(call.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend((0..octets).map(|n| (n as u32).wrapping_mul(number).to_be_bytes()[3]));
    packet
}

/// How large the packet with this number is: all sizes, the largest that an MTU of 1500 takes among them.
fn octets(number: u32) -> usize {
    (number as usize * 37) % 1469
}

fn datagram(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
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

fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = port.to_be_bytes().repeat(2);
    segment.extend(((8 + payload.len()) as u16).to_be_bytes());
    // RFC 768: no checksum.
    segment.extend([0, 0]);
    segment.extend(payload);
    datagram(17, from, to, &segment)
}

/// A socket that sends whole IPv4 datagrams.
fn sender() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.set_header_included_v4(true).unwrap();
    socket
}

fn send(socket: &Socket, packet: &[u8], to: Ipv4Addr) {
    socket
        .send_to(packet, &SocketAddrV4::new(to, 0).into())
        .unwrap();
}

/// A frame for Linux' end of the host port.
fn transmit(
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
fn assert_complete(xsk: &Xsk) {
    let accounts = xsk.accounts();
    assert_eq!(accounts.held, accounts.total, "chunks are missing");
}

/// A worker in miniature: sends every GRE packet back to where it came from, in the frame it came in, and returns how
/// many. Ends when `enough` came or nothing comes for a while.
fn echo(xsk: &mut Xsk, enough: u32) -> u32 {
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
fn numbers_sent_and_echoed(count: u32) -> BTreeSet<u32> {
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

fn verdict(ports: &Ports, name: &str) -> u64 {
    let verdicts = ports.verdicts().unwrap();
    verdicts.iter().find(|v| v.0 == name).unwrap().1
}

fn frames_go_through_and_come_back(choice: ModeChoice, expected: Mode, workers: usize) {
    const COUNT: u32 = 3000;
    let Some((_lab, client, server)) = street(if workers == 1 { 1 } else { 4 }) else {
        return;
    };
    let serving = server
        .enter(move || {
            let (mut ports, xsks) = open(&config(choice, workers));
            let modes = ports.modes();
            assert_eq!(modes[0].mode, expected, "{modes:?}");
            assert!(!modes.is_empty());
            let threads: Vec<_> = xsks
                .into_iter()
                .map(|mut xsk| std::thread::spawn(move || echo(&mut xsk, COUNT)))
                .collect();
            let each: Vec<u32> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            assert_eq!(verdict(&ports, "gre"), u64::from(COUNT));
            assert_eq!(verdict(&ports, "no_socket"), 0);
            for report in ports.statistics().unwrap() {
                assert_eq!(report.statistics.rx_invalid_descs, 0, "{report:?}");
                assert_eq!(report.statistics.tx_invalid_descs, 0, "{report:?}");
                assert_eq!(report.statistics.rx_dropped, 0, "{report:?}");
                assert!(!report.zero_copy);
            }
            assert_eq!(ports.devices().unwrap().len(), 2);
            each
        })
        .unwrap();
    wait_until_open(&server);
    assert!(server.has_xdp("s0").unwrap() && server.has_xdp("turnpike0-x").unwrap());
    let numbers = inside(&client, || numbers_sent_and_echoed(COUNT));
    let each = serving.join().unwrap();
    assert_eq!(numbers.len(), COUNT as usize);
    assert_eq!(each.iter().sum::<u32>(), COUNT);
    assert!(each.iter().all(|&n| n > 0), "an idle worker: {each:?}");
    // All is gone with the ports.
    assert_eq!(server.interfaces().unwrap(), ["s0"]);
    assert!(!server.has_xdp("s0").unwrap());
    assert!(!server.ip("route").unwrap().contains("10.20."));
}

#[test]
fn frames_go_through_native_xdp() {
    frames_go_through_and_come_back(ModeChoice::Auto, Mode::Native, 1);
}

#[test]
fn frames_go_through_generic_xdp() {
    frames_go_through_and_come_back(ModeChoice::Generic, Mode::Generic, 1);
}

#[test]
fn workers_share_the_queues_of_a_device() {
    frames_go_through_and_come_back(ModeChoice::Native, Mode::Native, 2);
}

#[test]
fn workers_need_a_queue_each() {
    let Some((_lab, _client, server)) = street(1) else {
        return;
    };
    let (queues, refusal) = inside(&server, || {
        let refusal = Ports::open(&config(ModeChoice::Auto, 2)).map(drop);
        (ports::queues("s0").unwrap(), refusal.unwrap_err())
    });
    assert_eq!(queues, 1);
    assert!(
        matches!(refusal, ports::Error::TooManyWorkers { queues: 1, .. }),
        "{refusal}"
    );
    assert_eq!(server.interfaces().unwrap(), ["s0"], "something is left");
}

#[test]
fn the_host_port_carries_packets_to_linux_and_back() {
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    let serving = server
        .enter(|| {
            let (ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
            let xsk = &mut xsks[0];
            let us = ports.info(Port::Host).unwrap().mac.0;
            let linux = ports.host_peer_mac().0;
            assert!(xsk.has(Port::Host) && xsk.has(Port::Access) && !xsk.has(Port::Uplink));
            let service = UdpSocket::bind((INNER_SERVER, 7777)).unwrap();
            service
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            let mut buffer = [0; 2048];

            // From a worker's own memory to Linux.
            let question = udp(INNER_CLIENT, INNER_SERVER, 7777, b"allocated");
            transmit(xsk, Port::Host, us, linux, &question).unwrap();
            xsk.flush();
            let (len, from) = service.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"allocated");
            assert_eq!(from.ip(), INNER_CLIENT);

            // Linux' answer comes by its route to the pool.
            service.send_to(b"answer", (INNER_CLIENT, 7777)).unwrap();
            let mut batch = Batch::new();
            let end = Instant::now() + Duration::from_secs(2);
            while batch.is_empty() && Instant::now() < end {
                xsk.receive(Port::Host, &mut batch);
            }
            let mut frame = batch.pop().expect("the answer");
            let bytes = xsk.bytes(&mut frame);
            assert_eq!(bytes[..6], us);
            assert_eq!(bytes[ETHERNET + 16..ETHERNET + 20], INNER_CLIENT.octets());
            assert!(bytes.ends_with(b"answer"));

            // A frame of the host port's memory sent on the access port is copied, and the other way round.
            let access = ports.info(Port::Access).unwrap().mac.0;
            bytes[..6].copy_from_slice(&[0xff; 6]);
            bytes[6..12].copy_from_slice(&access);
            xsk.transmit(Port::Access, frame).unwrap();
            xsk.flush();
            let end = Instant::now() + Duration::from_secs(2);
            while batch.is_empty() && Instant::now() < end {
                xsk.receive(Port::Access, &mut batch);
            }
            let mut frame = batch.pop().expect("GRE from the client");
            for frame in batch.drain(..) {
                xsk.release(frame);
            }
            let inner = udp(INNER_CLIENT, INNER_SERVER, 7777, b"decapsulated");
            let bytes = xsk.bytes(&mut frame);
            assert!(bytes.ends_with(&inner), "{bytes:x?}");
            let cut = bytes.len() - inner.len();
            assert!(frame.cut_front(cut));
            assert!(frame.grow_front(ETHERNET));
            let bytes = xsk.bytes(&mut frame);
            bytes[..6].copy_from_slice(&linux);
            bytes[6..12].copy_from_slice(&us);
            bytes[12..14].copy_from_slice(&[8, 0]);
            xsk.transmit(Port::Host, frame).unwrap();
            xsk.flush();
            let (len, _) = service.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"decapsulated");

            // An address of the pool that no worker knows would come to the worker; one beside it is not routed here.
            assert!(service.send_to(b"elsewhere", "10.20.1.1:7").is_err());

            // A port that is not there.
            let frame = xsk.allocate(Port::Host).unwrap();
            assert_eq!(xsk.transmit(Port::Uplink, frame), Err(Refused::NoPort));
            assert!(xsk.allocate(Port::Uplink).is_none());

            let end = Instant::now() + Duration::from_secs(1);
            while xsk.accounts().held < xsk.accounts().total && Instant::now() < end {
                xsk.flush();
            }
            assert_complete(xsk);
            assert_eq!(verdict(&ports, "pool"), 1);
        })
        .unwrap();
    let (ready, done) = std::sync::mpsc::channel::<()>();
    let sending = client
        .enter(move || {
            let socket = sender();
            let inner = udp(INNER_CLIENT, INNER_SERVER, 7777, b"decapsulated");
            let mut packet = vec![0x30, 0x01, 0x88, 0x0b];
            packet.extend(((inner.len() + 4) as u16).to_be_bytes());
            packet.extend([0, 7, 0, 0, 0, 0, 0xff, 0x03, 0x00, 0x21]);
            packet.extend(inner);
            // Until the server has seen one, whenever it is ready for it.
            while done.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                send(&socket, &datagram(47, CLIENT, SERVER, &packet), SERVER);
            }
        })
        .unwrap();
    let served = serving.join();
    drop(ready);
    sending.join().unwrap();
    if let Err(panic) = served {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn one_nic_is_access_and_uplink() {
    let Some((_lab, client, server)) = street(2) else {
        return;
    };
    let serving = server
        .enter(|| {
            let mut config = config(ModeChoice::Auto, 1);
            config.uplink = Some(config.access.clone());
            let (ports, mut xsks) = open(&config);
            let xsk = &mut xsks[0];
            let (mut tunnel, mut inner) = (Vec::new(), Vec::new());
            let mut batch = Batch::new();
            let end = Instant::now() + Duration::from_secs(3);
            while (tunnel.len() < 40 || inner.len() < 40) && Instant::now() < end {
                for (port, seen) in [(Port::Access, &mut tunnel), (Port::Uplink, &mut inner)] {
                    xsk.receive(port, &mut batch);
                    for mut frame in batch.drain(..) {
                        seen.push(xsk.bytes(&mut frame)[ETHERNET..].to_vec());
                        xsk.release(frame);
                    }
                }
                xsk.flush();
            }
            assert_complete(xsk);
            // Each by its own ring, though both came by the same queues.
            assert!(tunnel.len() >= 40 && inner.len() >= 40);
            assert!(
                tunnel
                    .iter()
                    .all(|p| p[9] == 47 && p[16..20] == SERVER.octets())
            );
            assert!(
                inner
                    .iter()
                    .all(|p| p[9] == 17 && p[16..20] == INNER_CLIENT.octets())
            );

            // Both send on it.
            let us = ports.info(Port::Uplink).unwrap().mac.0;
            for port in [Port::Access, Port::Uplink] {
                let packet = udp(INNER_CLIENT, CLIENT, 5555, port.to_string().as_bytes());
                transmit(xsk, port, us, [0xff; 6], &packet).unwrap();
            }
            xsk.flush();
        })
        .unwrap();
    wait_until_open(&server);
    client
        .ip(&format!("route add {INNER_CLIENT} via {SERVER}"))
        .unwrap();
    let heard = inside(&client, || {
        let service = UdpSocket::bind("0.0.0.0:5555").unwrap();
        service
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        let socket = sender();
        for number in 0..50 {
            let packet = datagram(47, CLIENT, SERVER, &gre(number, 100));
            send(&socket, &packet, SERVER);
            let packet = udp(CLIENT, INNER_CLIENT, number as u16, b"in");
            send(&socket, &packet, INNER_CLIENT);
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut buffer = [0; 64];
        let mut heard = BTreeSet::new();
        for _ in 0..2 {
            let len = service.recv(&mut buffer).unwrap();
            heard.insert(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
        heard
    });
    serving.join().unwrap();
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), ["access", "uplink"]);
}

#[test]
fn a_worker_that_does_not_read_loses_frames_under_a_name_and_no_chunk() {
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    const COUNT: u64 = 2000;
    let (opened, is_open) = std::sync::mpsc::channel();
    let (sent, all_sent) = std::sync::mpsc::channel::<()>();
    let serving = server
        .enter(move || {
            let (ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
            let xsk = &mut xsks[0];
            opened.send(()).unwrap();
            all_sent.recv().unwrap();
            let mut batch = Batch::new();
            let mut received = 0;
            loop {
                let n = xsk.receive(Port::Access, &mut batch);
                if n == 0 {
                    break;
                }
                received += n as u64;
                for frame in batch.drain(..) {
                    xsk.release(frame);
                }
                xsk.flush();
            }
            assert_complete(xsk);
            let statistics = ports.statistics().unwrap();
            let access = statistics.iter().find(|s| s.port == Port::Access).unwrap();
            // The receive ring was full, and the kernel says how often.
            assert_eq!(received, u64::from(SIZES.ring));
            assert_eq!(access.statistics.rx_ring_full, COUNT - received);
            assert_eq!(verdict(&ports, "gre"), COUNT);

            // Sending more than the ring holds: what does not fit is refused, and released.
            let us = ports.info(Port::Access).unwrap().mac.0;
            let packet = udp(INNER_CLIENT, CLIENT, 5555, &[0; 100]);
            let mut full = 0;
            for _ in 0..2 * SIZES.ring {
                match transmit(xsk, Port::Access, us, [0xff; 6], &packet) {
                    Ok(()) => {}
                    Err(Refused::Full) => full += 1,
                    Err(e) => panic!("{e:?}"),
                }
            }
            assert_eq!(full, SIZES.ring);
            xsk.flush();
            assert_complete(xsk);
        })
        .unwrap();
    is_open.recv().unwrap();
    inside(&client, || {
        let socket = sender();
        for number in 0..COUNT as u32 {
            send(
                &socket,
                &datagram(47, CLIENT, SERVER, &gre(number, 10)),
                SERVER,
            );
        }
    });
    sent.send(()).unwrap();
    serving.join().unwrap();
}

/// Set for the process that [`the_next_start_cleans_up_after_a_kill`] starts to be killed.
const VICTIM: &str = "TURNPIKE_TEST_VICTIM";

#[test]
fn the_next_start_cleans_up_after_a_kill() {
    if std::env::var_os(VICTIM).is_some() {
        // Inside the server's namespace already.
        let (_ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
        println!("open");
        let wake = Wake::new().unwrap();
        loop {
            xsks[0].flush();
            xsks[0].wait(&wake, Duration::from_millis(100));
        }
    }
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    let mut command = server.command(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "the_next_start_cleans_up_after_a_kill",
            "--nocapture",
        ])
        .env(VICTIM, "1");
    let mut victim = server.start("victim", &command).unwrap();
    victim
        .wait_for_line(Duration::from_secs(20), |line| line.ends_with("open"))
        .unwrap();
    assert!(server.has_xdp("s0").unwrap());

    // While it lives nobody else gets its device, and it keeps its own.
    let refusal = inside(&server, || {
        Ports::open(&config(ModeChoice::Auto, 1))
            .map(drop)
            .unwrap_err()
    });
    assert!(matches!(refusal, ports::Error::InUse(_)), "{refusal}");
    assert!(server.has_xdp("s0").unwrap() && server.has_xdp("turnpike0-x").unwrap());

    victim.kill().unwrap();
    victim.wait(Duration::from_secs(5)).unwrap();
    let left = server.interfaces().unwrap();
    assert!(left.contains(&"turnpike0".to_owned()), "{left:?}");

    // The next one starts at once, with nothing of the old one in its way.
    let (opened, is_open) = std::sync::mpsc::channel();
    let serving = server
        .enter(move || {
            let (_ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
            opened.send(()).unwrap();
            echo(&mut xsks[0], 100)
        })
        .unwrap();
    is_open.recv().unwrap();
    let numbers = inside(&client, || numbers_sent_and_echoed(100));
    assert_eq!(serving.join().unwrap(), 100);
    assert_eq!(numbers.len(), 100);
    assert_eq!(server.interfaces().unwrap(), ["s0"]);
    assert!(!server.has_xdp("s0").unwrap());
}

#[test]
fn somebody_elses_interface_is_not_touched() {
    let Some((_lab, _client, server)) = street(1) else {
        return;
    };
    server
        .ip("link add turnpike0 type veth peer name other")
        .unwrap();
    let refusal = inside(&server, || {
        Ports::open(&config(ModeChoice::Auto, 1))
            .map(drop)
            .unwrap_err()
    });
    assert!(matches!(&refusal, ports::Error::Foreign(name) if name == "turnpike0"));
    let left = server.interfaces().unwrap();
    assert!(left.contains(&"turnpike0".to_owned()) && left.contains(&"other".to_owned()));
    assert!(!server.has_xdp("s0").unwrap());

    let missing = inside(&server, || {
        let mut config = config(ModeChoice::Auto, 1);
        config.access.interface = "s9".into();
        Ports::open(&config).map(drop).unwrap_err()
    });
    assert_eq!(missing.to_string(), "there is no network interface s9");
}
