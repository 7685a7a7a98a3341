//! The loop: tasks, signals, timers, the worker's bell.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use turnpike_dataplane::api::{Command, Owners, Port, SourceCheck, WorkerId};
use turnpike_dataplane::ports::{HostConfig, Nic, Ports, PortsConfig};
use turnpike_dataplane::rings::{ControlEnd, RingSizes, channel};
use turnpike_dataplane::thread;
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::Role;
use turnpike_protocol::gre::AckSettings;

use super::client::Client;
use super::report::{FaultReport, Line, Report, TrafficLine, WorkerReport};
use super::{Dial, password, resolve};
use crate::faults::{Books, Faulty};
use crate::traffic::{self, Count, Flow};
use crate::wake::watch;

/// How long everything may take to end after it was asked to.
const HANG_UP_LIMIT: Duration = Duration::from_secs(12);

/// How often Linux is asked for the neighbour on the way to the server.
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(1);

/// The worker goes on for so long after the last call, so that nothing is on its way when counters are read.
const SETTLE: Duration = Duration::from_millis(100);

/// How long to wait for the last echoes of the traffic.
const GRACE: Duration = Duration::from_secs(3);

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All calls came up and stayed until we hung up.
    AllGood,
    /// Some call failed.
    SomeFailed,
}

/// Runs until hung up.
pub(super) async fn run(options: &Dial) -> anyhow::Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut outage = signal(SignalKind::user_defined1())?;
    let server = resolve(&options.server, options.port).await?;
    let origin = Instant::now();
    let (mut ports, xsk) = open_ports(options)?;
    // Everything that Linux puts into the host port is for a call, or dropped under a name.
    ports.steer_add(ipnet::Ipv4Net::default())?;
    if options.ipv6 {
        anyhow::ensure!(
            options.calls == 1,
            "--ipv6 is for one call: the prefix says which call a packet is for, and only Linux hears of it"
        );
        ports.steer_add(ipnet::Ipv6Net::default())?;
    }
    let (control, thread, books) = start_worker(options, &ports, xsk, origin)?;
    let control_wake = watch(control.wake.clone())?;
    let (messages, mut inbox) = unbounded_channel();
    let mut client = Client::new(
        options,
        server,
        &password(
            options.password.as_deref(),
            options.password_file.as_deref(),
        )?,
        origin,
        control,
        ports,
        progress(options),
        messages,
    )?;

    let mut starts = tokio::time::interval(
        Duration::from_secs_f64(1.0 / options.rate).max(Duration::from_micros(100)),
    );
    let mut neighbours = tokio::time::interval(NEIGHBOUR_INTERVAL);
    let mut next_start = 0;
    let mut flows = JoinSet::new();
    let mut traffic: Option<TrafficLine> = None;
    let mut held_until: Option<tokio::time::Instant> = None;
    let mut give_up: Option<tokio::time::Instant> = None;
    loop {
        client.drain();
        if client.is_over() {
            break;
        }
        // Everybody has come up or failed: the time to hold begins, and the traffic.
        if !client.hanging_up && held_until.is_none() && client.is_settled() {
            client.progress.finish_and_clear();
            if client.up().next().is_none() {
                // Nobody is up: nothing to hold.
                client.hang_up();
                continue;
            }
            if options.traffic.is_some() && traffic.is_none() {
                start_traffic(options, &client, &mut flows);
                traffic = Some(TrafficLine {
                    total: Count::default(),
                    calls: BTreeMap::new(),
                    errors: BTreeMap::new(),
                });
            }
            if let (Some(hold), None) = (options.hold, held_until) {
                held_until = Some(tokio::time::Instant::now() + hold);
            }
        }
        if client.hanging_up && give_up.is_none() {
            give_up = Some(tokio::time::Instant::now() + HANG_UP_LIMIT);
        }
        let timer = client.next_deadline();
        tokio::select! {
            _ = interrupt.recv() => if !client.interrupted() { break },
            _ = terminate.recv() => if !client.interrupted() { break },
            _ = outage.recv() => if let Some(packets) = options.outage {
                books.begin_outage(packets);
            },
            Some(message) = inbox.recv() => client.message(message),
            ready = control_wake.readable() => ready?.clear_ready(),
            () = until(timer) => client.timeouts(),
            () = until(held_until), if !client.hanging_up => client.hang_up(),
            () = until(give_up) => break,
            _ = starts.tick(), if next_start < client.connections.len() && !client.hanging_up => {
                client.connect(next_start);
                next_start += 1;
            }
            _ = neighbours.tick() => client.neighbour(),
            Some(done) = flows.join_next() => if let (Ok((id, result)), Some(line)) = (done, &mut traffic) {
                match result {
                    Ok(count) => {
                        line.total.add(&count);
                        line.calls.insert(id, count);
                    }
                    Err(error) => {
                        line.errors.insert(id, io::Error::to_string(&error));
                    }
                }
                if flows.is_empty() {
                    client.printer.line(&Line::Traffic(line));
                    if options.hold.is_none() {
                        client.hang_up();
                    }
                }
            },
        }
    }
    finish(client, thread, &books).await
}

