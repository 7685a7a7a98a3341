//! The XDP program on crafted packets, by the kernel's own test-run: which verdict each kind of packet gets; and on a
//! veth pair: what it leaves to Linux gets there, and whole.
//!
//! In a test-run no socket is in the map, so what is meant for one falls back to Linux: the verdict counters tell, not
//! the action.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test: what cannot go on must not go on, and a skip must be loud"
)]

mod packets;

use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, Pod};
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{Batch, Device};
use turnpike_dataplane::netdev::Netlink;
use turnpike_dataplane::ports::raw::GreSocket;
use turnpike_dataplane::ports::{HostConfig, ModeChoice, Nic, Ports, PortsConfig};
use turnpike_dataplane::xsk::{Binding, Sizes, Xsk};
use turnpike_ebpf::{self as shared, Verdict};
use xtask::lab::netns::Lab;

use packets::{ethernet, gre, ipv4, ipv6, to_us};

const US: [u8; 4] = [10, 7, 0, 1];
const CLIENT: [u8; 4] = [10, 7, 0, 2];
const POOL: [u8; 4] = [10, 20, 0, 0];
const IN_POOL: [u8; 4] = [10, 20, 3, 4];
/// 2001:db8:1::/48, and an address in it.
const POOL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const IN_POOL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9];
const XDP_PASS: u32 = 2;
/// The loopback device: where a test-run's packets come from.
const LOOPBACK: u32 = 1;

struct Program {
    ebpf: Ebpf,
}

impl Program {
    /// Loaded, with `roles` on the test-run's port; `None` (said aloud) without the rights to load it.
    fn load(roles: u32) -> Option<Self> {
        let mut ebpf = match Ebpf::load(shared::OBJECT) {
            Ok(ebpf) => ebpf,
            Err(error) => {
                assert!(
                    !running_as_root(),
                    "the kernel refused the program: {error:?}"
                );
                eprintln!("SKIPPED: loading an XDP program needs root: {error}");
                return None;
            }
        };
        let program: &mut Xdp = ebpf
            .program_mut(shared::PROGRAM)
            .unwrap()
            .try_into()
            .unwrap();
        program.load().expect("the verifier takes the program");
        let mut this = Self { ebpf };
        let port = shared::Port {
            roles,
            gre_sockets: 0,
            pool_sockets: shared::MAX_QUEUES,
            mac: [2, 0, 0, 0, 0, 1, 0, 0],
        };
        this.hash::<u32, [u32; 5]>(shared::PORTS)
            .insert(LOOPBACK, <[u32; 5]>::from(port), 0)
            .unwrap();
        this.hash::<[u8; 4], u32>(shared::LOCAL)
            .insert(US, 1, 0)
            .unwrap();
        let mut pool: LpmTrie<_, [u8; 4], u32> =
            LpmTrie::try_from(this.ebpf.map_mut(shared::POOL).unwrap()).unwrap();
        pool.insert(&Key::new(16, POOL), 1, 0).unwrap();
        let mut pool: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(this.ebpf.map_mut(shared::POOL6).unwrap()).unwrap();
        pool.insert(&Key::new(48, POOL6), 1, 0).unwrap();
        Some(this)
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut aya::maps::MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// Counts of all verdicts, over all CPUs.
    fn counts(&self) -> Vec<u64> {
        let map: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map(shared::VERDICTS).unwrap()).unwrap();
        (0..Verdict::ALL.len())
            .map(|index| map.get(&(index as u32), 0).unwrap().iter().sum())
            .collect()
    }

    /// Runs one packet: the action, and the verdicts that were counted for it.
    fn run(&self, packet: &[u8]) -> (u32, Vec<Verdict>) {
        let before = self.counts();
        let program: &Xdp = self
            .ebpf
            .program(shared::PROGRAM)
            .unwrap()
            .try_into()
            .unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(packet),
                ..TestRunOptions::new()
            })
            .expect("test-run");
        let verdicts = Verdict::ALL
            .iter()
            .zip(self.counts().iter().zip(before))
            .flat_map(|(verdict, (after, before))| {
                std::iter::repeat_n(*verdict, (after - before) as usize)
            })
            .collect();
        (result.return_value, verdicts)
    }

    /// The packet is left to Linux, under this verdict alone.
    fn passes(&self, packet: &[u8], verdict: Verdict) {
        assert_eq!(
            self.run(packet),
            (XDP_PASS, vec![verdict]),
            "{}",
            verdict.name()
        );
    }

    /// The packet is meant for a socket.
    fn redirects(&self, packet: &[u8], verdict: Verdict) {
        assert_eq!(
            self.run(packet),
            (XDP_PASS, vec![verdict, Verdict::NoSocket]),
            "{}",
            verdict.name()
        );
    }
}

