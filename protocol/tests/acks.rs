//! Acknowledgements between both ends of a call: a sender that obeys a window never waits long, however small it has
//! made it.

use core::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::gre::{AckSettings, Receiver, Sender, Seq};

/// A call's end.
struct End {
    sender: Sender,
    receiver: Receiver,
}

impl End {
    fn new(window: u16) -> Self {
        Self {
            sender: Sender::default(),
            receiver: Receiver::new(AckSettings::default().within(window)),
        }
    }

    /// A packet, and the acknowledgement in it.
    fn data(&mut self) -> (Seq, Option<Seq>) {
        (self.sender.next(), self.receiver.ack_to_send())
    }

    fn receive(&mut self, (seq, ack): (Seq, Option<Seq>), now: Time) {
        self.acknowledged(ack);
        assert!(self.receiver.accept(seq).is_delivered());
        self.receiver.note_received(now);
    }

    fn acknowledged(&mut self, ack: Option<Seq>) {
        if let Some(ack) = ack {
            self.sender.acknowledged(ack);
        }
    }

    /// The acknowledgement that goes out alone by `now`.
    fn overdue(&mut self, now: Time) -> Option<Seq> {
        if self.receiver.ack_due()? > now {
            return None;
        }
        self.receiver.ack_to_send()
    }
}

/// A sender that pauses needs no more than this, one that goes on not even that.
const PAUSE: Duration = Duration::from_millis(4);

/// The longest that a sender stands still which stops at `most` packets that were not acknowledged.
fn standstill(window: u16, most: u32) -> Duration {
    let (mut sending, mut receiving) = (End::new(64), End::new(window));
    let (mut now, mut longest) = (Time::from_nanos(1), Duration::ZERO);
    for _ in 0..1000 {
        if sending.sender.unacknowledged() == most {
            let due = receiving.receiver.ack_due().expect("one is owed");
            longest = longest.max(due.since(now));
            now = due;
        }
        sending.acknowledged(receiving.overdue(now));
        assert!(sending.sender.unacknowledged() < most);
        receiving.receive(sending.data(), now);
        sending.acknowledged(receiving.overdue(now));
    }
    longest
}

#[test]
fn no_sender_stands_still_for_long() {
    for window in [1, 3, 16, 64, 65_535] {
        let at_once = u32::from(AckSettings::default().within(window).packets);
        for most in 1..=64 {
            let expected = match most {
                _ if most >= at_once => Duration::ZERO,
                8.. => PAUSE,
                _ => Duration::from_millis(50),
            };
            let longest = standstill(window, most);
            assert_eq!(longest, expected, "{window}, {most}");
        }
    }
}

/// RFC 2637 §4.2: a sender begins with half of the window.
#[test]
fn half_of_a_window_does_not_stand_still() {
    for window in [3_u16, 16, 64, 65_535] {
        let half = u32::from(window / 2);
        let longest = standstill(window, half);
        // A single packet waits for another.
        let expected = if half == 1 { 50 } else { 0 };
        assert_eq!(longest, Duration::from_millis(expected), "{window}");
    }
}

#[test]
fn data_both_ways_carries_every_acknowledgement() {
    let (mut client, mut server) = (End::new(64), End::new(64));
    let mut now = Time::from_nanos(1);
    for n in 0..10_000_u32 {
        server.receive(client.data(), now);
        // Less comes back than goes, as in a download.
        if n % 7 == 0 {
            client.receive(server.data(), now);
        }
        assert_eq!((server.overdue(now), client.overdue(now)), (None, None));
        assert!(client.sender.unacknowledged() < 8 && server.sender.unacknowledged() < 2);
        now += Duration::from_millis(5);
    }
}

/// 1,000 packets a second are acknowledged by halves of the window all the same, 200 as each pauses.
#[test]
fn a_sender_that_goes_on_is_acknowledged_by_number() {
    for (gap, expected) in [(1, 32), (3, 17), (5, 8)] {
        let (mut sending, mut receiving) = (End::new(64), End::new(64));
        let gap = Duration::from_millis(gap);
        let mut now = Time::from_nanos(1);
        let mut acks = Vec::new();
        for _ in 0..320 {
            acks.extend(receiving.overdue(now));
            receiving.receive(sending.data(), now);
            acks.extend(receiving.overdue(now));
            now += gap;
        }
        let apart: Vec<_> = acks
            .windows(2)
            .map(|acks| acks[1].distance(acks[0]))
            .collect();
        assert!(
            apart.len() > 8 && apart.iter().all(|n| *n == expected),
            "{apart:?}"
        );
    }
}
