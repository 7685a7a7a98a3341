//! Our netlink helpers against what `ip` and `ethtool` show.
#![allow(
    clippy::unwrap_used,
    reason = "a test: what cannot go on must not go on"
)]

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use turnpike_dataplane::netdev::{Netlink, Offloads, Route, Veth, set_offloads};
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_tests::street::{inside, street};

#[test]
fn what_is_made_is_there_and_what_is_deleted_is_gone() {
    let Some((_lab, client, server)) = street(1) else {
        return;
    };
    server.enable_ipv6().unwrap();
    let other = std::fs::File::open(format!("/run/netns/{}", client.name())).unwrap();
    let (left, left_queues) = inside(&server, move || {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("v0").unwrap(), None);
        let veth = Veth {
            name: "v0".into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 7])),
            peer: "v1".into(),
            peer_mac: None,
            queues: 3,
            mtu: 1400,
        };
        netlink.veth_add(&veth).unwrap();
        assert!(netlink.veth_add(&veth).unwrap_err().exists());
        let v0 = netlink.link("v0").unwrap().unwrap();
        assert_eq!((v0.mac, v0.mtu), (MacAddr([2, 0, 0, 0, 0, 7]), 1400));
        assert_eq!((v0.kind.as_str(), v0.up), ("veth", false));
        let queues = netlink.queues(&v0);
        let v1 = netlink.link("v1").unwrap().unwrap();
        netlink.set_alias(v0.index, "an alias").unwrap();
        netlink.set_mtu(v0.index, 1300).unwrap();
        netlink
            .set_mac(v0.index, MacAddr([2, 0, 0, 0, 0, 8]))
            .unwrap();
        netlink.rename(v0.index, "v2").unwrap();
        set_offloads("v2", Offloads::Transmit, false).unwrap();
        set_offloads("v2", Offloads::Merge, true).unwrap();
        set_offloads("v2", Offloads::Merge, false).unwrap();
        netlink.set_up(v0.index, true).unwrap();
        netlink.set_up(v1.index, true).unwrap();

        let address: Ipv4Net = "10.9.0.1/24".parse().unwrap();
        netlink.address_add(v0.index, address).unwrap();
        netlink.address_add(v0.index, address).unwrap();
        assert_eq!(netlink.addresses(v0.index).unwrap(), [address]);
        let far: IpAddr = "10.9.0.7".parse().unwrap();
        netlink
            .neighbour_set(v0.index, far, MacAddr([2, 0, 0, 0, 0, 9]))
            .unwrap();
        let route = Route {
            destination: "10.10.0.0/16".parse().unwrap(),
            device: v0.index,
            via: Some(far),
            source: Some(address.addr().into()),
        };
        netlink.route_add(&route).unwrap();
        let address6: Ipv6Net = "2001:db8:9::1/64".parse().unwrap();
        netlink.address_add(v0.index, address6).unwrap();
        let far6: IpAddr = "fe80::7".parse().unwrap();
        netlink
            .neighbour_set(v0.index, far6, MacAddr([2, 0, 0, 0, 0, 9]))
            .unwrap();
        let route6 = Route {
            destination: "2001:db8:10::/48".parse().unwrap(),
            device: v0.index,
            via: Some(far6),
            source: Some(address6.addr().into()),
        };
        netlink.route_add(&route6).unwrap();
        netlink.route_add(&route6).unwrap();
        (v0.index, queues)
    });
    assert_eq!((left_queues.receive, left_queues.transmit), (3, 3));
    let shown = server.ip("-details addr show dev v2").unwrap();
    for text in [
        "alias an alias",
        "mtu 1300",
        "02:00:00:00:00:08",
        "10.9.0.1/24",
        // Without a search for another owner.
        "2001:db8:9::1/64 scope global nodad",
    ] {
        assert!(shown.contains(text), "{text} is not in:\n{shown}");
    }
    let offloads = server.run("ethtool -k v2").unwrap();
    for text in [
        "tx-checksumming: off",
        "tx-tcp-segmentation: off",
        "generic-receive-offload: off",
    ] {
        assert!(offloads.contains(text), "{text} is not in:\n{offloads}");
    }
    assert!(
        server
            .ip("neigh show dev v2")
            .unwrap()
            .contains("10.9.0.7 lladdr 02:00:00:00:00:09 PERMANENT")
    );
    let routes = server.ip("route show 10.10.0.0/16").unwrap();
    assert!(
        routes.contains("via 10.9.0.7") && routes.contains("src 10.9.0.1"),
        "{routes}"
    );

    assert!(
        server
            .ip("-6 neigh show dev v2")
            .unwrap()
            .contains("fe80::7 lladdr 02:00:00:00:00:09 PERMANENT")
    );
    let routes = server.ip("-6 route show 2001:db8:10::/48").unwrap();
    assert!(
        routes.contains("via fe80::7 dev v2") && routes.contains("src 2001:db8:9::1"),
        "{routes}"
    );

    inside(&server, move || {
        use std::os::fd::AsFd;
        let mut netlink = Netlink::open().unwrap();
        let far: IpAddr = "10.9.0.7".parse().unwrap();
        let route = Route {
            destination: "10.10.0.0/16".parse().unwrap(),
            device: left,
            via: Some(far),
            source: None,
        };
        netlink.route_delete(&route).unwrap();
        assert!(netlink.route_delete(&route).unwrap_err().missing());
        netlink.neighbour_delete(left, far).unwrap();
        assert!(netlink.neighbour_delete(left, far).unwrap_err().missing());
        let far6: IpAddr = "fe80::7".parse().unwrap();
        let route6 = Route {
            destination: "2001:db8:10::/48".parse().unwrap(),
            device: left,
            via: Some(far6),
            source: None,
        };
        netlink.route_delete(&route6).unwrap();
        assert!(netlink.route_delete(&route6).unwrap_err().missing());
        netlink.neighbour_delete(left, far6).unwrap();
        assert!(netlink.neighbour_delete(left, far6).unwrap_err().missing());
        let address6: Ipv6Net = "2001:db8:9::1/64".parse().unwrap();
        netlink.address_delete(left, address6).unwrap();
        assert!(
            netlink
                .address_delete(left, address6)
                .unwrap_err()
                .missing()
        );
        let address: Ipv4Net = "10.9.0.1/24".parse().unwrap();
        netlink.address_delete(left, address).unwrap();
        assert!(netlink.address_delete(left, address).unwrap_err().missing());
        assert_eq!(netlink.addresses(left).unwrap(), []);
        // One end goes to the client's namespace, and the pair with the other end.
        let v1 = netlink.link("v1").unwrap().unwrap();
        netlink.move_to(v1.index, other.as_fd()).unwrap();
        assert_eq!(netlink.link("v1").unwrap(), None);
    });
    assert!(client.interfaces().unwrap().contains(&"v1".to_owned()));
    inside(&server, move || {
        let mut netlink = Netlink::open().unwrap();
        let names: Vec<_> = netlink
            .links()
            .unwrap()
            .into_iter()
            .map(|l| l.name)
            .collect();
        assert!(names.contains(&"v2".to_owned()) && names.contains(&"lo".to_owned()));
        netlink.link_delete(left).unwrap();
        assert!(netlink.link_delete(left).unwrap_err().missing());
        assert_eq!(netlink.link_at(left).unwrap(), None);
    });
    assert!(!client.interfaces().unwrap().contains(&"v1".to_owned()));
}
