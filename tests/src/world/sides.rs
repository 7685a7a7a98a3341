//! What clients and servers do when their cores ask for it.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeMap;

use turnpike_bench::subscriber::{self, Cause as ClientCause, Subscriber, SubscriberConfig};
use turnpike_controlplane::aaa::Login;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::tunnel::{self, Placement, Refusal, Settings, Tunnel};
use turnpike_dataplane::api::{CallRef, Command, Event, Port};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, Credentials, Grant};
use turnpike_protocol::pptp::CallerConfig;
use turnpike_protocol::{CallId, Time};

use super::model::{INNER, Way};
use super::network::Stream;
use super::play::{Connection, Happening, Outcome, SERVER, World, mac};
use super::story::Person;

impl World {
    pub(super) fn dial(&mut self, person: Person) {
        let local = Ipv4Addr::new(198, 51, 100, 10 + person.user % 3);
        let password = if person.honest {
            password(person.user)
        } else {
            "a guess".to_owned()
        };
        let config = SubscriberConfig {
            caller: CallerConfig::default(),
            link: ClientLink {
                mppe: self.story.mppe,
                mppe_allowed: self.story.mppe_allowed,
                methods: vec![self.story.method],
                ..ClientLink::new(user(person.user).as_bytes(), Password::new(&password))
            },
            local,
            server: SERVER,
            via: SERVER,
        };
        let mut ids = Vec::new();
        for _ in 0..person.calls {
            ids.push((CallId(self.next_id), self.chance.seed()));
            self.next_id = self.next_id.wrapping_add(1);
        }
        let settings = Settings {
            name: "world".to_owned(),
            mtu: 1400,
            mppe: self.story.mppe,
            mppe_allowed: self.story.mppe_allowed,
            login: Login {
                methods: vec![self.story.method],
                rechallenge: self.story.rechallenge,
            },
            setup_time: self.story.set_up,
            echo_interval: Duration::from_secs(30),
            calls: 16,
            inform: None,
            dhcp6: None,
        };
        if let Some((after, ending)) = person.leaves {
            let at = self.connections.len();
            self.plan(self.now + after, Happening::Leave(at, ending));
        }
        let tunnel = Tunnel::new(settings, SERVER, local, self.now);
        self.connections.push(Connection {
            first: ids.first().map_or(CallId(0), |(id, _)| *id),
            subscriber: Subscriber::new(config, ids, self.now),
            tunnel,
            up: Stream::default(),
            down: Stream::default(),
            client_open: true,
            server_open: true,
            leaving: false,
            judged: Time::ZERO,
            online: BTreeMap::new(),
            over: 0,
            person,
        });
    }

    pub(super) fn client_acts(&mut self, at: usize, action: subscriber::Action) -> Outcome {
        match action {
            subscriber::Action::Tcp(octets) => {
                if self.connections[at].client_open {
                    self.tcp(at, true, &octets);
                }
            }
            subscriber::Action::Command(command) => self.client.tell(command)?,
            subscriber::Action::Started(_) | subscriber::Action::Held { .. } => {}
            subscriber::Action::Up6 { .. } => {
                return Err("IPv6 that nobody asked for".to_owned());
            }
            subscriber::Action::Up { id, terms, .. } => {
                if !self.connections[at].person.honest {
                    return Err("a client is up that does not know its password".to_owned());
                }
                self.connections[at].online.insert(id.0, terms.address);
                self.model.tally.count("calls up");
                for way in [Way::Up, Way::Down] {
                    self.plan(self.now, Happening::Data(terms.address, way));
                }
            }
            subscriber::Action::Ended { id, cause, .. } => {
                let connection = &mut self.connections[at];
                connection.online.remove(&id.0);
                connection.over += 1;
                let leaving = connection.leaving;
                let honest = connection.person.honest;
                match &mut self.trial {
                    Some(trial) => trial.client_lost(at, &cause),
                    None => self.client_lost(leaving, honest, &cause)?,
                }
            }
            subscriber::Action::Finished(_) => self.close(at, true),
        }
        Ok(())
    }

