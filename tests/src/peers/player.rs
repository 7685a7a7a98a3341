//! A scripted client from its first octet of TCP to its last, against a real server in memory.

mod control;
mod data;

use core::net::Ipv4Addr;
use core::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::pptp::{Message, StopReason};
use turnpike_protocol::wire::{gre, ppp};
use turnpike_protocol::{CallId, Time};

use super::link::Link;
use super::profile::{Profile, Step};
use super::{Outcome, Wish};
pub use data::udp;

use crate::concentrator::{Concentrator, DNS, Output};

/// Where the client is.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
/// Whom it talks to through the tunnel.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Packets each way: enough for a change of keys in stateful MPPE.
const PACKETS: u16 = 300;
/// How long coming up may take: no client waits for a timer of more than some seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// An idle while, in which both sides ask whether the other is still there.
const IDLE: Duration = Duration::from_secs(200);
/// What came is acknowledged within this time.
const ACKNOWLEDGED: Duration = Duration::from_millis(100);
/// Steps of one call; more means that it goes in circles.
const MOST_STEPS: u32 = 100_000;

/// What a call came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Data moved both ways, and the client hung up.
    Good {
        /// How long it took until data could flow.
        took: Duration,
        /// Protocols that the server rejected.
        rejected: Vec<u16>,
    },
    /// The server ended it, before any data could flow.
    Refused(Cause),
}

/// A frame that never arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// All arrive.
    Nothing,
    /// The packet with this place among those from the client.
    Up(u32),
    /// The packet with this place among those from the server.
    Down(u32),
}

/// What a client said, for whoever wants to say it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// On the control connection.
    Tcp(Vec<u8>),
    /// In GRE: the PPP frame.
    Frame(Vec<u8>),
}

/// See the module's text.
pub struct Player<'a> {
    profile: &'a Profile,
    wish: Wish,
    lost: Lost,
    /// The server, for whoever has other things to say to it.
    pub server: Concentrator,
    line: usize,
    link: Link<'a>,
    started: bool,
    /// The id that the server chose.
    call: Option<CallId>,
    closed: bool,
    cleared: bool,
    stopped: bool,
    echo_due: Option<Time>,
    /// The next GRE number.
    seq: Seq,
    /// When the oldest packet left that is not acknowledged, and its number.
    unacknowledged: Option<(Time, Seq)>,
    received: Option<Seq>,
    /// What came is to be acknowledged, at the latest then.
    ack_due: Option<Time>,
    counts: [u32; 2],
    downward: Vec<Vec<u8>>,
    upward: Vec<Vec<u8>>,
    /// Everything that passed, for whoever must find out what went wrong.
    pub(super) log: Vec<String>,
    /// What the client said so far.
    pub said: Vec<Said>,
    /// What the server said to others.
    pub others: Vec<Output>,
    /// Control frames of the server, and when they came.
    pub heard: Vec<(Time, Vec<u8>)>,
    /// When the server closed the control connection.
    pub closed_at: Option<Time>,
    steps: u32,
    /// Data moves: that is not for the log.
    moving: bool,
}

impl<'a> Player<'a> {
    /// A client of a server of its own.
    pub fn new(profile: &'a Profile, wish: Wish, lost: Lost) -> Self {
        Self::with(Concentrator::new(wish.settings()), profile, wish, lost)
    }

    /// A client of this server.
    pub fn with(mut server: Concentrator, profile: &'a Profile, wish: Wish, lost: Lost) -> Self {
        let line = server.connect(CLIENT);
        Self {
            profile,
            wish,
            lost,
            server,
            line,
            link: Link::new(profile, wish),
            started: false,
            call: None,
            closed: false,
            cleared: false,
            stopped: false,
            echo_due: None,
            seq: Seq(profile.gre.first),
            unacknowledged: None,
            received: None,
            ack_due: None,
            counts: [0; 2],
            downward: Vec::new(),
            upward: Vec::new(),
            log: Vec::new(),
            said: Vec::new(),
            others: Vec::new(),
            heard: Vec::new(),
            closed_at: None,
            steps: 0,
            moving: false,
        }
    }

