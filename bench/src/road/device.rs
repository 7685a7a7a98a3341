//! The device under test: AF_XDP ports, and who serves them: a bare loop, or turnpike's worker.

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use ipnet::Ipv4Net;
use turnpike_dataplane::api::{
    CallRef, Command, Datagram, Direction, Encryption, Forward, FrameBytes, MAX_DATAGRAM, Owners,
    Port, SourceCheck, WorkerId,
};
use turnpike_dataplane::counters::Counters;
use turnpike_dataplane::device::{Batch, Device as _, Frame};
use turnpike_dataplane::ports::{HostConfig, ModeChoice, Nic, Ports, PortsConfig};
use turnpike_dataplane::rings::{ControlEnd, RingSizes, channel};
use turnpike_dataplane::thread;
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::gre::AckSettings;
use turnpike_protocol::mppe::Mode;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::{CallId, Role};

use super::packets::{self, ADDED, Case, Macs, Way, Work};

/// How long a worker may take to carry out commands.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ports, and their sockets while nobody serves them.
pub(super) struct Bench {
    ports: Ports,
    idle: Option<Xsk>,
    cpu: usize,
}

/// Who serves them.
pub(super) enum Serving {
    /// A bare loop.
    Loop(Option<JoinHandle<Xsk>>, std::sync::Arc<AtomicBool>),
    /// turnpike's worker.
    Worker(Option<JoinHandle<Xsk>>, Box<ControlEnd>),
}

impl Bench {
    /// Opens the ports as a server with one worker does.
    pub(super) fn open(access: &str, uplink: &str, cpu: usize) -> anyhow::Result<Self> {
        let nic = |interface: &str| Nic {
            interface: interface.to_owned(),
            mode: ModeChoice::Auto,
        };
        let config = PortsConfig {
            access: nic(access),
            uplink: Some(nic(uplink)),
            host: HostConfig {
                interface: "road0".to_owned(),
                mtu: 1400,
                addresses: Vec::new(),
            },
            workers: 1,
            sizes: Sizes::default(),
        };
        let (mut ports, mut sockets) = Ports::open(&config)?;
        ports.local_add(packets::SERVER)?;
        ports.steer_add(pool()?)?;
        Ok(Self {
            ports,
            idle: sockets.pop(),
            cpu,
        })
    }

    /// Where XDP runs on both.
    pub(super) fn modes(&self) -> String {
        let modes = self.ports.modes();
        let text: Vec<String> = modes
            .iter()
            .filter(|port| port.port != Port::Host)
            .map(|port| format!("{} {}", port.interface, port.mode))
            .collect();
        text.join(", ")
    }

    /// Puts the bare loop, or the worker with its calls, to work on packets of this case.
    pub(super) fn serve(&mut self, case: &Case) -> anyhow::Result<Serving> {
        let device = self.idle.take().context("the ports are in use")?;
        match case.work {
            Work::Tunnel { encrypted } => self.start_worker(device, case, encrypted),
            _ => Ok(self.start_loop(device, case)),
        }
    }

    /// The ports are free again afterwards. What the worker counted, if there was one.
    pub(super) fn stop(
        &mut self,
        mut serving: Serving,
    ) -> anyhow::Result<Option<std::sync::Arc<Counters>>> {
        self.idle = Some(serving.end()?);
        Ok(match &serving {
            Serving::Loop(..) => None,
            Serving::Worker(_, control) => Some(control.counters.clone()),
        })
    }

    fn start_loop(&self, device: Xsk, case: &Case) -> Serving {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (told, cpu) = (stop.clone(), self.cpu);
        let (way, macs) = (case.way, case.macs);
        let work = case.work;
        let thread = std::thread::spawn(move || {
            // Were it not pinned, the figures would show it.
            let _ = thread::pin(cpu);
            forward(device, way, work, &macs, &told)
        });
        Serving::Loop(Some(thread), stop)
    }

