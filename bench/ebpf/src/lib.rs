//! What the load tester's programs in the kernel and their loader share: names of maps, and what their words mean.
//!
//! One core makes more packets per second in the kernel than any socket takes from it, so that whoever forwards them is
//! the limit, and the tester is not. [`GENERATE`] is run by `BPF_PROG_TEST_RUN` with live frames: each run takes the next
//! packet from a map and redirects it to a device, at a rate, or as fast as the far end counts them in. [`COUNT`] sits
//! where they should arrive, and counts by itself. Times are nanoseconds of the monotonic clock.
#![no_std]

/// The programs as `cargo xtask ebpf` built them from `src/main.rs`; aligned for the ELF reader.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = {
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../road.bpf.o"));
    &ALIGNED.0
};

/// XDP, never attached: makes a packet.
pub const GENERATE: &str = "generate";
/// Classifier at the ingress of the device where packets should arrive: counts them, and lets none pass.
pub const COUNT: &str = "count";
/// Classifier at the ingress of the other device: lets none pass.
pub const DISCARD: &str = "discard";

/// Array of one: the words of [`Control`].
pub const CONTROL: &str = "CONTROL";
/// Array of one: the words of [`Sent`].
pub const SENT: &str = "SENT";
/// Array of one: the words of [`Counted`].
pub const COUNTED: &str = "COUNTED";
/// Array of one: how many were counted, written every [`PUBLISH`]th time, so that who waits for it is not in the way of
/// who counts.
pub const PUBLISHED: &str = "PUBLISHED";
/// Array: [`Head`], then a frame of up to [`SMALL_LEN`] octets.
pub const SMALL: &str = "SMALL";
/// Array: [`Head`], then a frame of up to [`LARGE_LEN`] octets.
pub const LARGE: &str = "LARGE";
/// Array of [`SAMPLES_KEPT`]: frames that arrived, in turn.
pub const SAMPLES: &str = "SAMPLES";
/// Array of [`KINDS`] times [`BUCKETS`]: how many packets took so long ([`bucket`]).
pub const TIMES: &str = "TIMES";

/// Octets in front of the frame in a map: the words of [`Head`], four octets each, in the machine's order.
pub const HEAD_LEN: usize = 16;
/// Octets of the longest frame in [`SMALL`].
pub const SMALL_LEN: usize = 176;
/// Octets of the longest frame in [`LARGE`].
pub const LARGE_LEN: usize = 1520;
/// Octets of the longest frame in [`SAMPLES`], and one more: a power of two.
pub const SAMPLE_LEN: usize = 2048;
/// Packets between two writings of [`PUBLISHED`].
pub const PUBLISH: u64 = 16;
/// Frames that are kept.
pub const SAMPLES_KEPT: u32 = 64;
/// Kinds of packets whose times are told apart.
pub const KINDS: u32 = 2;
/// Buckets of times for each kind.
pub const BUCKETS: u32 = 64 << BITS;
/// Binary digits of a time that its bucket knows, below the first.
const BITS: u32 = 6;

/// What the programs are told.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Index of the device that packets are redirected to.
    Device,
    /// How many packets the map holds; after the last comes the first again.
    Packets,
    /// Octets of each frame.
    Length,
    /// Not 0: they are in [`LARGE`].
    Large,
    /// Where in a frame its number is written, 4 octets, most significant first, and its kind in the next 4. 0: nowhere.
    NumberAt,
    /// Where in a frame the sequence number of its call is written, in the same order. 0: nowhere.
    SequenceAt,
    /// Packets in all; then no more are made.
    Total,
    /// When no more are made.
    End,
    /// When number 0 is due, if there is a rate.
    Start,
    /// Time between two packets in 1/65536 ns. 0: as many as arrive, with [`Control::Window`] under way.
    Interval,
    /// So many are under way at most, if there is no rate.
    Window,
    /// Packets that are taken for lost: they are under way no more.
    Lost,
    /// Octets of frames that are counted; others are counted apart.
    CountLength,
    /// Where their number is. 0: nowhere.
    CountNumberAt,
    /// Not 0: times are kept.
    Times,
    /// One of so many is kept, a power of two.
    SampleEvery,
    /// When [`Counted::BeginCount`] is written.
    Begin,
    /// When [`Counted::StopCount`] is written.
    Stop,
    /// How many there are.
    Words,
}

/// What the generator says.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Packets made.
    Packets,
    /// How many had arrived or were lost when it looked last.
    Arrived,
    /// Packets that could not be made: a fault of the orders.
    Faults,
    /// How many there are; a cache line.
    Words = 8,
}

/// What the counter says.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// Frames of the right length.
    Packets,
    /// Others.
    Others,
    /// Sum of their numbers.
    Numbers,
    /// Frames whose number was not the one after the last one's.
    OutOfOrder,
    /// The number that would be in order.
    Next,
    /// [`Counted::Packets`] at the first look after [`Control::Begin`].
    BeginCount,
    /// When that was.
    BeginTime,
    /// The same after [`Control::Stop`].
    StopCount,
    /// When that was.
    StopTime,
    /// How many there are: two cache lines.
    Words = 16,
}

/// What is known of a packet in a map.
#[repr(usize)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// Sequence number of its call, the first time.
    Sequence,
    /// By how much that grows from one time to the next: packets of its call in the map.
    Stride,
    /// Its kind.
    Kind,
    /// Nothing.
    Spare,
}

/// The bucket of a time: its first binary digit's place, and the digits after that.
#[inline(always)]
pub const fn bucket(time: u64) -> u32 {
    let time = if time < 1 << BITS { 1 << BITS } else { time };
    let place = 63 - time.leading_zeros();
    (place << BITS) + ((time >> (place - BITS)) as u32 & ((1 << BITS) - 1))
}

/// The middle of a bucket.
pub const fn middle(bucket: u32) -> u64 {
    let place = bucket >> BITS;
    if place < BITS {
        return 0;
    }
    let digits = (1 << BITS) + (bucket & ((1 << BITS) - 1)) as u64;
    let width = 1_u64 << (place - BITS);
    digits * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_within_two_hundredths_of_its_middle() {
        for time in [0, 1, 63, 64] {
            assert_eq!(middle(bucket(time)), 64);
        }
        for time in [
            65_u64,
            127,
            128,
            1_000,
            1_023,
            1_024,
            54_321,
            1 << 40,
            u64::MAX,
        ] {
            let found = middle(bucket(time));
            assert!(bucket(time) < BUCKETS);
            assert!(found.abs_diff(time) <= time / 50, "{time} {found}");
        }
        assert!((64..5000).all(|time| bucket(time) <= bucket(time + 1)));
    }
}