    /// Dials, and waits until data can flow or it is over; says whether it can.
    ///
    /// # Errors
    /// Says what the server did that it may not do.
    pub fn dial(&mut self) -> Outcome<bool> {
        self.start();
        let limit = self.server.now() + PATIENCE;
        self.until(limit, |player| player.link.is_up() || player.is_over())?;
        Ok(self.link.is_up())
    }

    /// Time passes.
    ///
    /// # Errors
    /// Says what the server did that it may not do, or that the call is over.
    pub fn wait(&mut self, time: Duration) -> Outcome {
        self.until(self.server.now() + time, Self::is_over)?;
        if self.is_over() {
            return Err("the call ended while nothing happened".to_owned());
        }
        Ok(())
    }

    /// The whole call.
    pub(super) fn play(&mut self) -> Outcome<End> {
        if !self.dial()? {
            return self.refused();
        }
        let took = self.server.now().since(Time::ZERO);
        self.check_terms()?;
        self.move_data(PACKETS)?;
        self.wait(IDLE)?;
        self.check_habits()?;
        self.move_data(PACKETS)?;
        let rejected = self.link.rejected.clone();
        self.hang_up()?;
        Ok(End::Good { took, rejected })
    }

    /// Whether the server ended the call.
    pub fn is_over(&self) -> bool {
        self.closed || self.cleared
    }

    /// The server ended it: what it says about that.
    fn refused(&mut self) -> Outcome<End> {
        if !self.is_over() {
            return Err("neither up nor over".to_owned());
        }
        self.closed = true;
        self.server.hang_up(self.line);
        self.until(self.server.now() + PATIENCE, |_| false)?;
        match self.server.ended() {
            [ended] if ended.up.is_none() => Ok(End::Refused(ended.cause)),
            other => Err(format!("not up, and yet {other:?}")),
        }
    }

    /// What was agreed is what was wanted.
    fn check_terms(&mut self) -> Outcome {
        let wanted = match self.wish.mppe.option() {
            0 => None,
            bits => Some(bits),
        };
        if self.link.bits() != [wanted; 2] {
            return Err(format!("agreed on {:08x?}", self.link.bits()));
        }
        let asked = self.link.asked(ppp::Protocol::LCP);
        if asked.iter().any(|kind| [13, 17, 19].contains(kind)) {
            return Err("callback or multilink was acknowledged".to_owned());
        }
        if self.link.asked(ppp::Protocol::IPCP).contains(&2) {
            return Err("VJ was acknowledged".to_owned());
        }
        let snapshots = self.server.snapshots(self.line);
        let [snapshot] = &snapshots[..] else {
            return Err(format!("{} calls", snapshots.len()));
        };
        let link = snapshot.link.as_ref().ok_or("a call without a link")?;
        let texts = &link.identification;
        // They are sent once, answered by nothing.
        let said = texts.len() == self.profile.lcp.identification.len();
        if !said && self.lost == Lost::Nothing {
            return Err(format!("identified itself as {texts:?}"));
        }
        let address = self.link.address().map(Ipv4Addr::from);
        if snapshot.address != address || address.is_none() {
            return Err(format!("{address:?}, not {:?}", snapshot.address));
        }
        if DNS == REMOTE {
            return Err("one address twice".to_owned());
        }
        Ok(())
    }

    /// Both sides asked whether the other was there, and were answered.
    fn check_habits(&self) -> Outcome {
        if self.link.asked_for_echo == 0 {
            return Err("no LCP Echo-Request came".to_owned());
        }
        if self.link.echoes > 1 {
            return Err(format!("{} echoes without an answer", self.link.echoes));
        }
        Ok(())
    }

    // Time.