    fn start_worker(&self, device: Xsk, case: &Case, encrypted: bool) -> anyhow::Result<Serving> {
        let (mut control, end) = channel(&RingSizes::default())?;
        let calls = usize::from(case.calls);
        let config = WorkerConfig {
            id: WorkerId(0),
            role: Role::Server,
            owners: Owners::round_robin(1),
            source_check: SourceCheck::Strict,
            calls,
            routes: calls,
            routes6: 0,
            ports: Port::ALL.map(|port| self.ports.info(port)),
            host_peer_mac: self.ports.host_peer_mac(),
            server_address: Some(Ipv4Addr::new(10, 64, 255, 254)),
            server_address6: None,
            acks: AckSettings::default(),
            reordering: Reordering::default(),
        };
        let worker = Worker::new(config, device, end);
        let thread = thread::spawn(worker, Some(self.cpu), Instant::now())?;
        let told = tell_calls(&mut control, case, encrypted);
        let mut serving = Serving::Worker(Some(thread), Box::new(control));
        if let Err(error) = told {
            // The worker must not be left with the ports.
            let _ = serving.end();
            return Err(error);
        }
        Ok(serving)
    }
}

impl Serving {
    fn end(&mut self) -> anyhow::Result<Xsk> {
        let thread = match self {
            Self::Loop(thread, stop) => {
                stop.store(true, Ordering::Relaxed);
                thread.take()
            }
            Self::Worker(thread, control) => {
                tell(control, Command::Stop)?;
                thread.take()
            }
        };
        thread
            .context("it has ended already")?
            .join()
            .map_err(|_| anyhow!("whoever served the ports panicked"))
    }
}

/// The pool.
pub(super) fn pool() -> anyhow::Result<Ipv4Net> {
    Ok(packets::POOL.parse()?)
}

/// The header that the loop puts in front: as long as a tunnel's, and a frame that is none of anybody's.
pub(super) fn tag(macs: &Macs) -> [u8; ADDED] {
    core::array::from_fn(|at| macs.client.0[at % 6].wrapping_add(at as u8))
}

/// The bare loop: what comes at one port leaves by the other.
fn forward(mut device: Xsk, way: Way, work: Work, macs: &Macs, stop: &AtomicBool) -> Xsk {
    let (from, to, source, destination) = match way {
        Way::Up => (Port::Access, Port::Uplink, macs.uplink, macs.network),
        Way::Down => (Port::Uplink, Port::Access, macs.access, macs.client),
    };
    let link = |source: MacAddr, destination: MacAddr| {
        let header = ethernet::Header {
            destination,
            source,
            ethertype: ethernet::IPV4,
        };
        header.to_bytes()
    };
    let link = link(source, destination);
    let header = (work == Work::Header).then(|| tag(macs));
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        device.receive(from, &mut batch);
        for mut frame in batch.drain(..) {
            if work == Work::Copy {
                frame = match copied(&mut device, frame, to) {
                    Some(frame) => frame,
                    None => continue,
                };
            }
            if let Some(header) = &header {
                if !frame.grow_front(ADDED) {
                    device.release(frame);
                    continue;
                }
                let bytes = device.bytes(&mut frame);
                bytes[link.len()..link.len() + ADDED].copy_from_slice(header);
            }
            device.bytes(&mut frame)[..link.len()].copy_from_slice(&link);
            // What does not fit the ring is lost, and missed where packets are counted.
            let _ = device.transmit(to, frame);
        }
        device.flush();
    }
    device
}

/// The same frame in another place, as a device copies what goes from one memory to another.
fn copied(device: &mut Xsk, frame: Frame, to: Port) -> Option<Frame> {
    let copy = device.allocate(to);
    let copy = copy.and_then(|mut copy| {
        if copy.set_len(frame.len()) {
            for (to, from) in device.lend(&copy).iter().zip(device.lend(&frame)) {
                to.set(from.get());
            }
            Some(copy)
        } else {
            device.release(copy);
            None
        }
    });
    device.release(frame);
    copy
}