fn open_ports(options: &Dial) -> anyhow::Result<(Ports, Xsk)> {
    let mut sizes = Sizes::default();
    if options.fault.is_some() || options.outage.is_some() {
        // What is held back must not starve the worker.
        sizes.worker += 1024;
    }
    let (ports, xsks) = Ports::open(&PortsConfig {
        access: Nic {
            interface: options.interface.clone(),
            mode: options.xdp.into(),
        },
        uplink: None,
        host: HostConfig {
            interface: options.host_interface.clone(),
            mtu: options.mtu,
            addresses: Vec::new(),
        },
        workers: 1,
        sizes,
    })?;
    let xsk = xsks
        .into_iter()
        .next()
        .context("the access interface has no queue")?;
    Ok((ports, xsk))
}

type Thread = JoinHandle<Faulty<Xsk>>;

fn start_worker(
    options: &Dial,
    ports: &Ports,
    xsk: Xsk,
    origin: Instant,
) -> anyhow::Result<(ControlEnd, Thread, Arc<Books>)> {
    let (control, end) = channel(&RingSizes::default())?;
    let calls = usize::from(options.calls);
    let config = WorkerConfig {
        id: WorkerId(0),
        role: Role::Client,
        owners: Owners::round_robin(1),
        calls,
        routes: calls,
        routes6: usize::from(options.ipv6),
        ports: Port::ALL.map(|port| ports.info(port)),
        host_peer_mac: ports.host_peer_mac(),
        server_address: None,
        server_address6: None,
        source_check: SourceCheck::Strict,
        acks: AckSettings::default(),
        reordering: Reordering {
            packets: options.reorder,
            ..Reordering::default()
        },
    };
    let device = Faulty::new(xsk, options.fault.unwrap_or_default());
    let books = device.books();
    let mut worker = Worker::new(config, device, end);
    if let Some(dialect) = options.resets {
        worker.assume(dialect.into());
    }
    Ok((control, thread::spawn(worker, options.cpu, origin)?, books))
}

fn progress(options: &Dial) -> ProgressBar {
    if options.calls == 1 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(options.calls.into());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} calls {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn start_traffic(
    options: &Dial,
    client: &Client<'_>,
    flows: &mut JoinSet<(u16, io::Result<Count>)>,
) {
    let (Some(rate), Some(target)) = (options.traffic, options.target) else {
        return;
    };
    let flow = Flow {
        rate,
        time: options.seconds,
        size: options.size,
        target,
        grace: GRACE,
    };
    for (id, address) in client.up() {
        flows.spawn(async move { (id, traffic::run(flow, address, id.into()).await) });
    }
}

/// Ends the worker and says everything.
async fn finish(mut client: Client<'_>, thread: Thread, books: &Books) -> anyhow::Result<Outcome> {
    // Goodbyes on TCP are on their way; what the injector holds back comes out.
    tokio::time::sleep(SETTLE).await;
    client.drain();
    let sockets = client.ports.statistics()?;
    let devices = client.ports.devices()?;
    let modes = client.ports.modes();
    let xdp = client.ports.verdicts()?.into_iter().collect();
    client.command(Command::Stop);
    while !client.waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.drain();
    }
    let stopped = tokio::task::spawn_blocking(move || thread.join()).await?;
    anyhow::ensure!(stopped.is_ok(), "the worker's thread ended badly");
    let calls = client.reports();
    let failed = calls.iter().filter(|call| call.failed).count();
    let report = Report {
        came_up: calls.iter().filter(|call| call.came_up).count(),
        failed,
        calls,
        worker: WorkerReport::new(&client.control.counters),
        faults: FaultReport::new(books),
        sockets,
        devices,
        modes,
        xdp,
    };
    client.printer.line(&Line::End(&report));
    Ok(if failed == 0 {
        Outcome::AllGood
    } else {
        Outcome::SomeFailed
    })
}
