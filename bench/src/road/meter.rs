//! The programs in the kernel that make and count packets, and one run of them.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{
    SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
};
use aya::{Ebpf, EbpfLoader, Pod};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use turnpike_bench_ebpf::{self as shared, Control, Counted, Sent};

use super::packets::{ADDED, Case, Way};
use super::places::Place;

type Small = [u8; shared::HEAD_LEN + shared::SMALL_LEN];
type Large = [u8; shared::HEAD_LEN + shared::LARGE_LEN];

/// Packets under way at most where there is no rate: several batches of whoever forwards them, and less than any queue on the
/// way holds, so that none is lost.
const WINDOW: u64 = 512;
/// Frames that the kernel makes at a time: as the kernel does by itself, and few, so that those of a rate do not wait for each other.
const BATCH: u32 = 64;
const FEW: u32 = 8;
/// One in so many packets is kept and checked.
const SAMPLE_EVERY: u64 = 256;
/// From when it is told to the first packet: it starts by then.
const LEAD: u64 = 30_000_000;
/// How long packets may still be under way when no more are made.
const DRAIN: Duration = Duration::from_millis(50);
/// How long nothing arrives before what is under way counts as lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// Runs of the generator that find out how long one takes that makes nothing.
const IDLE_RUNS: u32 = 1 << 20;

/// How packets are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Pace {
    /// As many as arrive.
    Most,
    /// So many per second, whatever arrives.
    Rate(f64),
}

/// What a run found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Packets per second that arrived, from a fifth of the time on.
    pub(super) rate: f64,
    pub(super) sent: u64,
    pub(super) arrived: u64,
    /// Frames of other lengths.
    pub(super) others: u64,
    /// Frames that were kept and are what they should be.
    pub(super) checked: u64,
    /// Of each kind: nanoseconds from when packets were due.
    pub(super) times: [Histogram<u64>; shared::KINDS as usize],
}

/// The programs, with the packets of a case.
pub(super) struct Meter {
    case: Case,
    ebpf: Ebpf,
    control: Array<MapData, [u64; Control::Words as usize]>,
    sent: Array<MapData, [u64; Sent::Words as usize]>,
    counted: Array<MapData, [u64; Counted::Words as usize]>,
    published: Array<MapData, u64>,
    samples: Array<MapData, [u8; shared::SAMPLE_LEN]>,
    times: Array<MapData, u64>,
    /// Packets in the map.
    packets: u64,
    /// Nanoseconds of a run that makes nothing.
    idle: f64,
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<T> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the object has no map {name}"))?;
    Ok(T::try_from(map)?)
}

/// Nanoseconds of the clock that the programs read.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn fill<const N: usize>(
    array: &mut Array<MapData, [u8; N]>,
    case: &Case,
    once: usize,
) -> anyhow::Result<()>
where
    [u8; N]: Pod,
{
    for (at, made) in (0..).zip(case.packets(once)) {
        let mut value = [0; N];
        for (to, word) in value.chunks_exact_mut(4).zip(made.head) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let frame = shared::HEAD_LEN..shared::HEAD_LEN + made.frame.len();
        value
            .get_mut(frame)
            .context("a packet that is too long")?
            .copy_from_slice(&made.frame);
        array.set(at, value, 0)?;
    }
    Ok(())
}

impl Meter {
    /// Loads the programs, makes the packets, and sees how long the generator takes. Where no packet can be used again there will be
    /// `once`.
    pub(super) fn open(case: Case, once: usize) -> anyhow::Result<Self> {
        let packets = if case.once() { once } else { case.order.len() };
        let large = case.len() > shared::SMALL_LEN;
        let count = u32::try_from(packets)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(shared::SMALL, if large { 1 } else { count })
            .map_max_entries(shared::LARGE, if large { count } else { 1 })
            .load(shared::OBJECT)
            .context("the kernel does not take the programs (they need root)")?;
        // Before any map is taken: a map that is dropped would be missing.
        let generator: &mut Xdp = program(&mut ebpf, shared::GENERATE)?;
        generator.load()?;
        for name in [shared::COUNT, shared::DISCARD] {
            let classifier: &mut SchedClassifier = program(&mut ebpf, name)?;
            classifier.load()?;
        }
        if large {
            fill::<{ size_of::<Large>() }>(&mut map(&mut ebpf, shared::LARGE)?, &case, once)?;
        } else {
            fill::<{ size_of::<Small>() }>(&mut map(&mut ebpf, shared::SMALL)?, &case, once)?;
        }
        let mut meter = Self {
            case,
            control: map(&mut ebpf, shared::CONTROL)?,
            sent: map(&mut ebpf, shared::SENT)?,
            counted: map(&mut ebpf, shared::COUNTED)?,
            published: map(&mut ebpf, shared::PUBLISHED)?,
            samples: map(&mut ebpf, shared::SAMPLES)?,
            times: map(&mut ebpf, shared::TIMES)?,
            ebpf,
            packets: packets as u64,
            idle: 0.0,
        };
        // It was told nothing yet, so it makes nothing.
        let began = now();
        generate(&meter.ebpf, meter.case.len(), IDLE_RUNS, BATCH)?;
        meter.idle = (now() - began) as f64 / f64::from(IDLE_RUNS);
        Ok(meter)
    }

