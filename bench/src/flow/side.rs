//! One end of the flows: what it has to send and has received, whatever it is made of.

use core::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::generator::Generator;
use super::packet::Stamp;
use super::plan::{Order, Script, Trial, Way};
use super::receiver::Receiver;

/// What an end has to say of a trial.
pub(super) struct Half {
    pub(super) sent: Option<Generator>,
    pub(super) received: Option<Receiver>,
}

/// The state of one end.
pub(super) struct Side {
    script: Arc<Script>,
    seen: u64,
    origin: Instant,
    /// Ways that begin here, and ways that end here: one of each is used.
    begins: &'static [Way],
    ends: &'static [Way],
    halves: UnboundedSender<Half>,
    generator: Option<Generator>,
    receiver: Option<Receiver>,
    stopped: bool,
}

impl Side {
    /// The end where the calls are.
    pub(super) fn access(
        script: Arc<Script>,
        origin: Instant,
        halves: UnboundedSender<Half>,
    ) -> Self {
        Self::new(
            script,
            origin,
            halves,
            &[Way::Up, Way::Echo],
            &[Way::Down, Way::Echo],
        )
    }

    /// The end behind the server.
    pub(super) fn network(
        script: Arc<Script>,
        origin: Instant,
        halves: UnboundedSender<Half>,
    ) -> Self {
        Self::new(script, origin, halves, &[Way::Down], &[Way::Up])
    }

    fn new(
        script: Arc<Script>,
        origin: Instant,
        halves: UnboundedSender<Half>,
        begins: &'static [Way],
        ends: &'static [Way],
    ) -> Self {
        Self {
            script,
            seen: 0,
            origin,
            begins,
            ends,
            halves,
            generator: None,
            receiver: None,
            stopped: false,
        }
    }

    /// Nanoseconds on the tester's clock.
    pub(super) fn now(&self) -> u64 {
        // Enough for 500 years.
        self.origin.elapsed().as_nanos() as u64
    }

    /// Looks whether there is another order. To be called often.
    pub(super) fn follow(&mut self) {
        let Some(order) = self.script.look(&mut self.seen) else {
            return;
        };
        let half = Half {
            sent: self.generator.take(),
            received: self.receiver.take().map(|mut receiver| {
                receiver.close_second();
                receiver
            }),
        };
        if half.sent.is_some() || half.received.is_some() {
            // The loop outlives both ends, or nobody wants to know.
            let _ = self.halves.send(half);
        }
        match order {
            Order::Rest => {}
            Order::Go(trial) => self.begin(&trial),
            Order::Stop => self.stopped = true,
        }
    }

    fn begin(&mut self, trial: &Arc<Trial>) {
        let one_of = |ways: &[Way]| ways.iter().copied().find(|way| trial.ways.contains(way));
        // The bounds of the histograms are constants that are right.
        self.generator = one_of(self.begins)
            .and_then(|way| Generator::new(trial.clone(), way, self.script.clone()).ok());
        self.receiver = one_of(self.ends)
            .and_then(|way| Receiver::new(trial.clone(), way, self.script.clone()).ok());
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// When there is something to send; `None`: not before another order.
    pub(super) fn due(&self) -> Option<u64> {
        self.generator.as_ref()?.due()
    }

    /// The next packet, if it is due, and the inner address of its call.
    pub(super) fn next(&mut self, now: u64) -> Option<(Stamp, Ipv4Addr)> {
        let generator = self.generator.as_mut()?;
        let stamp = generator.take(now)?;
        let address = generator.trial.flows[stamp.flow as usize];
        Some((stamp, address))
    }

    /// The inner address of a flow's call.
    pub(super) fn address(&self, flow: u32) -> Option<Ipv4Addr> {
        let trial = self.receiver.as_ref().map(|receiver| &receiver.trial)?;
        trial.flows.get(flow as usize).copied()
    }

    /// A datagram came.
    pub(super) fn take(&mut self, datagram: &[u8]) -> Option<Stamp> {
        let now = self.now();
        self.receiver.as_mut()?.take(datagram, now)
    }

    /// A packet came that holds no datagram for us.
    pub(super) fn take_foreign(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.foreign += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::generator::tests::trial;
    use super::super::packet::FRONT;
    use super::super::plan::Size;
    use super::*;

    #[test]
    fn an_end_does_as_told_and_says_what_it_has() {
        let (halves, mut said) = unbounded_channel();
        let script = Arc::new(Script::new(5, 1));
        let origin = Instant::now();
        let mut access = Side::access(script.clone(), origin, halves.clone());
        let mut network = Side::network(script.clone(), origin, halves);
        access.follow();
        assert_eq!(access.due(), None);
        script.order(Order::Go(trial(1, 1, 2, Size::Fixed(100))));
        access.follow();
        network.follow();
        // This trial goes up only.
        assert_eq!(access.due(), Some(1_000_000_000));
        assert_eq!(network.due(), None);
        assert!(access.take(&[]).is_none());
        while let Some((stamp, address)) = access.next(2_000_000_000) {
            let mut datagram = vec![0; 100 - FRONT];
            stamp.write(&mut datagram);
            assert_eq!(network.take(&datagram), Some(stamp));
            assert_eq!(network.address(stamp.flow), Some(address));
        }
        network.take_foreign();
        script.order(Order::Rest);
        access.follow();
        let half = said.try_recv().unwrap();
        assert_eq!(half.sent.unwrap().sent.packets, 2);
        assert!(half.received.is_none());
        script.order(Order::Stop);
        network.follow();
        let half = said.try_recv().unwrap();
        let received = half.received.unwrap();
        assert_eq!((received.received.packets, received.foreign), (2, 1));
        assert!(half.sent.is_none() && network.is_stopped() && !access.is_stopped());
    }
}
