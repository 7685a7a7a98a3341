//! The world at work.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, VecDeque};

use turnpike_bench::subscriber::Subscriber;
use turnpike_controlplane::calls::Calls;
use turnpike_controlplane::tunnel::Tunnel;
use turnpike_dataplane::api::{CallRef, Command, Owners, Port, SourceCheck, WorkerId};
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::rings::{channel, channels};
use turnpike_protocol::ppp::Credentials;
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::{CallId, Role, Time};

use super::carry::stray;
use super::model::{INNER, Model, Way};
use super::network::{Stream, Wire};
use super::node::{Node, RINGS};
use super::story::{Ending, Person, Story};
use super::trial::Trial;
use super::{Chance, Tally};

/// The server's outer address.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Inner addresses: few, so that they come back.
const POOL: core::ops::Range<u8> = 10..24;

/// How long everybody may take to come up once the weather is good: PPP's longest series of repetitions.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What is on its way when the weather turns arrives within this time, and the path's delay twice.
const SETTLE: Duration = Duration::from_secs(1);
/// PPP repeats what was lost every 3 s; in good weather twice is enough.
const REPEATED: Duration = Duration::from_secs(7);
/// Packets each way on every call in good weather, all of which must come out.
const PROOF: u32 = 24;
/// How long everything may take to be over: Terminate-Requests, then Stop-Control-Connection-Request.
const GOODBYE: Duration = Duration::from_secs(40);
/// Events of one world; more means that it goes in circles.
const MOST_STEPS: u64 = 400_000;

/// Something that will happen.
pub(super) enum Happening {
    Dial(Person),
    /// A frame on the access port of the client (`None`) or of a worker of the server.
    Frame(Option<usize>, Vec<u8>),
    ToServer(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    ServerGone(usize),
    ClientGone(usize),
    Judge(usize, CallRef, Credentials, Option<Ipv4Addr>),
    Leave(usize, Ending),
    Data(Ipv4Addr, Way),
}

/// A control connection.
pub(super) struct Connection {
    pub(super) person: Person,
    /// The client's id of its first call.
    pub(super) first: CallId,
    pub(super) subscriber: Subscriber,
    pub(super) tunnel: Tunnel,
    pub(super) up: Stream,
    pub(super) down: Stream,
    /// TCP, as each end sees it.
    pub(super) client_open: bool,
    pub(super) server_open: bool,
    /// It ends because somebody wanted it to.
    pub(super) leaving: bool,
    /// When the last verdict on one of its logins comes.
    pub(super) judged: Time,
    /// Calls that are up at the client, with their addresses.
    pub(super) online: BTreeMap<u16, Ipv4Addr>,
    /// Calls that the client has lost.
    pub(super) over: usize,
}

pub(super) struct World {
    pub(super) story: Story,
    pub(super) chance: Chance,
    pub(super) now: Time,
    pub(super) agenda: BTreeMap<(Time, u64), Happening>,
    pub(super) number: u64,
    pub(super) bad: bool,
    /// Data keeps coming.
    pub(super) busy: bool,
    pub(super) client: Node,
    pub(super) server: Vec<Node>,
    pub(super) owners: Owners,
    pub(super) connections: Vec<Connection>,
    pub(super) wires: [Wire; 2],
    pub(super) calls: Calls,
    pub(super) free: VecDeque<Ipv4Addr>,
    pub(super) addresses: HashMap<CallRef, Ipv4Addr>,
    /// Addresses of calls that authenticate anew.
    pub(super) resting: HashMap<CallRef, Ipv4Addr>,
    pub(super) next_id: u16,
    pub(super) model: Model,
    /// A login is on trial.
    pub(super) trial: Option<Trial>,
    /// What was sent beside data.
    pub(super) trace: Option<Vec<String>>,
}

pub(super) type Outcome<T = ()> = Result<T, String>;

/// Plays the world of a seed to its end. The error says what did not hold, and when; with `trace`, also which control
/// frames were sent.
pub fn run(seed: u64, trace: bool) -> Outcome<Tally> {
    let mut chance = Chance::new(seed);
    let story = Story::draw(&mut chance);
    let mut world = World::new(story, chance)?;
    world.trace = trace.then(Vec::new);
    world.play().map_err(|error| world.report(&error))?;
    Ok(world.model.tally)
}

pub(super) fn mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([2, 0xee, a, b, c, d])
}

