//! Changing inputs.

/// A small fast generator (SplitMix64): a run is known by its seed.
pub struct Random(pub u64);

/// No input is longer than this many octets.
const MAX_INPUT: usize = 4096;

/// Values at which lengths and counts go wrong.
const EDGES: [u16; 16] = [
    0, 1, 2, 3, 4, 7, 8, 15, 0x7f, 0x80, 0xff, 0x100, 0x5dc, 0x7fff, 0x8000, 0xffff,
];

impl Random {
    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)) as usize
    }
}

/// One input made from one of `corpus`, sometimes with a piece of another.
pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus
        .get(random.below(corpus.len()))
        .cloned()
        .unwrap_or_default();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len());
        match random.below(12) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            2 | 3 if !input.is_empty() => input[at] = random.next() as u8,
            4 if !input.is_empty() => input[at] = EDGES[random.below(EDGES.len())] as u8,
            5 | 6 if input.len() >= 2 => {
                let at = random.below(input.len() - 1);
                let old = u16::from_be_bytes([input[at], input[at + 1]]);
                let new = match random.below(3) {
                    0 => EDGES[random.below(EDGES.len())],
                    1 => old.wrapping_add(1 + random.below(4) as u16),
                    _ => old.wrapping_sub(1 + random.below(4) as u16),
                };
                input[at..at + 2].copy_from_slice(&new.to_be_bytes());
            }
            7 if !input.is_empty() => {
                let end = at + random.below((input.len() - at).min(32) + 1);
                input.drain(at..end);
            }
            8 => {
                let piece: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
                input.splice(at..at, piece);
            }
            9 if !input.is_empty() => {
                let end = at + random.below((input.len() - at).min(256) + 1);
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            10 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let end = from + random.below((other.len() - from).min(512) + 1);
                let replaced =
                    at + random.below((input.len() - at.min(input.len())).min(end - from) + 1);
                input.splice(
                    at..replaced.min(input.len()).max(at),
                    other[from..end].to_vec(),
                );
            }
            11 if random.below(3) == 0 => input.truncate(at),
            _ => {}
        }
    }
    input.truncate(MAX_INPUT);
    input
}