    /// A call may end because somebody wanted it to, or because its password was wrong; for no other reason.
    fn client_lost(&mut self, leaving: bool, honest: bool, cause: &ClientCause) -> Outcome {
        if leaving {
            return Ok(());
        }
        if !honest && cause.windows_error() == Some(691) {
            self.model.tally.count("wrong passwords refused");
            return Ok(());
        }
        if !honest && matches!(cause, ClientCause::Link(_) | ClientCause::Disconnected(..)) {
            // The network lost the server's Failure, which is never repeated.
            self.model
                .tally
                .count("wrong passwords refused without a word");
            return Ok(());
        }
        Err(format!("a call ended that nobody wanted to end: {cause}"))
    }

    // The server.

    pub(super) fn server_acts(&mut self, at: usize, action: tunnel::Action) -> Outcome {
        match action {
            tunnel::Action::Tcp(octets) => {
                if self.connections[at].server_open {
                    self.tcp(at, false, &octets);
                }
            }
            tunnel::Action::Place { peer_id } => {
                let (local, peer) = self.connections[at].tunnel.ends();
                let call = self
                    .calls
                    .lease(local, peer, self.now)
                    .map_err(|error| error.to_string())?;
                // The neighbour is known before anybody is told of the call.
                let owner = usize::from(self.owners.owner(call.id).0);
                self.server[owner].tell(Command::Neighbour {
                    port: Port::Access,
                    address: peer,
                    mac: Some(mac(peer)),
                })?;
                let seed = self.chance.seed();
                let placement = Placement {
                    call,
                    via: peer,
                    seed,
                };
                self.connections[at]
                    .tunnel
                    .placed(peer_id, Ok(placement), self.now);
            }
            tunnel::Action::Data(command) => self.tell_server(*command)?,
            tunnel::Action::Authenticate {
                call,
                credentials,
                holds,
            } => {
                let mut later = self.now + self.chance.up_to(Duration::from_millis(300));
                if let Some(trial) = &mut self.trial {
                    later += trial.judging(at)?;
                    self.inject(at)?;
                }
                // One verdict for each, in their order.
                let connection = &mut self.connections[at];
                later = later.max(connection.judged + Duration::from_nanos(1));
                connection.judged = later;
                self.plan(later, Happening::Judge(at, call, credentials, holds));
            }
            tunnel::Action::Notice(_) | tunnel::Action::Begin(_) | tunnel::Action::Cease(_) => {}
            tunnel::Action::Release6(_) => {
                return Err("prefixes came back that nobody was given".to_owned());
            }
            tunnel::Action::Release { address, .. } => {
                let holder = self.addresses.iter().find(|(_, held)| **held == address);
                let call = *holder.ok_or("an address that nobody has is given back")?.0;
                self.addresses.remove(&call);
                self.resting.insert(call, address);
            }
            tunnel::Action::Ended(ended) => {
                self.calls.free(ended.call, self.now);
                let given = self.addresses.remove(&ended.call);
                if given != ended.address {
                    return Err(format!(
                        "{} had the address {given:?} and gives back {:?}",
                        ended.call, ended.address
                    ));
                }
                if let Some(address) = given.or_else(|| self.resting.remove(&ended.call)) {
                    self.model.logout(address, &ended.counters)?;
                    self.free.push_back(address);
                }
                let connection = &self.connections[at];
                if let Some(trial) = &mut self.trial {
                    return trial.server_lost(at, connection.leaving, ended.cause);
                }
                let expected = connection.leaving
                    || (!connection.person.honest && ended.cause == Cause::AuthenticationFailed);
                if !expected {
                    return Err(format!(
                        "the server ended {} of {:?} because of {:?}",
                        ended.call, connection.person.user, ended.cause
                    ));
                }
            }
            tunnel::Action::Choose { call, .. } => {
                self.connections[at].tunnel.chosen(call, None, self.now);
            }
            tunnel::Action::Bound { .. } => {
                return Err("a source was bound where sources are checked".to_owned());
            }
            tunnel::Action::Close => self.close(at, false),
        }
        Ok(())
    }