fn running_as_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[test]
fn whole_gre_to_us_goes_to_a_socket() {
    let Some(program) = Program::load(shared::ROLE_ACCESS) else {
        return;
    };
    program.redirects(&to_us(&gre()), Verdict::Gre);
    // Sequence and acknowledgement; acknowledgement alone; don't-fragment set; padding of a short Ethernet frame.
    let mut both = gre();
    both[1] = 0x81;
    both.splice(12..12, [0, 0, 0, 7]);
    program.redirects(&to_us(&both), Verdict::Gre);
    let ack = [0x20, 0x81, 0x88, 0x0b, 0, 0, 0x12, 0x34, 0, 0, 0, 9];
    let mut padded = to_us(&ack);
    padded.resize(60, 0);
    program.redirects(&padded, Verdict::Gre);
    program.redirects(
        &ethernet(&[], [8, 0], &ipv4(47, US, [0x40, 0], &[], &gre())),
        Verdict::Gre,
    );
}

#[test]
fn tags_options_and_fragments_go_to_linux_each_under_its_own_counter() {
    let Some(program) = Program::load(shared::ROLE_ACCESS) else {
        return;
    };
    let whole = ipv4(47, US, [0, 0], &[], &gre());
    program.passes(&ethernet(&[[0x81, 0, 0, 5]], [8, 0], &whole), Verdict::Vlan);
    program.passes(
        &ethernet(&[[0x88, 0xa8, 0, 5]], [8, 0], &whole),
        Verdict::Vlan,
    );
    program.passes(
        &ethernet(&[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 5]], [8, 0], &whole),
        Verdict::QinQ,
    );
    program.passes(
        &ethernet(&[[0x81, 0, 0, 7], [0x81, 0, 0, 5]], [8, 0], &whole),
        Verdict::QinQ,
    );
    let options = ipv4(47, US, [0, 0], &[1, 1, 1, 0], &gre());
    program.passes(&ethernet(&[], [8, 0], &options), Verdict::GreOptions);
    let first = ipv4(47, US, [0x20, 0], &[], &gre());
    program.passes(&ethernet(&[], [8, 0], &first), Verdict::GreFragment);
    let last = ipv4(47, US, [0, 185], &[], &gre());
    program.passes(&ethernet(&[], [8, 0], &last), Verdict::GreFragment);
}

#[test]
fn what_is_not_ours_goes_to_linux_each_under_its_own_counter() {
    let Some(program) = Program::load(shared::ROLE_ACCESS) else {
        return;
    };
    let change = |at: usize, octet: u8| {
        let mut packet = gre();
        packet[at] = octet;
        to_us(&packet)
    };
    program.passes(&change(1, 0x00), Verdict::GreVersion);
    program.passes(&change(1, 0x02), Verdict::GreVersion);
    program.passes(&change(3, 0x00), Verdict::GreProtocol);
    for flags in [0xb0, 0x70, 0x38, 0x31, 0x10] {
        program.passes(&change(0, flags), Verdict::GreFlags);
    }
    program.passes(&change(1, 0x09), Verdict::GreFlags);
    let foreign = ipv4(47, [10, 7, 0, 9], [0, 0], &[], &gre());
    program.passes(&ethernet(&[], [8, 0], &foreign), Verdict::GreForeign);
    let tcp = ipv4(6, US, [0, 0], &[], &[0; 20]);
    program.passes(&ethernet(&[], [8, 0], &tcp), Verdict::Other);
    program.passes(&ethernet(&[], [8, 6], &[0; 28]), Verdict::NotIp);
    program.passes(&ipv6(IN_POOL6, &[0; 8]), Verdict::Other6);
    let mut elsewhere = to_us(&gre());
    elsewhere[5] = 9;
    program.passes(&elsewhere, Verdict::OtherMac);
    // A pool's packets are taken only where the port has that role.
    let pool = ipv4(17, IN_POOL, [0, 0], &[], &[0; 8]);
    program.passes(&ethernet(&[], [8, 0], &pool), Verdict::Other);
}

