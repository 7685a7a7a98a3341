//! The loop: calls come up, flows are verified, trials follow each other, and everybody hangs up.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use turnpike_dataplane::api::{Owners, Port, PortInfo, SourceCheck, WorkerId};
use turnpike_dataplane::counters::Reason;
use turnpike_dataplane::device::Device;
use turnpike_dataplane::rings::{ControlEnd, RingSizes, channel};
use turnpike_dataplane::thread;
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_protocol::Role;
use turnpike_protocol::gre::AckSettings;

use super::Flow;
use super::access::Access;
use super::calls::Calls;
use super::network::{self, Network};
use super::nic::Nic;
use super::plan::{Order, Script};
use super::raw::{self, RawGre, Troubles};
use super::report::{CallsReport, EndReport, Report};
use super::side::{Half, Side};
use super::trials::{Step, Trials};
use crate::dial::{FaultReport, Outcome, WorkerReport, password};
use crate::faults::{Books, Faulty};
use crate::report::Origin;
use crate::tcp;
use crate::wake::watch;

/// How long everything may take to end after it was asked to.
const HANG_UP_LIMIT: Duration = Duration::from_secs(12);

/// How often Linux is asked for the neighbour on the way to the server.
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(1);

/// How often the loop looks at what the ends do.
const TICK: Duration = Duration::from_millis(20);

/// The worker goes on for so long after the last call, so that goodbyes get out.
const SETTLE: Duration = Duration::from_millis(100);

/// What runs in threads of its own.
struct Ends {
    script: Arc<Script>,
    nic: Option<Nic>,
    control: ControlEnd,
    worker: JoinHandle<()>,
    network: Option<JoinHandle<()>>,
    books: Option<Arc<Books>>,
    access_troubles: Arc<Troubles>,
    network_troubles: Arc<Troubles>,
}

pub(super) async fn run(options: &Flow, from: Origin, server: Ipv4Addr) -> anyhow::Result<Outcome> {
    let printer = options.printing.open()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (halves, mut halves_inbox) = unbounded_channel();
    let (messages, mut inbox) = unbounded_channel();
    let origin = Instant::now();
    tcp::allow(options.calls.div_ceil(options.calls_per_connection).into());
    let ends = start(options, server, origin, halves)?;
    let control_wake = watch(ends.control.wake.clone())?;
    let secret = password(
        options.password.as_deref(),
        options.password_file.as_deref(),
    )?;
    let mut calls = Calls::new(
        options,
        server,
        ends.nic,
        &secret,
        origin,
        ends.control,
        messages,
    );
    let mut trials = Trials::new(options, origin, ends.script.clone());
    let mut setup = None;
    let mut trouble = None;
    let mut interrupted = false;
    let mut give_up: Option<tokio::time::Instant> = None;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut neighbours = tokio::time::interval(NEIGHBOUR_INTERVAL);
    let first = Instant::now();
    loop {
        calls.begin_what_is_due(first.elapsed());
        calls.drain();
        if setup.is_none() && calls.is_settled() {
            setup = Some(first.elapsed());
            if let Err(error) = trials.begin(&calls) {
                trouble = Some(error);
            }
        }
        trials.set_up(&calls);
        let dead = |end: &JoinHandle<()>| end.is_finished();
        if trouble.is_none() && (dead(&ends.worker) || ends.network.as_ref().is_some_and(dead)) {
            trouble = Some(anyhow::anyhow!("a thread ended badly"));
        }
        let over = setup.is_some() && trials.step()? == Step::Over;
        if (over || trouble.is_some() || interrupted) && calls.hang_up() {
            give_up = Some(tokio::time::Instant::now() + HANG_UP_LIMIT);
        }
        if give_up.is_some() && calls.is_over() {
            break;
        }
        let timer = calls.next_deadline();
        tokio::select! {
            _ = interrupt.recv() => if core::mem::replace(&mut interrupted, true) { break },
            _ = terminate.recv() => if core::mem::replace(&mut interrupted, true) { break },
            Some(message) = inbox.recv() => {
                calls.message(message)?;
                // Those that came together are dealt with together.
                while let Ok(message) = inbox.try_recv() {
                    calls.message(message)?;
                }
            }
            Some(half) = halves_inbox.recv() => trials.half(half),
            ready = control_wake.readable() => ready?.clear_ready(),
            () = until(timer) => calls.timeouts(),
            () = until(give_up) => break,
            _ = neighbours.tick(), if calls.nic.is_some() => calls.neighbour(),
            _ = ticks.tick() => {}
        }
    }
    trials.finish();
    ends.script.order(Order::Stop);
    // Goodbyes on TCP are on their way.
    tokio::time::sleep(SETTLE).await;
    calls.stop_worker();
    while !calls.is_said() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        calls.drain();
    }
    let (worker, network) = (ends.worker, ends.network);
    let joined = tokio::task::spawn_blocking(move || {
        worker.join().is_ok() && network.is_none_or(|network| network.join().is_ok())
    });
    anyhow::ensure!(joined.await?, "a thread ended badly");
    if let Some(error) = trouble {
        return Err(error);
    }
    let report = Report {
        origin: from,
        server,
        calls: CallsReport {
            begun: calls.begun(),
            up: calls.came_up,
            lost: calls.lost,
            held: calls.held,
            setup_seconds: setup.unwrap_or_else(|| first.elapsed()).as_secs_f64(),
            failures: core::mem::take(&mut calls.failures),
        },
        flows: trials.verified.take(),
        trials: core::mem::take(&mut trials.reports),
        access: access_end(&ends.access_troubles, &calls),
        network: end(&ends.network_troubles),
        worker: Some(WorkerReport::new(&calls.control.counters)),
        faults: ends.books.as_deref().map(FaultReport::new),
        allowed_loss: options.allow_loss,
        interrupted,
    };
    printer.print(&report, Report::text)?;
    Ok(if report.is_good() {
        Outcome::AllGood
    } else {
        Outcome::SomeFailed
    })
}

