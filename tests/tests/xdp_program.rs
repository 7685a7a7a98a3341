//! The XDP program on crafted packets, by the kernel's own test-run: which verdict each kind of packet gets.
//!
//! No socket is in the map, so what is meant for one falls back to Linux: the verdict counters tell, not the action.

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, Pod};
use turnpike_ebpf::{self as shared, Verdict};

const US: [u8; 4] = [10, 7, 0, 1];
const CLIENT: [u8; 4] = [10, 7, 0, 2];
const POOL: [u8; 4] = [10, 20, 0, 0];
const IN_POOL: [u8; 4] = [10, 20, 3, 4];
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

fn ethernet(tags: &[[u8; 4]], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(tags.iter().flatten());
    frame.extend(ethertype);
    frame.extend(payload);
    frame
}

fn ipv4(
    protocol: u8,
    destination: [u8; 4],
    fragment: [u8; 2],
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x40 | (header / 4) as u8, 0, total[0], total[1], 0, 1];
    packet.extend(fragment);
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT);
    packet.extend(destination);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// LCP in GRE v1 with a sequence number.
fn gre() -> Vec<u8> {
    let mut packet = vec![0x30, 0x01, 0x88, 0x0b, 0, 12, 0x12, 0x34, 0, 0, 0, 0];
    packet.extend([0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0x11, 0x22, 0x33, 0x44]);
    packet
}

fn to_us(gre: &[u8]) -> Vec<u8> {
    ethernet(&[], [8, 0], &ipv4(47, US, [0, 0], &[], gre))
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
    program.passes(&ethernet(&[], [8, 6], &[0; 28]), Verdict::NotIpv4);
    program.passes(&ethernet(&[], [0x86, 0xdd], &[0x60; 40]), Verdict::NotIpv4);
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
fn one_nic_can_have_both_roles() {
    let Some(program) = Program::load(shared::ROLE_ACCESS | shared::ROLE_POOL) else {
        return;
    };
    program.redirects(&to_us(&gre()), Verdict::Gre);
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