#[test]
fn every_cut_of_a_packet_goes_to_linux() {
    let Some(program) = Program::load(shared::ROLE_ACCESS) else {
        return;
    };
    let whole = to_us(&gre());
    // The kernel's test-run takes no frame shorter than an Ethernet header.
    for len in 14..whole.len() {
        program.passes(&whole[..len], Verdict::ShortFrame);
    }
    // The IP header says so itself: GRE headers cut within the datagram.
    for len in 0..12 {
        program.passes(&to_us(&gre()[..len]), Verdict::GreShort);
    }
    let mut both = gre();
    both[1] = 0x81;
    program.passes(&to_us(&both[..15]), Verdict::GreShort);
}

#[test]
fn pool_traffic_goes_to_a_socket_where_the_port_has_that_role() {
    let Some(program) = Program::load(shared::ROLE_POOL) else {
        return;
    };
    let packet = |destination, fragment, options: &[u8]| {
        ethernet(
            &[],
            [8, 0],
            &ipv4(17, destination, fragment, options, &[0; 8]),
        )
    };
    program.redirects(&packet(IN_POOL, [0, 0], &[]), Verdict::Pool);
    // Inner fragments and options are ordinary packets for a worker.
    program.redirects(&packet(IN_POOL, [0x20, 0], &[]), Verdict::Pool);
    program.redirects(&packet(IN_POOL, [0, 0], &[1, 1, 1, 0]), Verdict::Pool);
    program.passes(&packet([10, 21, 0, 1], [0, 0], &[]), Verdict::Other);
    // GRE to us belongs to access ports alone; GRE of a client inside the pool is pool traffic.
    program.passes(&to_us(&gre()), Verdict::Other);
    program.redirects(
        &ethernet(&[], [8, 0], &ipv4(47, IN_POOL, [0, 0], &[], &gre())),
        Verdict::Pool,
    );
}

#[test]
fn ipv6_for_the_pools_goes_to_a_socket_where_the_port_has_that_role() {
    let Some(program) = Program::load(shared::ROLE_POOL) else {
        return;
    };
    let whole = ipv6(IN_POOL6, &[0; 8]);
    program.redirects(&whole, Verdict::Pool6);
    program.redirects(&ipv6(IN_POOL6, &[]), Verdict::Pool6);
    program.redirects(&ipv6(IN_POOL6, &[0; 1400]), Verdict::Pool6);
    let mut padded = whole.clone();
    padded.resize(100, 0);
    program.redirects(&padded, Verdict::Pool6);
    // Every bit of the prefix counts, and none behind it.
    for bit in 0..128 {
        let mut address = IN_POOL6;
        address[bit / 8] ^= 0x80 >> (bit % 8);
        let packet = ipv6(address, &[0; 8]);
        if bit < 48 {
            program.passes(&packet, Verdict::Other6);
        } else {
            program.redirects(&packet, Verdict::Pool6);
        }
    }
    // Neighbour discovery is for Linux: to groups, and to its own addresses.
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 9];
    let mut solicitation = ipv6(group, &[0; 24]);
    solicitation[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 9]);
    program.passes(&solicitation, Verdict::OtherMac);
    let mut link_local = [0; 16];
    (link_local[0], link_local[1], link_local[15]) = (0xfe, 0x80, 1);
    program.passes(&ipv6(link_local, &[0; 24]), Verdict::Other6);
    let mut elsewhere = whole.clone();
    elsewhere[5] = 9;
    program.passes(&elsewhere, Verdict::OtherMac);
    // Cut anywhere, of another version, or longer than it is.
    for len in 14..whole.len() {
        program.passes(&whole[..len], Verdict::ShortFrame);
    }
    for (at, octet) in [(14, 0x45), (19, 9), (18, 1)] {
        let mut packet = whole.clone();
        packet[at] = octet;
        program.passes(&packet, Verdict::ShortFrame);
    }
    // With a tag it is Linux', as all is.
    let tagged = ethernet(&[[0x81, 0, 0, 5]], [0x86, 0xdd], &whole[14..]);
    program.passes(&tagged, Verdict::Vlan);
}

