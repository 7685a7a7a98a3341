//! Sockets over veth pairs: whole frames in and out in both modes, several queues and workers, the host port, one NIC in
//! two roles and two NICs in one memory, and full rings.
#![allow(
    clippy::unwrap_used,
    reason = "a test: what cannot go on must not go on"
)]

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::api::{
    CallRef, Command, Encryption, Forward, Owners, Port, SourceCheck, WorkerId,
};
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::device::{Batch, Device, Refused};
use turnpike_dataplane::netdev::Netlink;
use turnpike_dataplane::ports::{Mode, ModeChoice, Nic, PortsConfig};
use turnpike_dataplane::rings::{self, RingSizes};
use turnpike_dataplane::wake::Wake;
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_dataplane::xsk::Xsk;
use turnpike_protocol::gre::AckSettings;
use turnpike_protocol::{CallId, Role, Time};
use turnpike_tests::street::*;

fn frames_go_through_and_come_back(config: PortsConfig, expected: Mode) {
    const COUNT: u32 = 3000;
    let Some((_lab, client, server)) = street(if config.workers == 1 { 1 } else { 4 }) else {
        return;
    };
    let serving = server
        .enter(move || {
            let (mut ports, xsks) = open(&config);
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
    frames_go_through_and_come_back(config(ModeChoice::Auto, 1), Mode::Native);
}

#[test]
fn frames_go_through_generic_xdp() {
    frames_go_through_and_come_back(config(ModeChoice::Generic, 1), Mode::Generic);
}

#[test]
fn workers_share_the_queues_of_a_device() {
    frames_go_through_and_come_back(config(ModeChoice::Native, 2), Mode::Native);
}

#[test]
fn frames_go_through_queues_that_workers_poll() {
    let mut config = config(ModeChoice::Native, 2);
    config.sizes.busy_poll = 64;
    frames_go_through_and_come_back(config, Mode::Native);
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
    let (ready, done) = channel::<()>();
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
    let (opened, is_open) = channel();
    let (sent, all_sent) = channel::<()>();
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

#[test]
fn two_nics_share_one_memory() {
    const COUNT: u16 = 500;
    let Some((lab, client, server)) = street(1) else {
        return;
    };
    let internet = lab.namespace("internet").unwrap();
    server.veth("u0", &internet, "i0", 1).unwrap();
    server.ip("addr add 192.0.2.1/24 dev u0").unwrap();
    internet.ip("addr add 192.0.2.2/24 dev i0").unwrap();
    internet
        .ip(&format!("route add {INNER_CLIENT} via 192.0.2.1"))
        .unwrap();
    let next_hop = inside(&internet, || {
        Netlink::open().unwrap().link("i0").unwrap().unwrap().mac.0
    });
    let peer = inside(&client, || {
        Netlink::open().unwrap().link("c0").unwrap().unwrap().mac.0
    });
    let serving = server
        .enter(move || {
            let mut config = config(ModeChoice::Auto, 1);
            config.uplink = Some(Nic {
                interface: "u0".into(),
                mode: ModeChoice::Auto,
            });
            let (ports, mut xsks) = open(&config);
            let xsk = &mut xsks[0];
            let wake = Wake::new().unwrap();
            let mut batch = Batch::new();
            let (mut up, mut down) = (0, 0);
            let end = Instant::now() + Duration::from_secs(10);
            while (up < COUNT || down < COUNT) && Instant::now() < end {
                // GRE from the client: what is in it goes on to the internet, in the same frame.
                xsk.receive(Port::Access, &mut batch);
                for mut frame in batch.drain(..) {
                    assert!(frame.cut_front(HEADERS + 12 - ETHERNET));
                    let bytes = xsk.bytes(&mut frame);
                    bytes[..6].copy_from_slice(&next_hop);
                    bytes[6..12].copy_from_slice(&ports.info(Port::Uplink).unwrap().mac.0);
                    bytes[12..14].copy_from_slice(&[8, 0]);
                    xsk.transmit(Port::Uplink, frame).unwrap();
                    up += 1;
                }
                // What the internet answers goes to the client, as it is.
                xsk.receive(Port::Uplink, &mut batch);
                for mut frame in batch.drain(..) {
                    let bytes = xsk.bytes(&mut frame);
                    bytes[..6].copy_from_slice(&peer);
                    bytes[6..12].copy_from_slice(&ports.info(Port::Access).unwrap().mac.0);
                    xsk.transmit(Port::Access, frame).unwrap();
                    down += 1;
                }
                xsk.flush();
                let accounts = xsk.accounts();
                assert_eq!(accounts.held, accounts.total);
                xsk.wait(&wake, Duration::from_millis(5));
            }
            assert_eq!((up, down), (COUNT, COUNT));
        })
        .unwrap();
    wait_until_open(&server);
    let answering = internet
        .enter(|| {
            let service = UdpSocket::bind("192.0.2.2:5555").unwrap();
            let mut buffer = [0; 2048];
            for _ in 0..COUNT {
                let (len, from) = service.recv_from(&mut buffer).unwrap();
                assert_eq!(from.ip(), INNER_CLIENT);
                service.send_to(&buffer[..len], from).unwrap();
            }
        })
        .unwrap();
    client
        .ip(&format!("addr add {INNER_CLIENT}/32 dev lo"))
        .unwrap();
    inside(&client, || {
        let answers = UdpSocket::bind((INNER_CLIENT, 5555)).unwrap();
        answers
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let socket = sender();
        for number in 0..COUNT {
            let text = vec![number as u8; 1 + usize::from(number) % 1400];
            let mut packet = vec![0x30, 0x01, 0x88, 0x0b, 0, 0, 0, 1, 0, 0, 0, 0];
            packet.extend(udp(INNER_CLIENT, "192.0.2.2".parse().unwrap(), 5555, &text));
            send(&socket, &datagram(47, CLIENT, SERVER, &packet), SERVER);
            let mut buffer = [0; 2048];
            let len = answers.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], text);
        }
    });
    answering.join().unwrap();
    serving.join().unwrap();
}

#[test]
fn icmp_errors_of_a_worker_reach_the_internet() {
    let Some((lab, _client, server)) = street(1) else {
        return;
    };
    let internet = lab.namespace("internet").unwrap();
    server.veth("u0", &internet, "i0", 1).unwrap();
    server.ip("addr add 192.0.2.1/24 dev u0").unwrap();
    server.sysctl("net.ipv4.ip_forward", "1").unwrap();
    internet.ip("addr add 192.0.2.2/24 dev i0").unwrap();
    internet.ip("route add 10.20.0.8/29 via 192.0.2.1").unwrap();
    // One address of the pool has a call, the others have none.
    let call = CallRef {
        local: SERVER,
        peer: CLIENT,
        id: CallId(7),
    };
    let terms = Forward {
        address: INNER_CLIENT,
        compress_address: true,
        compress_protocol: true,
        mtu: 1400,
        encryption: Encryption::Plain,
    };
    let (mut control, end) = rings::channel(&RingSizes::default()).unwrap();
    for command in [
        Command::Pool {
            prefix: "10.20.0.8/29".parse().unwrap(),
        },
        Command::Open {
            call,
            peer_id: CallId(7),
            via: CLIENT,
            window: 64,
        },
        Command::Route {
            prefix: INNER_CLIENT.into(),
            call,
        },
        Command::Forward {
            call,
            forward: terms,
        },
    ] {
        control.commands.push(command).unwrap();
    }
    let serving = server
        .enter(move || {
            let (ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
            let config = WorkerConfig {
                id: WorkerId(0),
                role: Role::Server,
                owners: Owners::round_robin(1),
                calls: 1,
                routes: 1,
                routes6: 0,
                ports: Port::ALL.map(|port| ports.info(port)),
                host_peer_mac: ports.host_peer_mac(),
                server_address: Some(INNER_SERVER),
                server_address6: None,
                source_check: SourceCheck::Strict,
                acks: AckSettings::default(),
                reordering: Reordering::default(),
            };
            let mut worker = Worker::new(config, xsks.remove(0), end);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(20) {
                let turn = worker.turn(Time::ZERO + start.elapsed());
                if turn.stopped {
                    break;
                }
                if !turn.busy {
                    worker.wait(Duration::from_millis(20));
                }
            }
            worker.counters().total(Total::IcmpSent)
        })
        .unwrap();
    wait_until_open(&server);
    // Source, type and code, next-hop MTU of what comes back.
    let answer = |to: Ipv4Addr, octets: usize| {
        inside(&internet, move || {
            let mut errors = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            let patience = Some(Duration::from_secs(3));
            errors.set_read_timeout(patience).unwrap();
            let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
            socket.send_to(&vec![0; octets], (to, 7)).unwrap();
            let mut error = [0; 2048];
            let len = errors.read(&mut error).expect("an ICMP error");
            let source = Ipv4Addr::from(*error[12..].first_chunk().unwrap());
            let mtu = u16::from_be_bytes([error[26], error[27]]);
            assert_eq!(error[20 + 8 + 16..][..4], to.octets(), "{len} octets");
            (source, [error[20], error[21]], mtu)
        })
    };
    let unused = Ipv4Addr::new(10, 20, 0, 10);
    assert_eq!(answer(INNER_CLIENT, 1400), (INNER_SERVER, [3, 4], 1400));
    assert_eq!(answer(unused, 10), (INNER_SERVER, [3, 1], 0));
    // Linux believes it.
    let route = internet.ip(&format!("route get {INNER_CLIENT}")).unwrap();
    assert!(route.contains("mtu 1400"), "{route}");
    control.commands.push(Command::Stop).unwrap();
    assert_eq!(serving.join().unwrap(), 2);
}

#[test]
fn frames_wait_while_a_device_is_down() {
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    let service = inside(&client, || {
        let service = UdpSocket::bind("0.0.0.0:5555").unwrap();
        service
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        service
    });
    inside(&server, move || {
        let (ports, mut xsks) = open(&config(ModeChoice::Auto, 1));
        let xsk = &mut xsks[0];
        let us = ports.info(Port::Access).unwrap().mac.0;
        let mut netlink = Netlink::open().unwrap();
        let device = ports.index(Port::Access).unwrap();
        netlink.set_up(device, false).unwrap();
        for number in 0..10_u8 {
            let packet = udp(INNER_CLIENT, CLIENT, 5555, &[number]);
            transmit(xsk, Port::Access, us, [0xff; 6], &packet).unwrap();
            xsk.flush();
        }
        assert_complete(xsk);
        assert!(xsk.troubles(Port::Access).1 > 0);
        // Nothing tells when the device takes them, so whoever waits is back soon to try again.
        let wake = Wake::new().unwrap();
        let waited = |xsk: &mut Xsk, most: Duration| {
            let start = Instant::now();
            xsk.wait(&wake, most);
            start.elapsed()
        };
        assert!(waited(xsk, Duration::from_secs(10)) < Duration::from_secs(5));
        netlink.set_up(device, true).unwrap();
        let mut heard: Vec<u8> = Vec::new();
        let mut buffer = [0; 64];
        for _ in 0..10 {
            xsk.flush();
            let len = service.recv(&mut buffer).unwrap();
            heard.extend(&buffer[..len]);
        }
        assert_eq!(heard, (0..10).collect::<Vec<u8>>());
        assert_complete(xsk);
        let pause = Duration::from_millis(50);
        assert!(waited(xsk, pause) >= pause, "nothing is left to try");
    });
}
