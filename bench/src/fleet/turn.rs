//! What happens to callers: messages of their tasks, packets and timers, and what follows from each.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::HashMap;
use std::io;

use tokio::net::TcpStream;
use turnpike_dataplane::api::{Command, Event};
use turnpike_protocol::Time;
use turnpike_protocol::ppp::PhaseName;
use turnpike_protocol::ppp::packet::code;
use turnpike_protocol::wire::ppp::{self, Protocol};

use super::calls::Done;
use super::wire::{self, MAX_PACKET, Wire};
use super::{END_LIMIT, Fleet, Leave, Message, News, Phase, Stage, Terms, until};
use crate::subscriber::{Action, Subscriber, SubscriberConfig};
use crate::tcp::{self, Heard};

impl Fleet {
    /// Waits for something to happen, and does what follows from it. May be dropped while it waits.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<()> {
        let timer = self.next_deadline();
        tokio::select! {
            Some(message) = self.inbox.recv() => {
                self.message(message)?;
                // Those that came together are dealt with together.
                while let Ok(message) = self.inbox.try_recv() {
                    self.message(message)?;
                }
            }
            local = wire::readable(&self.wires), if !self.wires.is_empty() => self.packets(local),
            () = until(timer) => self.timeouts(),
        }
        Ok(())
    }

    /// The wire of a local address.
    pub(super) fn wire(&mut self, local: Ipv4Addr) -> anyhow::Result<()> {
        if !self.wires.contains_key(&local) {
            let wire = Wire::open(local, *self.server.ip())?;
            self.wires.insert(local, wire);
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> anyhow::Result<()> {
        let now = self.now();
        let number = match message {
            Message::Connected(number, Ok(stream)) => {
                let local = match stream.local_addr()? {
                    SocketAddr::V4(local) => *local.ip(),
                    SocketAddr::V6(_) => anyhow::bail!("the server was reached by IPv6"),
                };
                self.wire(local)?;
                self.connected(number, stream, local, now)?;
                number
            }
            Message::Connected(number, Err(error)) => {
                let reason = match error.kind() {
                    io::ErrorKind::AddrNotAvailable => {
                        "no TCP port is free here: give more addresses to dial --from".to_owned()
                    }
                    _ => format!("cannot connect: {error}"),
                };
                self.over(number, reason);
                self.forget(number);
                return Ok(());
            }
            Message::Heard(number, Heard::Octets(octets)) => {
                let subscriber = self.subscriber(number);
                if subscriber.is_some_and(|subscriber| subscriber.receive(&octets, now).is_err()) {
                    self.cut(number, now);
                }
                number
            }
            Message::Heard(number, Heard::Gone) => {
                self.cut(number, now);
                number
            }
        };
        self.pump(number, now);
        Ok(())
    }

    fn subscriber(&mut self, number: u32) -> Option<&mut Subscriber> {
        self.callers.get_mut(&number)?.subscriber.as_mut()
    }

    /// The control connection is gone.
    fn cut(&mut self, number: u32, now: Time) {
        if let Some(caller) = self.callers.get_mut(&number) {
            caller.writer = None;
            if let Some(subscriber) = &mut caller.subscriber
                && !subscriber.is_finished()
            {
                subscriber.connection_lost(now);
            }
        }
    }

    fn connected(
        &mut self,
        number: u32,
        stream: TcpStream,
        local: Ipv4Addr,
        now: Time,
    ) -> anyhow::Result<()> {
        let Some(caller) = self.callers.get_mut(&number) else {
            return Ok(());
        };
        let Some(Terms {
            caller: config,
            link,
        }) = caller.terms.take()
        else {
            return Ok(());
        };
        let messages = self.messages.clone();
        let hear = move |heard| messages.send(Message::Heard(number, heard)).is_ok();
        let writer = tcp::attach(stream, hear)?;
        let config = SubscriberConfig {
            caller: config,
            link,
            local,
            server: *self.server.ip(),
            via: *self.server.ip(),
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        caller.marks.end(Phase::Tcp, now);
        caller.local = Some(local);
        caller.writer = Some(writer);
        let mut subscriber = Subscriber::new(config, [(caller.id, seed)], now);
        if caller.ending.is_some() {
            subscriber.hang_up(now);
        }
        caller.subscriber = Some(subscriber);
        Ok(())
    }

    /// Reads what has come for a local address.
    fn packets(&mut self, local: Ipv4Addr) {
        let mut buffer = [0; MAX_PACKET];
        while let Some(range) = self
            .wires
            .get(&local)
            .and_then(|wire| wire.receive(&mut buffer))
        {
            let now = self.now();
            let Done { event, .. } = self.calls.receive(&buffer[range], now);
            if let Some(event) = event {
                self.event(&event, now);
            }
        }
    }

    fn event(&mut self, event: &Event, now: Time) {
        let (Event::Frame { call, .. } | Event::Closed { call, .. }) = event else {
            return;
        };
        let Some(number) = self.by_id.get(&call.id).copied() else {
            return;
        };
        if let Event::Frame { frame, .. } = event {
            self.answered(number, frame, now);
        }
        if let Some(subscriber) = self.subscriber(number) {
            subscriber.event(event, now);
        }
        self.pump(number, now);
    }

    /// A frame came that may be the answer to an echo.
    fn answered(&mut self, number: u32, frame: &[u8], now: Time) {
        if let Some(caller) = self.callers.get_mut(&number)
            && let Some((identifier, left)) = caller.asked
            && echo(frame) == Some((code::ECHO_REPLY, identifier))
        {
            caller.asked = None;
            self.echoes.answered += 1;
            let time = now.since(left);
            self.news.push_back(News::Answered(number, time));
        }
    }

    fn next_deadline(&self) -> Option<tokio::time::Instant> {
        let (at, _) = self.deadlines.first()?;
        Some(self.instant(Duration::from_nanos(at.as_nanos())))
    }

    fn timeouts(&mut self) {
        let now = self.now();
        while let Some((due, number)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            if let Some(caller) = self.callers.get_mut(&number) {
                caller.deadline = None;
                if caller.ending.is_some_and(|limit| limit <= now) {
                    self.unfinished += 1;
                    self.leave(number, Leave::Reset);
                    continue;
                }
                if let Some(subscriber) = &mut caller.subscriber {
                    subscriber.handle_timeout(now);
                }
            }
            self.pump(number, now);
        }
    }

    /// Does what a caller wants done, and notes how far it has come.
    pub(super) fn pump(&mut self, number: u32, now: Time) {
        while let Some(action) = self.subscriber(number).and_then(Subscriber::poll) {
            self.act(number, action, now);
        }
        let Some(caller) = self.callers.get_mut(&number) else {
            return;
        };
        let Some(subscriber) = &caller.subscriber else {
            return;
        };
        match subscriber.info(caller.id).map(|info| info.phase) {
            Some(PhaseName::Authenticate) => caller.marks.end(Phase::Lcp, now),
            Some(PhaseName::Network | PhaseName::Up) => {
                caller.marks.end(Phase::Authentication, now);
            }
            _ => {}
        }
        let deadline = subscriber.deadline().into_iter().chain(caller.ending).min();
        let over = subscriber.is_finished() && caller.stage == Stage::Over;
        if let Some(packet) = self.calls.acknowledge(caller.id) {
            send(&mut self.wires, caller.local, &packet);
        }
        let before = core::mem::replace(&mut caller.deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, number));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, number));
            }
        }
        if over {
            self.forget(number);
        }
    }

    fn act(&mut self, number: u32, action: Action, now: Time) {
        let Some(caller) = self.callers.get_mut(&number) else {
            return;
        };
        match action {
            Action::Tcp(octets) => {
                if let Some(writer) = &caller.writer {
                    writer.send(octets);
                }
            }
            Action::Command(command) => {
                match &command {
                    Command::Open { .. } => caller.marks.end(Phase::Call, now),
                    Command::Send { frame, .. } => {
                        if let Some((code::ECHO_REQUEST, identifier)) = echo(frame) {
                            caller.asked = Some((identifier, now));
                            self.echoes.sent += 1;
                        }
                    }
                    _ => {}
                }
                let Done { packet, event } = self.calls.command(&command);
                if let Some(packet) = packet {
                    send(&mut self.wires, caller.local, &packet);
                }
                if let (Some(event), Some(subscriber)) = (event, &mut caller.subscriber) {
                    subscriber.event(&event, now);
                }
            }
            Action::Started(_) => caller.marks.end(Phase::Control, now),
            Action::Up { .. } if caller.stage == Stage::SettingUp => {
                caller.marks.end(Phase::Network, now);
                caller.stage = Stage::Up;
                self.news.push_back(News::Up(number, caller.marks));
            }
            Action::Up { .. } => self.news.push_back(News::UpAgain(number)),
            Action::Held { .. } if caller.stage == Stage::Up => {
                self.news.push_back(News::Held(number));
            }
            Action::Up6 { .. } | Action::Held { .. } => {}
            Action::Ended { cause, .. } => {
                self.over(number, cause.kind());
                // Nothing is left to hold the control connection for.
                self.begin_ending(number, now);
            }
            // What is left is sent, then TCP closes.
            Action::Finished(_) => caller.writer = None,
        }
    }

    /// A call has ended, or will never come up.
    fn over(&mut self, number: u32, reason: String) {
        let Some(caller) = self.callers.get_mut(&number) else {
            return;
        };
        let before = core::mem::replace(&mut caller.stage, Stage::Over);
        match before {
            Stage::SettingUp => {
                let phase = caller.marks.current();
                self.news.push_back(News::Failed(number, phase, reason));
            }
            Stage::Up if caller.ending.is_none() => self.news.push_back(News::Lost(number, reason)),
            Stage::Up | Stage::Over => {}
        }
    }

    pub(super) fn begin_ending(&mut self, number: u32, now: Time) {
        if let Some(caller) = self.callers.get_mut(&number) {
            caller.ending.get_or_insert(now + END_LIMIT);
            if let Some(subscriber) = &mut caller.subscriber {
                subscriber.hang_up(now);
            }
        }
    }

    pub(super) fn forget(&mut self, number: u32) {
        if let Some(caller) = self.callers.remove(&number) {
            self.by_id.remove(&caller.id);
            self.calls.forget(caller.id);
            if let Some(deadline) = caller.deadline {
                self.deadlines.remove(&(deadline, number));
            }
            self.news.push_back(News::Gone(number));
        }
    }
}

fn send(wires: &mut HashMap<Ipv4Addr, Wire>, local: Option<Ipv4Addr>, packet: &[u8]) {
    if let Some(wire) = local.and_then(|local| wires.get_mut(&local)) {
        wire.send(packet);
    }
}

/// Code and identifier, if the frame is an LCP Echo-Request or Echo-Reply.
fn echo(frame: &[u8]) -> Option<(u8, u8)> {
    let header = ppp::Frame::parse(frame).ok()?;
    match frame.get(header.header_len..)? {
        [
            code @ (code::ECHO_REQUEST | code::ECHO_REPLY),
            identifier,
            ..,
        ] if header.protocol == Protocol::LCP => Some((*code, *identifier)),
        _ => None,
    }
}