#[test]
fn one_nic_can_have_both_roles() {
    let Some(program) = Program::load(shared::ROLE_ACCESS | shared::ROLE_POOL) else {
        return;
    };
    program.redirects(&to_us(&gre()), Verdict::Gre);
    program.redirects(&ipv6(IN_POOL6, &[0; 8]), Verdict::Pool6);
    program.redirects(
        &ethernet(&[], [8, 0], &ipv4(47, IN_POOL, [0, 0], &[], &gre())),
        Verdict::Pool,
    );
    program.passes(
        &ethernet(&[], [8, 0], &ipv4(47, [1, 2, 3, 4], [0, 0], &[], &gre())),
        Verdict::GreForeign,
    );
}

#[test]
fn an_interface_that_is_no_port_is_left_alone() {
    let Some(mut program) = Program::load(shared::ROLE_ACCESS) else {
        return;
    };
    program
        .hash::<u32, [u32; 5]>(shared::PORTS)
        .remove(&LOOPBACK)
        .unwrap();
    program.passes(&to_us(&gre()), Verdict::UnknownPort);
}

/// GRE with a payload of this many octets.
fn long_gre(octets: u16) -> Vec<u8> {
    let mut packet = gre();
    packet[4..6].copy_from_slice(&octets.to_be_bytes());
    packet.truncate(12);
    packet.extend((0..octets).map(|n| n as u8));
    packet
}

/// Shorter than the kernel's smallest ring would be is of no use here.
const SIZES: Sizes = Sizes {
    ring: 256,
    worker: 64,
    held: 0,
    huge_pages: false,
    busy_poll: 0,
};

#[test]
fn what_is_left_to_linux_gets_there_in_native_mode() {
    what_is_left_to_linux_gets_there(ModeChoice::Native);
}

#[test]
fn what_is_left_to_linux_gets_there_in_generic_mode() {
    what_is_left_to_linux_gets_there(ModeChoice::Generic);
}