    /// Routes go to every worker, everything else to the owner of the call.
    fn tell_server(&mut self, command: Command) -> Outcome {
        let call = match &command {
            Command::Route { prefix, call } => {
                for node in &mut self.server {
                    node.tell(Command::Route {
                        prefix: *prefix,
                        call: *call,
                    })?;
                }
                return Ok(());
            }
            Command::Unroute { prefix } => {
                for node in &mut self.server {
                    node.tell(Command::Unroute { prefix: *prefix })?;
                }
                return Ok(());
            }
            _ => command
                .call()
                .ok_or("a tunnel gave a command that is not a tunnel's")?,
        };
        self.server[usize::from(self.owners.owner(call.id).0)].tell(command)
    }

    pub(super) fn judge(
        &mut self,
        at: usize,
        call: CallRef,
        credentials: &Credentials,
        holds: Option<Ipv4Addr>,
    ) -> Outcome {
        let name = String::from_utf8_lossy(credentials.user_part()).into_owned();
        let known = (0..8).find(|number| user(*number) == name);
        let proof = known
            .filter(|_| self.trial.as_ref().is_none_or(|trial| trial.is_known(at)))
            .map(|number| Password::new(password(number)))
            .and_then(|password| credentials.verify(&password.into()).ok());
        if let Some(trial) = &mut self.trial {
            trial.judged(at, proof.is_some());
        }
        let verdict = match proof {
            None => Err(Refusal::new(Cause::AuthenticationFailed)),
            Some(proof) => {
                // A call that authenticates again keeps its address.
                let address = match holds.as_ref().or(self.resting.get(&call)) {
                    Some(address) => *address,
                    None => self.free.pop_front().ok_or("the pool is empty")?,
                };
                Ok(Grant {
                    limits: Default::default(),
                    proof,
                    address,
                    server_address: INNER,
                    dns: [Some(INNER), None],
                    nbns: [None, None],
                    ipv6: None,
                })
            }
        };
        let given = verdict.as_ref().ok().map(|grant| grant.address);
        let taken = self.connections[at].tunnel.verdict(call, verdict, self.now);
        let Some(address) = given.filter(|_| !self.addresses.contains_key(&call)) else {
            return Ok(());
        };
        if taken {
            self.addresses.insert(call, address);
            if self.resting.remove(&call).is_none() {
                self.model.login(address)?;
            }
        } else if !self.resting.contains_key(&call) {
            // LCP was negotiated anew, or the call ended, while it was judged.
            self.model.tally.count("verdicts too late");
            self.free.push_front(address);
        }
        Ok(())
    }

    pub(super) fn events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.client.event() {
            any = true;
            for connection in &mut self.connections {
                // Ids are the clients' own, and no two of them use the same.
                if connection.subscriber.event(&event, self.now) {
                    break;
                }
            }
        }
        for node in &mut self.server {
            while let Some(event) = node.event() {
                any = true;
                let call = match &event {
                    Event::Frame { call, .. }
                    | Event::Inner { call, .. }
                    | Event::Bound { call, .. }
                    | Event::Garbled { call }
                    | Event::Counters { call, .. }
                    | Event::Closed { call, .. } => *call,
                    Event::Lost { frames } => {
                        self.model
                            .tally
                            .add("control frames lost in the ring", *frames);
                        continue;
                    }
                };
                let owner = self.connections.iter_mut().find(|connection| {
                    connection.tunnel.ends() == (call.local, call.peer)
                        && connection
                            .tunnel
                            .snapshots()
                            .any(|snapshot| snapshot.call == call)
                });
                if let Some(connection) = owner {
                    connection.tunnel.event(event, self.now);
                }
            }
        }
        any
    }
}

fn user(number: u8) -> String {
    format!("user{number}")
}

fn password(number: u8) -> String {
    format!("password {number}")
}
