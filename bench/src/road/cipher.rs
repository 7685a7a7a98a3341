//! The cipher alone: what MPPE costs without anything else.

use core::cell::Cell;
use core::time::Duration;
use std::hint::black_box;
use std::time::Instant;

use anyhow::anyhow;
use turnpike_dataplane::cipher::{Engine, Link, Packet};
use turnpike_dataplane::device::{BATCH, CHUNK};
use turnpike_dataplane::thread::pin;
use turnpike_protocol::mppe::{SessionKey, StartKey};

use super::packets;

/// Octets of the inner protocol, which is encrypted with the packet.
const PROTOCOL: usize = 2;

/// Packets per second that the worker's cipher encrypts, key change and all, on one processor: as many together as a worker finds
/// in a turn, each of another call, one call after the other.
pub(super) fn rate(size: usize, calls: u16, cpu: usize, time: Duration) -> anyhow::Result<f64> {
    std::thread::spawn(move || -> anyhow::Result<f64> {
        anyhow::ensure!(pin(cpu), "this process may not use processor {cpu}");
        let mut engine = Engine::new();
        let mut keys: Vec<(StartKey, SessionKey)> = (0..calls.max(BATCH as u16))
            .map(|call| {
                let start = packets::key_to(call);
                let key = SessionKey::initial(&start);
                (start, key)
            })
            .collect();
        // Where a worker has them: in chunks of their own.
        let mut memory = vec![0_u8; BATCH * CHUNK];
        let mut done = 0_u64;
        let mut began = Instant::now();
        let mut warm = false;
        loop {
            for keys in keys.chunks_exact_mut(BATCH) {
                let mut links: Vec<Link<'_>> = keys
                    .iter_mut()
                    .map(|(start, key)| Link { start, key })
                    .collect();
                engine.change_all(&mut links);
                let packets: Vec<Packet<'_>> = memory
                    .chunks_exact_mut(CHUNK)
                    .zip(&*keys)
                    .map(|(chunk, (_, key))| Packet {
                        key,
                        octets: Cell::from_mut(&mut chunk[..size + PROTOCOL]).as_slice_of_cells(),
                    })
                    .collect();
                engine.run_all(&packets);
                done += BATCH as u64;
            }
            black_box(&mut memory);
            let elapsed = began.elapsed();
            if !warm && elapsed > time / 5 {
                (warm, done, began) = (true, 0, Instant::now());
            } else if warm && elapsed > time {
                return Ok(done as f64 / elapsed.as_secs_f64());
            }
        }
    })
    .join()
    .map_err(|_| anyhow!("the cipher's thread panicked"))?
}