fn tell(control: &mut ControlEnd, command: Command) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut waiting = command;
    loop {
        // Nobody wants to know what it says.
        while control.events.pop().is_ok() {}
        match control.commands.push(waiting) {
            Ok(()) => return Ok(()),
            Err(full) => waiting = full.0,
        }
        anyhow::ensure!(Instant::now() < end, "the worker carries out no commands");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Opens all calls as a control plane does, and waits until that has been done.
fn tell_calls(control: &mut ControlEnd, case: &Case, encrypted: bool) -> anyhow::Result<()> {
    let macs = &case.macs;
    for (port, address, mac) in [
        (Port::Access, packets::CLIENT, macs.client),
        (Port::Uplink, packets::NEXT_HOP, macs.network),
    ] {
        tell(
            control,
            Command::Neighbour {
                port,
                address,
                mac: Some(mac),
            },
        )?;
    }
    let via = Some(packets::NEXT_HOP);
    tell(control, Command::DefaultRoute { via })?;
    tell(control, Command::Pool { prefix: pool()? })?;
    for call in 0..case.calls {
        let address = packets::inner_address(call);
        let id = CallId(call + 1);
        let call_ref = CallRef {
            local: packets::SERVER,
            peer: packets::CLIENT,
            id,
        };
        let open = Command::Open {
            call: call_ref,
            peer_id: id,
            via: packets::CLIENT,
            window: 64,
        };
        tell(control, open)?;
        if encrypted {
            for (direction, key, frame) in [
                (Direction::Receive, packets::key_from(call), 1),
                (Direction::Transmit, packets::key_to(call), 2),
            ] {
                let mode = Mode::Stateless;
                let secure = Command::Secure {
                    call: call_ref,
                    direction,
                    identifier: 1,
                    key,
                    mode,
                };
                tell(control, secure)?;
                let frame = ccp(frame).context("a frame that is too long")?;
                let send = Command::Send {
                    call: call_ref,
                    frame,
                };
                tell(control, send)?;
            }
        }
        if encrypted && case.way == Way::Down {
            // The client's acknowledgement starts our receiving; nothing else comes from there.
            acknowledge(control, id)?;
        }
        let route = Command::Route {
            prefix: address.into(),
            call: call_ref,
        };
        tell(control, route)?;
        let forward = Forward {
            address,
            compress_address: true,
            compress_protocol: true,
            mtu: *packets::SIZES.end(),
            encryption: if encrypted {
                Encryption::Required
            } else {
                Encryption::Plain
            },
        };
        let call = call_ref;
        tell(control, Command::Forward { call, forward })?;
    }
    let end = Instant::now() + PATIENCE;
    while control.commands.room() < RingSizes::default().commands {
        anyhow::ensure!(Instant::now() < end, "the worker carries out no commands");
        while control.events.pop().is_ok() {}
        std::thread::sleep(Duration::from_millis(1));
    }
    // The last one may be under way, and acknowledgements go with data if there is any soon.
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// Gives the worker a client's Configure-Ack for the request number 1, by the way that reassembled datagrams take.
fn acknowledge(control: &mut ControlEnd, id: CallId) -> anyhow::Result<()> {
    let frame = ccp(2).context("a frame that is too long")?;
    let fragments = packets::Fragments::default();
    let packet = packets::tunnel(packets::CLIENT, packets::SERVER, id, 0, fragments, &frame);
    let end = Instant::now() + PATIENCE;
    loop {
        let mut datagram = Datagram {
            len: packet.len() as u16,
            bytes: [0; MAX_DATAGRAM],
        };
        datagram.bytes[..packet.len()].copy_from_slice(&packet);
        if control.datagrams.push(datagram) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "the worker takes no datagrams");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// CCP with MPPE's option for 128 bits, stateless (RFC 3078 §2.1): Configure-Request (1) or Configure-Ack (2) number 1.
fn ccp(code: u8) -> Option<FrameBytes> {
    FrameBytes::new(&[0xff, 0x03, 0x80, 0xfd, code, 1, 0, 10, 18, 6, 1, 0, 0, 0x40])
}