    pub(super) fn case(&self) -> &Case {
        &self.case
    }

    /// Sends for so long, from `client` or from `network`, and counts on the other side. `tag` is the header of
    /// [`Work::Header`](super::packets::Work::Header).
    pub(super) fn run(
        &mut self,
        client: &Place,
        network: &Place,
        cpu: usize,
        pace: Pace,
        time: Duration,
        tag: &[u8; ADDED],
    ) -> anyhow::Result<Found> {
        let (from, to) = match self.case.way {
            Way::Up => (client, network),
            Way::Down => (network, client),
        };
        self.reset()?;
        let count = self.attach(shared::COUNT, to)?;
        let discard = self.attach(shared::DISCARD, from)?;
        let result = self.send(from, cpu, pace, time);
        self.detach(shared::COUNT, count)?;
        self.detach(shared::DISCARD, discard)?;
        result?;
        self.found(time, tag)
    }

    fn reset(&mut self) -> anyhow::Result<()> {
        self.sent.set(0, [0; Sent::Words as usize], 0)?;
        self.counted.set(0, [0; Counted::Words as usize], 0)?;
        self.published.set(0, 0, 0)?;
        for bucket in 0..shared::KINDS * shared::BUCKETS {
            self.times.set(bucket, 0, 0)?;
        }
        Ok(())
    }

    fn attach(&mut self, name: &str, place: &Place) -> anyhow::Result<SchedClassifierLinkId> {
        let classifier: &mut SchedClassifier = program(&mut self.ebpf, name)?;
        place.enter(None, || {
            classifier
                .attach(&place.interface, TcAttachType::Ingress)
                .with_context(|| format!("cannot count at {}", place.interface))
        })?
    }

    fn detach(&mut self, name: &str, link: SchedClassifierLinkId) -> anyhow::Result<()> {
        let classifier: &mut SchedClassifier = program(&mut self.ebpf, name)?;
        Ok(classifier.detach(link)?)
    }

    fn send(&mut self, from: &Place, cpu: usize, pace: Pace, time: Duration) -> anyhow::Result<()> {
        let case = &self.case;
        let nanos = time.as_nanos() as u64;
        let start = now() + LEAD;
        let end = start + nanos;
        let mut control = [0; Control::Words as usize];
        let mut order = |word: Control, value: u64| control[word as usize] = value;
        let place = |at: Option<usize>| at.unwrap_or(0) as u64;
        order(Control::Device, from.link.index.into());
        order(Control::Packets, self.packets);
        order(Control::Length, case.len() as u64);
        order(Control::Large, (case.len() > shared::SMALL_LEN).into());
        order(Control::NumberAt, place(case.number_at()));
        order(Control::SequenceAt, place(case.sequence_at()));
        let total = if case.once() { self.packets } else { u64::MAX };
        order(Control::Total, total);
        order(Control::Start, start);
        order(Control::End, end);
        order(Control::CountLength, case.len_there() as u64);
        order(Control::CountNumberAt, place(case.number_at_there()));
        order(Control::SampleEvery, SAMPLE_EVERY);
        let batch = match pace {
            Pace::Most => {
                order(Control::Window, WINDOW);
                BATCH
            }
            Pace::Rate(rate) => {
                anyhow::ensure!(rate >= 1.0, "a rate of less than one packet per second");
                order(Control::Interval, (65_536e9 / rate) as u64);
                order(Control::Times, 1);
                FEW
            }
        };
        // A fifth of the time to get going. Packets that cannot be used again may run out before the end.
        order(Control::Begin, start + nanos / 5);
        order(Control::Stop, end - nanos / 50);
        // Runs that make nothing are the shortest, so this is long enough unless the processor is faster now than it was.
        let runs = (LEAD + nanos) as f64 / self.idle * 1.1;
        self.control.set(0, control, 0)?;
        let (ebpf, len, ended) = (&self.ebpf, self.case.len(), AtomicBool::new(false));
        let sink = Sink {
            control: &mut self.control,
            sent: &self.sent,
            counted: &self.counted,
        };
        std::thread::scope(|scope| {
            let generator = scope.spawn(|| {
                let result = from.enter(Some(cpu), || -> anyhow::Result<()> {
                    generate(ebpf, len, runs as u32, batch)?;
                    while now() < end {
                        generate(ebpf, len, IDLE_RUNS, batch)?;
                    }
                    Ok(())
                });
                ended.store(true, Ordering::Relaxed);
                result
            });
            if pace == Pace::Most {
                sink.write_off(control, &ended)?;
            }
            generator
                .join()
                .map_err(|_| anyhow!("the generator's thread panicked"))??
        })?;
        std::thread::sleep(DRAIN);
        let faults = self.sent.get(&0, 0)?[Sent::Faults as usize];
        anyhow::ensure!(faults == 0, "{faults} packets could not be made");
        Ok(())
    }

