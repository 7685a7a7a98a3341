//! The laboratory itself: namespaces, guests, streams and the witness, before anything of turnpike runs in them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use xtask::lab::capture::Witness;
use xtask::lab::guest::{Card, Guest, Plan, Transport};
use xtask::lab::netns::Lab;
use xtask::lab::transfer::{self, Direction, Hall};

/// A guest on a bridge, a namespace behind it: data moves both ways, nothing is left afterwards.
#[test]
fn a_guest_reaches_a_namespace_over_a_bridge() {
    let left_over;
    {
        let lab = Lab::new().unwrap();
        let client = lab.namespace("client").unwrap();
        let access = lab.namespace("access").unwrap();
        let server = lab.namespace("server").unwrap();
        left_over = [&client, &access, &server].map(|n| n.name().to_owned());
        access.bridge("br0").unwrap();
        access.veth("lan0", &client, "c0", 1).unwrap();
        access.veth("lan1", &server, "s0", 1).unwrap();
        access.ip("link set lan0 master br0").unwrap();
        access.ip("link set lan1 master br0").unwrap();
        server.ip("addr add 10.7.0.1/24 dev s0").unwrap();
        assert!(!server.has_xdp("s0").unwrap());
        let mut guest = Guest::start(
            &client,
            &Plan {
                name: "guest".into(),
                cards: vec![Card {
                    interface: "c0".into(),
                    transport: Transport::Raw,
                    address: "10.7.0.2/24".into(),
                    gateway: None,
                    mtu: 1500,
                }],
                command: [
                    "/bin/sh",
                    "-c",
                    "test -c /dev/ppp && cat /host/word && touch /usr/x && ping -c 2 10.7.0.1",
                ]
                .map(str::to_owned)
                .to_vec(),
                files: vec![("word".into(), "hello\n".into())],
                limit: Duration::from_secs(40),
            },
        )
        .unwrap();
        let ended = guest.wait().unwrap();
        assert_eq!(ended.status, 0, "{}", ended.output);
        assert!(ended.output.starts_with("hello\n"), "{}", ended.output);
        assert!(ended.output.contains(" 0% packet loss"), "{}", ended.output);
        assert!(!std::path::Path::new("/usr/x").exists());
    }
    for name in left_over {
        assert!(!std::path::Path::new("/run/netns").join(name).exists());
    }
}

/// A stream between namespaces, with the witness between them: it finds the marker of a GRE packet and nothing else.
#[test]
fn a_stream_has_equal_hashes_and_the_witness_counts_gre_only() {
    let lab = Lab::new().unwrap();
    let left = lab.namespace("left").unwrap();
    let access = lab.namespace("access").unwrap();
    let right = lab.namespace("right").unwrap();
    access.bridge("br0").unwrap();
    for (port, namespace, address) in [("lan0", &left, "10.7.0.2"), ("lan1", &right, "10.7.0.1")] {
        access.veth(port, namespace, "e0", 1).unwrap();
        access.ip(&format!("link set {port} master br0")).unwrap();
        namespace
            .ip(&format!("addr add {address}/24 dev e0"))
            .unwrap();
    }
    let marker = transfer::fresh_marker();
    let witness = Witness::start(&access, "br0", &marker).unwrap();
    let hall = Hall::open(&right, Ipv4Addr::new(10, 7, 0, 1), 0).unwrap();
    for (number, direction) in [Direction::Up, Direction::Down].into_iter().enumerate() {
        let here = transfer::run_inside(
            &left,
            hall.address(),
            direction,
            20 << 20,
            &marker,
            &mut |_| (),
        )
        .unwrap();
        assert_eq!(here.sha256, hall.moved(number).unwrap().sha256);
        assert_eq!(here.bytes, 20 << 20);
    }
    // Linux' own GRE tunnel would need a module: three packets of protocol 47 from a raw socket do.
    let sent = marker.clone();
    left.enter(move || {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(47)),
        )
        .unwrap();
        let to = std::net::SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 1), 0).into();
        for payload in ["nothing", &format!("..{sent}.."), "nothing"] {
            socket.send_to(payload.as_bytes(), &to).unwrap();
        }
    })
    .unwrap()
    .join()
    .unwrap();
    let seen = witness.stop().unwrap();
    let pair = (Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(10, 7, 0, 1));
    assert_eq!(seen.packets, BTreeMap::from([(pair, 3)]));
    assert_eq!(seen.markers, 1);
}
