//! Packets between workers: a grid of bounded single-producer rings, one for each ordered pair.
//!
//! A packet is copied into a buffer that goes through the ring and comes back through a second one, so nothing is
//! allocated and both sides touch memory of their own otherwise. A full ring drops the packet, counted.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::api::{Port, WorkerId};
use crate::device::MAX_LEN;
use crate::wake::Wake;

/// Where a packet came from before it was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// Received as an Ethernet frame on this port.
    Port(Port),
    /// Taken out of a tunnel; the Ethernet header in front of it means nothing.
    Tunnel,
}

/// A packet on its way to another worker.
pub(crate) struct Parcel {
    pub(crate) origin: Origin,
    len: u16,
    octets: Box<[u8; MAX_LEN]>,
}

impl Parcel {
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

struct Outgoing {
    full: Producer<Parcel>,
    empty: Consumer<Box<[u8; MAX_LEN]>>,
    wake: Arc<Wake>,
    rung: bool,
}

pub(crate) struct Incoming {
    full: Consumer<Parcel>,
    empty: Producer<Box<[u8; MAX_LEN]>>,
}

impl Incoming {
    /// Parcels that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.full.slots()
    }

    /// The next parcel; to be given back with [`give_back`](Self::give_back).
    pub(crate) fn take(&mut self) -> Option<Parcel> {
        self.full.pop().ok()
    }

    pub(crate) fn give_back(&mut self, parcel: Parcel) {
        // There are as many slots as buffers, so there is room.
        let _ = self.empty.push(parcel.octets);
    }
}

/// One worker's ends of the grid.
#[derive(Default)]
pub(crate) struct Peers {
    outgoing: Vec<Option<Outgoing>>,
    pub(crate) incoming: Vec<Incoming>,
}

impl Peers {
    /// Copies a packet into the ring of another worker. False when there is no such worker or no room.
    pub(crate) fn hand_over(&mut self, to: WorkerId, origin: Origin, packet: &[u8]) -> bool {
        let Some(Some(outgoing)) = self.outgoing.get_mut(usize::from(to.0)) else {
            return false;
        };
        if packet.len() > MAX_LEN {
            return false;
        }
        let Ok(mut octets) = outgoing.empty.pop() else {
            return false;
        };
        octets[..packet.len()].copy_from_slice(packet);
        let parcel = Parcel {
            origin,
            len: packet.len() as u16,
            octets,
        };
        outgoing.rung = false;
        // There are as many slots as buffers, so there is room.
        outgoing.full.push(parcel).is_ok()
    }

    /// Wakes every worker that got something since the last time.
    pub(crate) fn ring(&mut self) {
        for outgoing in self.outgoing.iter_mut().flatten() {
            if !core::mem::replace(&mut outgoing.rung, true) {
                outgoing.wake.ring();
            }
        }
    }

    /// Whether something waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.incoming.iter().any(|incoming| incoming.waiting() > 0)
    }
}

/// Rings of `slots` packets from each worker to each other one; `wakes` are the workers'.
pub(crate) fn grid(wakes: &[Arc<Wake>], slots: usize) -> Vec<Peers> {
    let slots = slots.max(1);
    let mut peers: Vec<Peers> = wakes.iter().map(|_| Peers::default()).collect();
    for from in 0..wakes.len() {
        for (to, wake) in wakes.iter().enumerate() {
            if from == to {
                peers[from].outgoing.push(None);
                continue;
            }
            let (full, filled) = RingBuffer::new(slots);
            let (mut emptied, empty) = RingBuffer::new(slots);
            for _ in 0..slots {
                let _ = emptied.push(Box::new([0; MAX_LEN]));
            }
            peers[from].outgoing.push(Some(Outgoing {
                full,
                empty,
                wake: wake.clone(),
                rung: true,
            }));
            peers[to].incoming.push(Incoming {
                full: filled,
                empty: emptied,
            });
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_go_to_the_worker_named_and_buffers_come_back() {
        let wakes: Vec<_> = (0..3).map(|_| Arc::new(Wake::new().unwrap())).collect();
        let mut peers = grid(&wakes, 2);
        for round in 0..5_u8 {
            assert!(peers[0].hand_over(WorkerId(2), Origin::Tunnel, &[round, 1]));
            assert!(peers[0].hand_over(WorkerId(2), Origin::Port(Port::Access), &[round, 2]));
            assert!(
                !peers[0].hand_over(WorkerId(2), Origin::Tunnel, &[0]),
                "two slots"
            );
            assert!(!peers[1].is_waiting());
            assert!(peers[2].is_waiting());
            let mut got = Vec::new();
            for incoming in &mut peers[2].incoming {
                while let Some(parcel) = incoming.take() {
                    got.push((parcel.origin, parcel.octets().to_vec()));
                    incoming.give_back(parcel);
                }
            }
            assert_eq!(
                got,
                [
                    (Origin::Tunnel, vec![round, 1]),
                    (Origin::Port(Port::Access), vec![round, 2])
                ]
            );
        }
        assert!(
            !peers[0].hand_over(WorkerId(0), Origin::Tunnel, &[0]),
            "itself"
        );
        assert!(
            !peers[0].hand_over(WorkerId(9), Origin::Tunnel, &[0]),
            "nobody"
        );
    }
}