    fn found(&self, time: Duration, tag: &[u8; ADDED]) -> anyhow::Result<Found> {
        let sent = self.sent.get(&0, 0)?[Sent::Packets as usize];
        let counted = self.counted.get(&0, 0)?;
        let count = |word: Counted| counted[word as usize];
        let arrived = count(Counted::Packets);
        // Where so little arrives that nobody looked at the clock in time, all of it and all of the time.
        let mut rate = arrived as f64 / time.as_secs_f64();
        let stop = (count(Counted::StopCount), count(Counted::StopTime));
        let begin = (count(Counted::BeginCount), count(Counted::BeginTime));
        if begin.1 > 0 && stop.1 > begin.1 {
            rate = (stop.0 - begin.0) as f64 * 1e9 / (stop.1 - begin.1) as f64;
        }
        let mut checked = 0;
        let kept = (arrived / SAMPLE_EVERY).min(shared::SAMPLES_KEPT.into()) as u32;
        let first = if kept < shared::SAMPLES_KEPT { 1 } else { 0 };
        for slot in first..first + kept {
            let frame = self.samples.get(&(slot % shared::SAMPLES_KEPT), 0)?;
            let number = self
                .case
                .check(&frame[..self.case.len_there()], tag)
                .map_err(|e| anyhow!("what arrived is not what should have: {e}"))?;
            anyhow::ensure!(u64::from(number) < sent, "packet {number} was never sent");
            checked += 1;
        }
        if self.case.number_at_there().is_some() && arrived == sent {
            let sum = sent * sent.saturating_sub(1) / 2;
            anyhow::ensure!(
                count(Counted::Numbers) == sum,
                "as many packets arrived as were sent, but not the same ones"
            );
        }
        Ok(Found {
            rate,
            sent,
            arrived,
            others: count(Counted::Others),
            checked,
            times: [self.histogram(0)?, self.histogram(1)?],
        })
    }

    fn histogram(&self, kind: u32) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = Histogram::new(3)?;
        for bucket in 0..shared::BUCKETS {
            let count = self.times.get(&(kind * shared::BUCKETS + bucket), 0)?;
            if count > 0 {
                histogram.record_n(shared::middle(bucket), count)?;
            }
        }
        Ok(histogram)
    }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<T>
where
    T: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .with_context(|| format!("the object has no program {name}"))
}

/// Runs the generator so many times, in the thread's namespace and on its processor.
fn generate(ebpf: &Ebpf, len: usize, runs: u32, batch: u32) -> anyhow::Result<()> {
    let generator: &Xdp = ebpf
        .program(shared::GENERATE)
        .and_then(|program| program.try_into().ok())
        .context("the object has no generator")?;
    let frame = vec![0; len];
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: runs,
        attrs: TestRunAttrs::new().xdp_live_frames(batch),
        ..TestRunOptions::default()
    };
    generator
        .test_run(options)
        .context("the kernel does not make packets")?;
    Ok(())
}

/// What is under way, and what is waited for no more.
struct Sink<'a> {
    control: &'a mut Array<MapData, [u64; Control::Words as usize]>,
    sent: &'a Array<MapData, [u64; Sent::Words as usize]>,
    counted: &'a Array<MapData, [u64; Counted::Words as usize]>,
}

impl Sink<'_> {
    /// Where packets wait for others to arrive, those that do not must not be waited for.
    fn write_off(
        self,
        mut control: [u64; Control::Words as usize],
        ended: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut seen = 0;
        while !ended.load(Ordering::Relaxed) {
            std::thread::sleep(PATIENCE);
            let arrived = self.counted.get(&0, 0)?[Counted::Packets as usize];
            let sent = self.sent.get(&0, 0)?[Sent::Packets as usize];
            // What was counted and not yet published is no loss.
            let lost = sent.saturating_sub(arrived - arrived % shared::PUBLISH);
            if arrived == seen && lost >= WINDOW + control[Control::Lost as usize] {
                control[Control::Lost as usize] = lost;
                self.control.set(0, control, 0)?;
            }
            seen = arrived;
        }
        Ok(())
    }
}