/// What the end where the calls are could not do.
fn access_end(troubles: &Troubles, calls: &Calls<'_>) -> EndReport {
    let EndReport { refused, dropped } = end(troubles);
    let counters = &calls.control.counters;
    let full = [Reason::TransmitFull, Reason::NoMemory].map(|reason| counters.reason(reason));
    EndReport {
        refused: refused + full.into_iter().sum::<u64>(),
        dropped: dropped + calls.nic.as_ref().map_or(0, Nic::dropped),
    }
}

fn end(troubles: &Troubles) -> EndReport {
    EndReport {
        refused: network::read(&troubles.refused),
        dropped: network::read(&troubles.dropped),
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Opens both ends and starts their threads.
fn start(
    options: &Flow,
    server: Ipv4Addr,
    origin: Instant,
    halves: UnboundedSender<Half>,
) -> anyhow::Result<Ends> {
    let mut run = [0; 4];
    getrandom::fill(&mut run).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let script = Arc::new(Script::new(u32::from_be_bytes(run), options.calls.into()));
    let mut network_troubles = Arc::default();
    let (network, target) = match (options.network, options.echo) {
        (Some(address), _) => {
            let side = Side::network(script.clone(), origin, halves.clone());
            let network = Network::open(address, side, options.spin)?;
            network_troubles = network.troubles();
            let target = network.address()?;
            (Some(network.spawn(options.network_cpu)?), target)
        }
        (None, Some(echo)) => (None, echo),
        (None, None) => anyhow::bail!("give --network or --echo"),
    };
    let side = Side::access(script.clone(), origin, halves);
    let faults = options.fault.unwrap_or_default();
    let mut access_troubles = Arc::default();
    let (nic, books, (control, worker)) = if let Some(interface) = &options.interface {
        let (nic, xsk) = Nic::open(options, interface)?;
        let port = nic.info().context("no such port")?;
        let line = Faulty::new(xsk, faults);
        let books = line.books();
        let device = Access::new(line, side, target, options.spin);
        (
            Some(nic),
            books,
            start_worker(options, device, port, origin)?,
        )
    } else {
        let line = RawGre::open(server, reordering(options).chunks())?;
        access_troubles = line.troubles();
        let line = Faulty::new(line, faults);
        let books = line.books();
        let device = Access::new(line, side, target, options.spin);
        (
            None,
            books,
            start_worker(options, device, raw::PORT, origin)?,
        )
    };
    Ok(Ends {
        script,
        nic,
        control,
        worker,
        network,
        books: options.fault.map(|_| books),
        access_troubles,
        network_troubles,
    })
}

fn reordering(options: &Flow) -> Reordering {
    Reordering {
        packets: options.reorder,
        ..Reordering::default()
    }
}

fn start_worker<D: Device + Send + 'static>(
    options: &Flow,
    device: D,
    port: PortInfo,
    origin: Instant,
) -> anyhow::Result<(ControlEnd, JoinHandle<()>)> {
    let (control, end) = channel(&RingSizes::default())?;
    let calls = usize::from(options.calls);
    let config = WorkerConfig {
        id: WorkerId(0),
        role: Role::Client,
        owners: Owners::round_robin(1),
        calls,
        routes: calls,
        routes6: 0,
        ports: Port::ALL.map(|which| (which != Port::Uplink).then_some(port)),
        host_peer_mac: raw::SERVER,
        server_address: None,
        server_address6: None,
        source_check: SourceCheck::Strict,
        acks: AckSettings::default(),
        reordering: reordering(options),
    };
    let worker = thread::spawn(Worker::new(config, device, end), options.cpu, origin)?;
    // What the device counted last is written down when it is dropped.
    let ended = std::thread::Builder::new().spawn(move || drop(worker.join()))?;
    Ok((control, ended))
}
