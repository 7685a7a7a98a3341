//! Token buckets: so many at once, so many per second.

use turnpike_protocol::Time;

/// A bucket; full at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: u32,
    /// When the last token came in.
    filled: Time,
}

/// How much a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Tokens at most.
    pub(crate) burst: u32,
    /// Nanoseconds until one more comes in.
    pub(crate) interval_ns: u64,
}

impl Bucket {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            tokens: limits.burst,
            filled: Time::ZERO,
        }
    }

    /// Takes a token, if there is one. The limits are those that the bucket was made with: each call has two, which would
    /// otherwise keep what is the same for all.
    pub(crate) fn take(&mut self, limits: Limits, now: Time) -> bool {
        let elapsed = now.as_nanos().saturating_sub(self.filled.as_nanos());
        let new = elapsed / limits.interval_ns;
        if new > 0 {
            let room = limits.burst - self.tokens;
            self.tokens += u32::try_from(new).unwrap_or(u32::MAX).min(room);
            self.filled = Time::from_nanos(self.filled.as_nanos() + new * limits.interval_ns);
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_then_trickles() {
        const LIMITS: Limits = Limits {
            burst: 3,
            interval_ns: 10,
        };
        let mut bucket = Bucket::new(LIMITS);
        let take = |bucket: &mut Bucket, at| {
            (0..9)
                .filter(|_| bucket.take(LIMITS, Time::from_nanos(at)))
                .count()
        };
        assert_eq!(take(&mut bucket, 5), 3);
        assert_eq!(take(&mut bucket, 9), 0);
        assert_eq!(take(&mut bucket, 10), 1);
        assert_eq!(take(&mut bucket, 39), 2);
        assert_eq!(take(&mut bucket, 40), 1);
        assert_eq!(take(&mut bucket, u64::MAX), 3);
    }
}
