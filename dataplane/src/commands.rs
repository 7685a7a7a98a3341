//! Carrying out what the control plane says.

use core::net::Ipv4Addr;

use turnpike_protocol::Time;
use turnpike_protocol::gre;
use turnpike_protocol::mppe::Direction;

use crate::api::{CallRef, Command, Event, Port};
use crate::call::{Call, Loaded, Parts};
use crate::counters::Reason;
use crate::decap::UNKNOWN_SLOT;
use crate::device::Device;
use crate::encap;
use crate::path::Path;

/// Whether a command is answered with an event, for which there must be room.
pub(crate) fn wants_answer(command: &Command) -> bool {
    matches!(command, Command::Query { .. } | Command::Close { .. })
}

impl<D: Device> Path<D> {
    /// Carries out a command. What cannot be is counted. False after [`Command::Stop`].
    pub(crate) fn execute(&mut self, command: &Command, now: Time) -> bool {
        let done = match command {
            Command::Open {
                call,
                peer_id,
                via,
                window,
            } => self.open(*call, *peer_id, *via, *window),
            Command::Via { call, via } => self.set_via(call, *via),
            Command::Send { call, frame } => self.slot(call).map(|slot| {
                self.send_control(slot, frame, now);
            }),
            Command::SendInner { call, packet } => self.slot(call).map(|slot| {
                self.send_inner(slot, packet, now);
            }),
            Command::Secure {
                call,
                direction,
                identifier,
                key,
                mode,
            } => {
                self.core.encrypts = true;
                self.with_call(call, |known| {
                    let (place, running) = match direction {
                        Direction::Receive => {
                            (&mut known.cold.receive, known.keys.decryptor.is_some())
                        }
                        Direction::Transmit => (&mut known.cold.transmit, true),
                    };
                    // The same request again: an Ack of the first copy may still come.
                    let requests = match place {
                        Some(loaded) if loaded.identifier == *identifier => loaded.requests,
                        _ => 0,
                    };
                    *place = Some(Loaded {
                        identifier: *identifier,
                        key: key.clone(),
                        mode: *mode,
                        requests,
                        acknowledged: false,
                        credit: 0,
                    });
                    if !running && requests == 0 {
                        known.decap.mppe_missing = 0;
                    }
                })
            }
            Command::Forward { call, forward } => {
                let room = self.room();
                self.with_call(call, |known| known.forward(forward, room))
            }
            Command::Echo { call, magic } => self.with_call(call, |known| {
                known.cold.echo = Some(*magic);
            }),
            Command::Hold { call } => self.with_call(call, |known| known.hold()),
            Command::Forward6 { call, forward } => {
                let room = self.room();
                self.with_call(call, |known| known.forward6(forward, room))
            }
            Command::Hold6 { call } => self.with_call(call, |known| known.hold6()),
            Command::Route { prefix, call } => {
                if self.add_route(*prefix, *call) {
                    Ok(())
                } else {
                    Err(Reason::RoutesFull)
                }
            }
            Command::Unroute { prefix } => {
                self.core.routes.remove(*prefix);
                Ok(())
            }
            Command::Pool { prefix } => {
                if self.core.routes.add_pool(*prefix) {
                    Ok(())
                } else {
                    Err(Reason::RoutesFull)
                }
            }
            Command::Route6 { prefix, call } => {
                let slot = self.slot(call).unwrap_or(UNKNOWN_SLOT);
                if self.core.routes6.add(*prefix, *call, slot) {
                    Ok(())
                } else {
                    Err(Reason::RoutesFull)
                }
            }
            Command::Unroute6 { prefix } => {
                self.core.routes6.remove(*prefix);
                Ok(())
            }
            Command::Pool6 { prefix } => {
                if self.core.routes6.add_pool(*prefix) {
                    Ok(())
                } else {
                    Err(Reason::RoutesFull)
                }
            }
            Command::Neighbour { port, address, mac } => {
                if self.core.hops.set(*port, *address, *mac) {
                    Ok(())
                } else {
                    Err(Reason::NeighboursFull)
                }
            }
            Command::Local { address, ours } => {
                if !*ours {
                    self.core.locals.remove(*address);
                    Ok(())
                } else if self.core.locals.add(*address) {
                    Ok(())
                } else {
                    Err(Reason::LocalsFull)
                }
            }
            Command::DefaultRoute { via } => self.set_uplink(*via),
            Command::Query { call } => {
                // A call that does not exist has counted nothing; the asker waits for an answer in any case.
                let found = self.slot(call);
                let counters = match found {
                    Ok(slot) => self.core.calls.get_mut(slot).map(|known| known.counters()),
                    Err(_) => None,
                };
                self.core.events.answer(Event::Counters {
                    call: *call,
                    counters: counters.unwrap_or_default(),
                });
                found.map(drop)
            }
            Command::Capture { call, on } => self.with_call(call, |known| known.capture(*on)),
            Command::Close { call } => {
                let mut closed = self.close(call, now);
                self.core.events.answer(Event::Closed {
                    call: *call,
                    counters: (closed.as_mut())
                        .map(|closed| closed.call().counters())
                        .unwrap_or_default(),
                });
                closed.map(drop)
            }
            Command::Stop => return false,
        };
        if let Err(reason) = done {
            self.core.counters.dropped(reason);
        }
        true
    }