impl World {
    pub(super) fn new(story: Story, mut chance: Chance) -> Outcome<Self> {
        let io = |error: std::io::Error| error.to_string();
        let owners = Owners::round_robin(story.workers);
        let server: Vec<Node> = channels(story.workers, &RINGS)
            .map_err(io)?
            .into_iter()
            .enumerate()
            .map(|(id, ends)| {
                Node::new(
                    Role::Server,
                    WorkerId(id as u8),
                    &owners,
                    Some(INNER),
                    story.queue,
                    ends,
                )
            })
            .collect();
        let ends = channel(&RINGS).map_err(io)?;
        let one = Owners::round_robin(1);
        let client = Node::new(Role::Client, WorkerId(0), &one, None, story.queue, ends);
        Ok(Self {
            calls: Calls::new(
                owners.clone(),
                story.workers,
                64,
                chance.u16(),
                SourceCheck::Strict,
            ),
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            number: 0,
            bad: true,
            busy: true,
            client,
            server,
            owners,
            connections: Vec::new(),
            wires: Default::default(),
            free: POOL.map(|last| Ipv4Addr::new(10, 20, 0, last)).collect(),
            addresses: HashMap::new(),
            resting: HashMap::new(),
            next_id: chance.u16(),
            model: Model::default(),
            trial: None,
            trace: None,
            story,
            chance,
        })
    }

    /// What workers know before anybody dials, and when who will.
    pub(super) fn begin(&mut self) -> Outcome {
        self.client.tell(Command::Neighbour {
            port: Port::Access,
            address: SERVER,
            mac: Some(mac(SERVER)),
        })?;
        let pool = "10.20.0.0/24".parse().map_err(|_| "prefix")?;
        for node in &mut self.server {
            node.tell(Command::Pool { prefix: pool })?;
        }
        for person in self.story.people.clone() {
            let at = Time::ZERO + person.dials;
            self.plan(at, Happening::Dial(person));
        }
        Ok(())
    }

    fn play(&mut self) -> Outcome {
        self.begin()?;
        // Bad weather.
        self.until(Time::ZERO + self.story.bad_weather, |_| false)?;
        // Good weather: everybody who wants to be is online.
        self.bad = false;
        if !self.until(self.now + PATIENCE, Self::everybody_is_up)? {
            return Err(format!("not everybody came up: {}", self.describe()));
        }
        // The client may think so first, and the server wait for an answer that was lost, until it asks again.
        self.until(self.now + REPEATED, |_| false)?;
        self.busy = false;
        self.until(self.now + self.settled(), |_| false)?;
        self.prove()?;
        self.end()
    }

    /// Longer than anything is on its way.
    fn settled(&self) -> Duration {
        SETTLE + 2 * self.story.weather.delay
    }

    /// In good weather every packet comes out, in order, once.
    pub(super) fn prove(&mut self) -> Outcome {
        let online: Vec<Ipv4Addr> = self.online().collect();
        let before: Vec<_> = online.iter().map(|a| self.model.figures(*a)).collect();
        for n in 0..PROOF {
            for address in &online {
                let at = self.now + Duration::from_millis(u64::from(n) * 7);
                for way in [Way::Up, Way::Down] {
                    self.plan(at, Happening::Data(*address, way));
                }
            }
        }
        self.until(self.now + self.settled(), |_| false)?;
        for (address, before) in online.iter().zip(before) {
            let after = self.model.figures(*address);
            let (Some(before), Some(after)) = (before, after) else {
                return Err(format!("{address} went offline in good weather"));
            };
            let each: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            // One more than planned when terms are repeated just now.
            let [up, came_up, down, came_down] = each[..] else {
                return Err("four figures".to_owned());
            };
            if up != came_up || down != came_down || up.min(down) < u64::from(PROOF) {
                return Err(format!(
                    "in good weather {address} sent {up} and {came_up} came up, {down} were sent down and \
                     {came_down} came; drops: {}",
                    self.drops()
                ));
            }
            self.model.tally.count("calls proved");
        }
        Ok(())
    }

