//! Randomness of one link, made of its seed: challenges, identifiers, magic numbers.

use core::convert::Infallible;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _, TryRng};

/// A stream of ChaCha20, kept as its key and place: an open link has not drawn for long, and the generator with the block
/// that it works on would be six times as large.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    stream: u8,
    /// 32-bit words drawn so far.
    drawn: u64,
}

impl Random {
    /// The stream of which challenges come. `seed` must be unpredictable and used once.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            stream: 0,
            drawn: 0,
        }
    }

    /// Another stream of the same seed: magic numbers need not be secret, but must differ from what challenges come of.
    pub const fn apart(seed: [u8; 32]) -> Self {
        Self {
            seed,
            stream: 1,
            drawn: 0,
        }
    }

    fn draw<T>(&mut self, draw: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        let mut stream = ChaCha20Rng::from_seed(self.seed);
        stream.set_stream(self.stream.into());
        stream.set_word_pos(self.drawn.into());
        let drawn = draw(&mut stream);
        self.drawn = stream.get_word_pos() as u64;
        drawn
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.draw(|stream| stream.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.draw(|stream| stream.next_u64()))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Infallible> {
        self.draw(|stream| stream.fill_bytes(octets));
        Ok(())
    }
}

/// Challenges to come can be told from it: nothing is printed.
impl core::fmt::Debug for Random {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Random(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_stream_that_the_generator_gives() {
        let seed = [7; 32];
        let (mut kept, mut whole) = (Random::new(seed), ChaCha20Rng::from_seed(seed));
        let mut apart = Random::apart(seed);
        let mut octets = [[0; 16]; 2];
        for _ in 0..20 {
            let own = kept.next_u32();
            assert_eq!(own, whole.next_u32());
            assert_ne!(own, apart.next_u32());
            kept.fill_bytes(&mut octets[0]);
            whole.fill_bytes(&mut octets[1]);
            assert_eq!(octets[0], octets[1]);
        }
    }
}