fn what_is_left_to_linux_gets_there(mode: ModeChoice) {
    if !running_as_root() {
        eprintln!("SKIPPED: network namespaces and AF_XDP need root");
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.namespace("client").unwrap();
    let server = lab.namespace("server").unwrap();
    server.veth("s0", &client, "c0", 1).unwrap();
    server.ip("addr add 10.7.0.1/24 dev s0").unwrap();
    // Answers must have somewhere to go, or their absence proves nothing.
    server
        .ip("neigh add 10.7.0.2 lladdr 02:00:00:00:00:02 dev s0 nud permanent")
        .unwrap();

    // Each with what Linux is to hand back of it: the same datagram, or for fragments the whole.
    let fragmented = long_gre(1500);
    let whole = ipv4(47, US, [0, 0], &[], &fragmented);
    let options = ipv4(47, US, [0, 0], &[1, 1, 1, 0], &gre());
    let change = |at: usize, octet: u8| {
        let mut packet = gre();
        packet[at] = octet;
        ipv4(47, US, [0, 0], &[], &packet)
    };
    let strange = [
        change(1, 0),
        change(3, 0),
        change(0, 0xb0),
        ipv4(47, US, [0, 0], &[], &gre()[..10]),
    ];
    let tagged = ipv4(47, US, [0, 0], &[], &gre());
    let mut frames = vec![
        ethernet(&[[0x81, 0, 0, 5]], [8, 0], &tagged),
        ethernet(&[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 5]], [8, 0], &tagged),
        ethernet(&[], [8, 0], &options),
        // Last fragment first.
        ethernet(
            &[],
            [8, 0],
            &ipv4(47, US, [0, 100], &[], &fragmented[800..]),
        ),
        ethernet(
            &[],
            [8, 0],
            &ipv4(47, US, [0x20, 0], &[], &fragmented[..800]),
        ),
    ];
    frames.extend(strange.iter().map(|packet| ethernet(&[], [8, 0], packet)));
    frames.push(to_us(&gre()));
    let mut expected = vec![options, whole];
    expected.extend(strange);

    // What Linux sees on the device after XDP.
    let mut watch = server
        .start(
            "tcpdump",
            server
                .command("tcpdump")
                .args(["--immediate-mode", "-e", "-l", "-n", "-i", "s0"]),
        )
        .unwrap();
    watch
        .wait_for_line(Duration::from_secs(10), |line| line.contains("listening"))
        .unwrap();

    let (opened, is_open) = channel();
    let (sent, all_sent) = channel();
    let serving = server
        .enter(move || {
            let raw = GreSocket::open().unwrap();
            let (mut ports, mut xsks) = Ports::open(&PortsConfig {
                access: Nic {
                    interface: "s0".into(),
                    mode,
                },
                uplink: None,
                host: HostConfig {
                    interface: "turnpike0".into(),
                    mtu: 1500,
                    addresses: Vec::new(),
                },
                workers: 1,
                sizes: SIZES,
            })
            .unwrap();
            ports.local_add(US.into()).unwrap();
            opened.send(ports.info(Port::Access).unwrap().mac).unwrap();
            all_sent.recv().unwrap();
            let mut got = Vec::new();
            let mut buffer = [0; 2048];
            let end = Instant::now() + Duration::from_secs(3);
            // A little longer than needed, for what should not come.
            while Instant::now() < end && got.len() <= 6 {
                match raw.receive(&mut buffer) {
                    Ok(len) => got.push(buffer[..len].to_vec()),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(10));
                        if got.len() == 6 {
                            break;
                        }
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            let mut batch = Batch::new();
            xsks[0].receive(Port::Access, &mut batch);
            let taken: Vec<_> = batch
                .drain(..)
                .map(|mut frame| {
                    let bytes = xsks[0].bytes(&mut frame)[14..].to_vec();
                    xsks[0].release(frame);
                    bytes
                })
                .collect();
            (got, taken, ports.verdicts().unwrap())
        })
        .unwrap();
    let mac = is_open.recv().unwrap();
    client
        .enter(move || {
            let device = Netlink::open().unwrap().link("c0").unwrap().unwrap().index;
            let binding = Binding {
                port: Port::Access,
                device,
                queue: 0,
            };
            // A socket without a program sends frames as they are, tags and all.
            let mut wire = Xsk::open(&[binding], &SIZES).unwrap();
            for bytes in frames {
                let mut frame = wire.allocate(Port::Access).unwrap();
                assert!(frame.set_len(bytes.len()));
                let place = wire.bytes(&mut frame);
                place.copy_from_slice(&bytes);
                place[..6].copy_from_slice(&mac.0);
                wire.transmit(Port::Access, frame).unwrap();
            }
            wire.flush();
        })
        .unwrap()
        .join()
        .unwrap();
    sent.send(()).unwrap();
    let (got, taken, verdicts) = serving.join().unwrap();

    // All of it came back, and nothing of what AF_XDP took.
    let mut got: Vec<Vec<u8>> = got
        .into_iter()
        .map(|mut datagram| {
            // Reassembly makes the header anew.
            datagram[10..12].copy_from_slice(&[0, 0]);
            datagram
        })
        .collect();
    for datagram in &mut expected {
        datagram[10..12].copy_from_slice(&[0, 0]);
    }
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    assert_eq!(taken, [tagged]);
    let count = |verdict: Verdict| {
        let found = verdicts.iter().find(|(name, _)| *name == verdict.name());
        found.unwrap().1
    };
    for (verdict, packets) in [
        (Verdict::Gre, 1),
        (Verdict::NoSocket, 0),
        (Verdict::Vlan, 1),
        (Verdict::QinQ, 1),
        (Verdict::GreOptions, 1),
        (Verdict::GreFragment, 2),
        (Verdict::GreVersion, 1),
        (Verdict::GreProtocol, 1),
        (Verdict::GreFlags, 1),
        (Verdict::GreShort, 1),
    ] {
        assert_eq!(count(verdict), packets, "{}", verdict.name());
    }
    // Tagged frames are on the device with their tags (no VLAN device takes them here).
    watch
        .wait_for_line(Duration::from_secs(5), |line| {
            line.contains("802.1Q-QinQ") && line.contains("vlan 7") && line.contains("vlan 5")
        })
        .unwrap();
    watch
        .wait_for_line(Duration::from_secs(5), |line| {
            line.contains("ethertype 802.1Q (0x8100)") && line.contains("vlan 5")
        })
        .unwrap();
    // While the raw socket was open nobody was told that we know no GRE.
    let snmp = server.run("cat /proc/net/snmp").unwrap();
    let mut icmp = snmp.lines().filter(|line| line.starts_with("Icmp: "));
    let (names, values) = (icmp.next().unwrap(), icmp.next().unwrap());
    let column = names
        .split(' ')
        .position(|name| name == "OutDestUnreachs")
        .unwrap();
    assert_eq!(values.split(' ').nth(column), Some("0"));
}