    /// Everybody leaves, and nothing stays behind.
    pub(super) fn end(&mut self) -> Outcome {
        let online: Vec<Ipv4Addr> = self.online().collect();
        for at in 0..self.connections.len() {
            let ending = self.connections[at].person.ending;
            self.leave(at, ending)?;
        }
        if !self.until(self.now + GOODBYE, Self::everything_is_over)? {
            return Err(format!("something is left: {}", self.describe()));
        }
        self.until(self.now + self.settled(), |_| false)?;
        if !self.calls.is_empty() || self.model.online() > 0 || !self.addresses.is_empty() {
            return Err(format!(
                "{} ids and {} addresses are still taken",
                self.calls.len(),
                self.model.online()
            ));
        }
        // Packets for those who were online go nowhere.
        for address in online {
            let Some(node) = self.server.first_mut() else {
                continue;
            };
            node.arrive_from_linux(&stray(address))?;
            node.work(self.now);
            if !node.sent(Port::Access).is_empty() {
                return Err(format!("a packet for {address} left after the end"));
            }
            node.sent(Port::Host);
        }
        for node in self.server.iter().chain([&self.client]) {
            let counters = node.worker.counters();
            for (reason, n) in counters.reasons() {
                self.model.tally.add(reason.name(), n);
            }
            // Nothing waits any more, and every packet has gone somewhere.
            for total in [
                Total::Held,
                Total::ReorderTimeouts,
                Total::ReorderFull,
                Total::ReorderFlushed,
            ] {
                self.model.tally.add(total.name(), counters.total(total));
            }
            let balance = counters.balance();
            if counters.total(Total::Held) != counters.total(Total::Released)
                || balance.came != balance.went
            {
                return Err(format!("a worker's books do not balance: {balance:?}"));
            }
        }
        Ok(())
    }

    // Time.

    pub(super) fn plan(&mut self, at: Time, happening: Happening) {
        self.number += 1;
        self.agenda
            .insert((at.max(self.now), self.number), happening);
    }

    /// Lets things happen until `end`, or until `done` says so; says whether it did.
    pub(super) fn until(&mut self, end: Time, done: fn(&Self) -> bool) -> Outcome<bool> {
        loop {
            self.settle()?;
            if done(self) {
                return Ok(true);
            }
            let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let timers = self
                .connections
                .iter()
                .flat_map(|c| [c.subscriber.deadline(), c.tunnel.deadline()])
                .chain(self.server.iter().map(Node::next))
                .chain([self.client.next()])
                .flatten()
                .min();
            let next = planned.into_iter().chain(timers).min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return Ok(done(self));
                }
            }
            self.number += 1;
            if self.number > MOST_STEPS {
                return Err("it goes in circles".to_owned());
            }
            while let Some(entry) = self.agenda.first_entry()
                && entry.key().0 <= self.now
            {
                let happening = entry.remove();
                self.happen(happening)?;
                self.settle()?;
            }
            for at in 0..self.connections.len() {
                let connection = &mut self.connections[at];
                if connection
                    .subscriber
                    .deadline()
                    .is_some_and(|d| d <= self.now)
                {
                    connection.subscriber.handle_timeout(self.now);
                }
                if connection.tunnel.deadline().is_some_and(|d| d <= self.now) {
                    connection.tunnel.handle_timeout(self.now);
                }
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Outcome {
        let now = self.now;
        match happening {
            Happening::Dial(person) => self.dial(person),
            Happening::Frame(None, frame) => return self.client.arrive(Port::Access, &frame),
            Happening::Frame(Some(worker), frame) => {
                return self.server[worker].arrive(Port::Access, &frame);
            }
            Happening::ToServer(at, octets) => {
                if self.connections[at].server_open {
                    self.connections[at].tunnel.receive(&octets, now);
                }
            }
            Happening::ToClient(at, octets) => {
                if self.connections[at].client_open {
                    self.connections[at]
                        .subscriber
                        .receive(&octets, now)
                        .map_err(|error| format!("the client does not understand: {error}"))?;
                }
            }
            Happening::ServerGone(at) => {
                let connection = &mut self.connections[at];
                if core::mem::take(&mut connection.client_open)
                    && !connection.subscriber.is_finished()
                {
                    connection.subscriber.connection_lost(now);
                }
            }
            Happening::ClientGone(at) => {
                let connection = &mut self.connections[at];
                if core::mem::take(&mut connection.server_open) {
                    connection.tunnel.hung_up(now);
                }
            }
            Happening::Judge(at, call, credentials, holds) => {
                return self.judge(at, call, &credentials, holds);
            }
            Happening::Leave(at, ending) => return self.leave(at, ending),
            Happening::Data(address, way) => return self.data(address, way),
        }
        Ok(())
    }

    /// Everybody works until nobody has anything to do at this moment.
    fn settle(&mut self) -> Outcome {
        for _ in 0..1_000 {
            let mut any = self.client.work(self.now);
            for node in &mut self.server {
                any |= node.work(self.now);
            }
            any |= self.frames()?;
            any |= self.events();
            for at in 0..self.connections.len() {
                while let Some(action) = self.connections[at].subscriber.poll() {
                    any = true;
                    self.client_acts(at, action)?;
                }
                while let Some(action) = self.connections[at].tunnel.poll() {
                    any = true;
                    self.server_acts(at, action)?;
                }
            }
            if !any {
                return Ok(());
            }
        }
        Err("this moment never ends".to_owned())
    }
}