    fn deadline(&self) -> Option<Time> {
        if self.closed {
            return self.server.deadline();
        }
        let ours = [self.echo_due, self.ack_due, self.link.deadline()];
        let acknowledged = self
            .unacknowledged
            .filter(|_| self.lost == Lost::Nothing)
            .map(|(at, _)| at + ACKNOWLEDGED * 2);
        ours.into_iter()
            .flatten()
            .chain(acknowledged)
            .chain(self.server.deadline())
            .min()
    }

    /// Lets things happen until `end`, or until `done` says so.
    fn until(&mut self, end: Time, done: impl Fn(&Self) -> bool) -> Outcome {
        loop {
            self.settle()?;
            if done(self) {
                return Ok(());
            }
            let next = self.deadline().filter(|next| *next <= end);
            let Some(next) = next else {
                self.server.wake(end);
                return self.settle();
            };
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err("it goes in circles".to_owned());
            }
            self.server.wake(next);
            self.settle()?;
            self.handle_timeout()?;
        }
    }

    fn handle_timeout(&mut self) -> Outcome {
        if self.closed {
            return Ok(());
        }
        let now = self.server.now();
        if self.echo_due.is_some_and(|due| due <= now) {
            self.tell(&Message::EchoRequest { identifier: 77 });
        }
        self.link.handle_timeout(now)?;
        self.settle()?;
        if self.ack_due.is_some_and(|due| due <= now) {
            self.gre(None);
        }
        if let Some((at, seq)) = self.unacknowledged
            && now.since(at) > ACKNOWLEDGED
            && self.lost == Lost::Nothing
        {
            return Err(format!("{seq:?} was not acknowledged in time"));
        }
        Ok(())
    }

    /// Everything that is to be said and heard at this moment.
    fn settle(&mut self) -> Outcome {
        loop {
            let mut any = false;
            while let Some(frame) = self.link.out.pop_front() {
                any = true;
                self.gre(Some(&frame));
            }
            while let Some(output) = self.server.poll() {
                any = true;
                match output {
                    Output::Tcp(line, octets) if line == self.line => self.hear(&octets)?,
                    Output::Closed(line) if line == self.line => {
                        self.note("down TCP closed");
                        self.closed_at = Some(self.server.now());
                        self.closed = true;
                    }
                    Output::Gre { to, packet } if to == CLIENT => self.hear_gre(&packet)?,
                    Output::Inner(packet) => self.upward.push(packet),
                    other => self.others.push(other),
                }
            }
            if !any {
                return Ok(());
            }
        }
    }

    fn note(&mut self, text: &str) {
        if self.moving {
            return;
        }
        let at = self.server.now().since(Time::ZERO);
        self.log.push(format!("{at:?} {text}"));
    }

    // GRE.

    /// Sends a frame, or an acknowledgement alone.
    fn gre(&mut self, frame: Option<&[u8]>) {
        let Some(call_id) = self.call else { return };
        let header = gre::Header {
            call_id,
            seq: frame.map(|_| self.seq),
            ack: self.received.filter(|_| self.ack_due.is_some()),
            payload_len: frame.map_or(0, |frame| frame.len() as u16),
        };
        let now = self.server.now();
        if let Some(frame) = frame {
            self.said.push(Said::Frame(frame.to_vec()));
            self.unacknowledged.get_or_insert((now, self.seq));
            self.seq = self.seq.next();
        }
        self.ack_due = None;
        let mut packet = vec![0; header.len()];
        header.emit(&mut packet).expect("room for a header");
        packet.extend(frame.unwrap_or_default());
        let lost = self.lost == Lost::Up(self.counts[0]);
        self.counts[0] += 1;
        self.note(&format!(
            "up GRE{} {}",
            if lost { " LOST" } else { "" },
            hex(&packet)
        ));
        if lost {
            self.unacknowledged = None;
        } else {
            self.server.gre(CLIENT, &packet);
        }
    }

    fn hear_gre(&mut self, packet: &[u8]) -> Outcome {
        let lost = self.lost == Lost::Down(self.counts[1]);
        self.counts[1] += 1;
        self.note(&format!(
            "down GRE{} {}",
            if lost { " LOST" } else { "" },
            hex(packet)
        ));
        if lost {
            return Ok(());
        }
        let now = self.server.now();
        let header = gre::Packet::parse(packet).map_err(|fault| format!("GRE: {fault:?}"))?;
        if header.call_id != CallId(self.profile.control.call_id) {
            // Of a call that this client had before it crashed.
            let packet = packet.to_vec();
            self.others.push(Output::Gre { to: CLIENT, packet });
            return Ok(());
        }
        if packet.len() != header.header_len + header.payload_len {
            return Err("GRE of another length".to_owned());
        }
        if let Some(ack) = header.ack {
            if self.seq.distance(ack) <= 0 {
                return Err(format!("{ack:?} is acknowledged and was not sent"));
            }
            match self.unacknowledged {
                Some((_, oldest)) if ack.distance(oldest) >= 0 => {
                    let last = Seq(self.seq.0.wrapping_sub(1));
                    self.unacknowledged = (ack != last).then_some((now, ack.next()));
                }
                _ => {}
            }
        }
        let Some(seq) = header.seq else {
            return Ok(());
        };
        let expected = self.received.map(Seq::next);
        let gap = self.lost != Lost::Nothing;
        if expected.is_some_and(|expected| expected != seq && !gap) {
            return Err(format!("{seq:?} came, not {expected:?}"));
        }
        self.received = Some(seq);
        let delay = Duration::from_millis(self.profile.gre.ack_delay);
        self.ack_due.get_or_insert(now + delay);
        let frame = &packet[header.payload_range()];
        if ppp::Frame::parse(frame).is_ok_and(|frame| !frame.protocol.is_data()) {
            self.heard.push((now, frame.to_vec()));
        }
        if let Some(data) = self.link.hear(frame, now)? {
            self.downward.push(data);
        }
        Ok(())
    }

    // The end.

    fn hang_up(&mut self) -> Outcome {
        for step in self.profile.goodbye.clone() {
            match step {
                Step::Terminate => {
                    self.link.terminate();
                    self.settle()?;
                    if !self.link.goodbye_answered {
                        return Err("no Terminate-Ack".to_owned());
                    }
                }
                Step::Clear => {
                    let call_id = CallId(self.profile.control.call_id);
                    self.tell(&Message::CallClearRequest { call_id });
                    self.settle()?;
                    if !self.cleared {
                        return Err("no Call-Disconnect-Notify".to_owned());
                    }
                }
                Step::Stop => {
                    self.tell(&Message::StopRequest {
                        reason: StopReason::NONE,
                    });
                    self.settle()?;
                    if !self.stopped {
                        return Err("no Stop-Control-Connection-Reply".to_owned());
                    }
                }
                Step::Close => {
                    self.closed = true;
                    self.server.hang_up(self.line);
                }
            }
            self.settle()?;
        }
        self.until(self.server.now() + Duration::from_secs(10), |_| false)?;
        let polite = self.profile.goodbye != [Step::Close];
        let cause = if polite {
            Cause::HungUp
        } else {
            Cause::ConnectionLost
        };
        let packets = 2 * u64::from(PACKETS);
        let octets = packets * udp(REMOTE, REMOTE, 0).len() as u64;
        match self.server.ended() {
            [ended]
                if ended.cause == cause
                    && (self.lost != Lost::Nothing
                        || ended.counters.received_packets == packets
                            && ended.counters.received_octets == octets
                            && ended.counters.sent_packets == packets
                            && ended.counters.sent_octets == octets) => {}
            other => return Err(format!("ended as {other:?}")),
        }
        if !self.server.is_empty() {
            return Err("something is left".to_owned());
        }
        Ok(())
    }
}

fn hex(octets: &[u8]) -> String {
    let shown = &octets[..octets.len().min(64)];
    let mut text: String = shown.iter().map(|octet| format!("{octet:02x}")).collect();
    if shown.len() < octets.len() {
        text.push_str("..");
    }
    text
}