    /// The largest inner packet that fits the access port unfragmented, in octets.
    fn room(&self) -> u16 {
        let overhead = encap::OVERHEAD as u16;
        self.core
            .port(Port::Access)
            .map_or(u16::MAX, |port| port.mtu.saturating_sub(overhead))
    }

    fn slot(&self, call: &CallRef) -> Result<u32, Reason> {
        self.core
            .calls
            .slot(call, UNKNOWN_SLOT)
            .ok_or(Reason::NoSuchCall)
    }

    fn with_call(
        &mut self,
        call: &CallRef,
        work: impl FnOnce(&mut Call<'_>),
    ) -> Result<(), Reason> {
        let slot = self.slot(call)?;
        let mut known = self.core.calls.get_mut(slot).ok_or(Reason::NoSuchCall)?;
        work(&mut known);
        Ok(())
    }

    fn open(
        &mut self,
        call: CallRef,
        peer_id: turnpike_protocol::CallId,
        via: Ipv4Addr,
        window: u16,
    ) -> Result<(), Reason> {
        let core = &mut self.core;
        if core.calls.is_full() {
            return Err(Reason::CallsFull);
        }
        let mac = core.port(Port::Access).ok_or(Reason::NoSuchPort)?.mac;
        let hop = core
            .hops
            .acquire(Port::Access, via)
            .ok_or(Reason::NeighboursFull)?;
        let acks = core.config.acks.within(window);
        let receiver = gre::Receiver::new(acks).with_queue(core.config.reordering.packets);
        if core
            .calls
            .open(Parts::new(call, peer_id, hop, mac, receiver, core.dialect))
            .is_none()
        {
            core.hops.release(hop);
            return Err(Reason::CallExists);
        }
        Ok(())
    }

    fn close(&mut self, call: &CallRef, now: Time) -> Result<Parts, Reason> {
        let slot = self.slot(call)?;
        // What came before the end is delivered.
        self.release_all(slot, now);
        let core = &mut self.core;
        let closed = core.calls.close(slot).ok_or(Reason::NoSuchCall)?;
        core.acks.forget(closed.hot.gre.ack, slot);
        core.hops.release(closed.hot.encap.hop);
        Ok(closed)
    }

    fn set_via(&mut self, call: &CallRef, via: Ipv4Addr) -> Result<(), Reason> {
        let slot = self.slot(call)?;
        let core = &mut self.core;
        // The new one first: it may be the old one.
        let hop = core
            .hops
            .acquire(Port::Access, via)
            .ok_or(Reason::NeighboursFull)?;
        let known = core.calls.get_mut(slot).ok_or(Reason::NoSuchCall)?;
        let old = core::mem::replace(&mut known.encap.hop, hop);
        core.hops.release(old);
        Ok(())
    }

    fn set_uplink(&mut self, via: Option<Ipv4Addr>) -> Result<(), Reason> {
        let core = &mut self.core;
        let hop = match via {
            Some(via) if self.device.has(Port::Uplink) => Some(
                core.hops
                    .acquire(Port::Uplink, via)
                    .ok_or(Reason::NeighboursFull)?,
            ),
            Some(_) => return Err(Reason::NoSuchPort),
            None => None,
        };
        if let Some(old) = core::mem::replace(&mut core.uplink, hop) {
            core.hops.release(old);
        }
        Ok(())
    }
}
