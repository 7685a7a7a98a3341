//! Making one call of the demo, with either client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

use super::ClientKind;
use super::account::{Account, Call, Ping, Stream};
use crate::console::Console;
use crate::lab::capture::Witness;
use crate::lab::dial::{self, Client};
use crate::lab::inside::{End, Login, Move, News, StockCall, ping_from};
use crate::lab::road::{self, Road};
use crate::lab::server::{Configuration, Server};
use crate::lab::stock::{self, StockClient};
use crate::lab::transfer::{self, Direction, Hall};

const PINGS: u32 = 5;
const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];

/// Where the calls of a demo are made.
pub struct Stage<'a> {
    pub road: &'a Road,
    pub kind: ClientKind,
    pub console: Console,
}

/// What the two kinds of client have in common to tell.
struct Told {
    reached_before: bool,
    session: Value,
    client: String,
    ping: Ping,
    streams: Vec<Stream>,
}

impl Stage<'_> {
    /// Starts a server with `configuration`, makes one call and moves `bytes` each way.
    pub fn call(&self, configuration: &Configuration, mppe: bool, bytes: u64) -> Result<Call> {
        let road = self.road;
        let marker = transfer::fresh_marker();
        let mut server = Server::start(&road.concentrator, configuration)?;
        let witness = Witness::start(&road.access, road::BRIDGE, &marker)?;
        let before = self.losses()?;
        let hall = Hall::open(&road.internet, road::TARGET, 0)?;
        let told = match self.kind {
            ClientKind::Builtin => {
                self.builtin(&server, configuration, mppe, bytes, &marker, &hall)
            }
            ClientKind::Linux => self.stock(&server, configuration, mppe, bytes, &marker, &hall),
        }
        .with_context(|| format!("turnpike's log:\n{}", last_lines(&server.log())))?;
        let stats = server.settled()?;
        let seen = witness.stop()?;
        let after = self.losses()?;
        let status = server.stop()?;
        ensure!(
            status.success(),
            "turnpike ended badly ({status}):\n{}",
            server.log()
        );
        ensure!(
            !road.concentrator.has_xdp(road::ACCESS_INTERFACE)?,
            "turnpike left its XDP program behind"
        );
        Ok(Call {
            encrypted: mppe,
            reached_before: told.reached_before,
            negotiated: negotiated(&told.session, &told.client),
            session: told.session,
            ping: told.ping,
            streams: told.streams,
            xdp: stats.modes(),
            account: Account::new(&seen, &stats, after.0 - before.0, after.1 - before.1),
            drops: stats.drops(),
        })
    }

    fn builtin(
        &self,
        server: &Server,
        configuration: &Configuration,
        mppe: bool,
        bytes: u64,
        marker: &str,
        hall: &Hall,
    ) -> Result<Told> {
        let client = &self.road.client;
        let target = road::TARGET.to_string();
        let (answers, _) = ping_from(client, &target, 1)?;
        self.console.line(if answers == 0 {
            format!("  before dialling, {target} is unreachable from the client's namespace")
        } else {
            format!("  before dialling, {target} answers the client")
        });
        let mut dialled = Client::start(
            client,
            "turnpike-bench",
            &dial::Plan {
                no_mppe: !mppe,
                ..dial::Plan::new(configuration.user()?)
            },
        )?;
        let up = dialled.wait_up(1, Duration::from_secs(30))?;
        let session = one_session(server)?;
        let (received, average_ms) = ping_from(client, &target, PINGS)?;
        let mut streams = Vec::new();
        for (number, direction) in BOTH.into_iter().enumerate() {
            let bar = self.console.octets(label(direction), bytes);
            let here = transfer::run_inside(
                client,
                hall.address(),
                direction,
                bytes,
                marker,
                &mut |so_far| bar.set_position(so_far),
            )
            .with_context(|| format!("the client said:\n{}", dialled.text()))?;
            bar.finish_and_clear();
            streams.push(self.stream(number, here, hall)?);
        }
        let (status, _) = dialled.hang_up()?;
        ensure!(
            status.success(),
            "turnpike-bench ended badly ({status}):\n{}",
            dialled.text()
        );
        Ok(Told {
            reached_before: answers > 0,
            session,
            client: up.first().map(said).unwrap_or_default(),
            ping: Ping {
                sent: PINGS,
                received,
                average_ms,
            },
            streams,
        })
    }

    fn stock(
        &self,
        server: &Server,
        configuration: &Configuration,
        mppe: bool,
        bytes: u64,
        marker: &str,
        hall: &Hall,
    ) -> Result<Told> {
        let user = configuration.user()?;
        let call = StockCall {
            server: road::SERVER.to_string(),
            user: user.name,
            password: user.password,
            login: Login::default(),
            options: [
                "mtu 1400",
                "mru 1400",
                if mppe { "require-mppe-128" } else { "nomppe" },
            ]
            .map(str::to_owned)
            .to_vec(),
            route: Some("default".to_owned()),
            ping: Some(road::TARGET.to_string()),
            pings: PINGS,
            ping_before: true,
            moves: BOTH
                .map(|direction| Move {
                    to: hall.address(),
                    direction,
                    bytes,
                    marker: marker.to_owned(),
                })
                .to_vec(),
            end: End::Client,
        };
        let mut client = StockClient::start(
            &self.road.client,
            if mppe { "guest-mppe" } else { "guest-clear" },
            1500,
            &call,
            Duration::from_secs(300),
        )?;
        client.wait_until("pings", |_| (), |report| report.pinged.is_some())?;
        let session = one_session(server)?;
        let mut bar: Option<(usize, ProgressBar)> = None;
        let report = client.finish(|news| match news {
            News::Moving {
                number,
                bytes: so_far,
            } => {
                if bar.as_ref().is_none_or(|(which, _)| which != number) {
                    let next = self.console.octets(label(BOTH[*number % 2]), bytes);
                    if let Some((_, last)) = bar.replace((*number, next)) {
                        last.finish_and_clear();
                    }
                }
                if let Some((_, bar)) = &bar {
                    bar.set_position(*so_far);
                }
            }
            News::Moved { .. } => {
                if let Some((_, bar)) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        })?;
        let reached_before = report.reached_before.context("no ping before dialling")?;
        self.console.line(format!(
            "  before dialling, {} {} the guest",
            road::TARGET,
            if reached_before {
                "answers"
            } else {
                "is unreachable from"
            }
        ));
        let up = report.up.context("the call was never up")?;
        let (sent, received, average_ms) = report.pinged.context("no pings")?;
        let modes = stock::negotiated(&client.log());
        let mut streams = Vec::new();
        for (number, here) in report.moved.into_iter().enumerate() {
            streams.push(self.stream(number, here, hall)?);
        }
        Ok(Told {
            reached_before,
            session,
            client: format!(
                "{} MTU {}, receives {}, sends {}",
                up.address,
                up.mtu,
                words(modes.0),
                words(modes.1)
            ),
            ping: Ping {
                sent,
                received,
                average_ms,
            },
            streams,
        })
    }

    fn stream(&self, number: usize, here: transfer::Moved, hall: &Hall) -> Result<Stream> {
        let there = hall.moved(number)?;
        self.console.line(format!(
            "  {:<22} {:>6.0} Mbit/s",
            label(here.direction),
            here.megabits()
        ));
        Ok(Stream { here, there })
    }

    /// Frames that the kernel dropped between the bridge and turnpike's socket, towards turnpike and from it, since the
    /// interfaces were made.
    fn losses(&self) -> Result<(u64, u64)> {
        let read = |namespace: &crate::lab::netns::Namespace, interface: &str| -> Result<u64> {
            let text = namespace.ip(&format!("-json -statistics link show dev {interface}"))?;
            let links: Value = serde_json::from_str(&text)?;
            links[0]["stats64"]["tx"]["dropped"]
                .as_u64()
                .context("an interface without statistics")
        };
        Ok((
            read(&self.road.access, "lan1")?,
            read(&self.road.concentrator, road::ACCESS_INTERFACE)?,
        ))
    }
}

fn label(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "client to internet",
        Direction::Down => "internet to client",
    }
}

fn words(mode: Option<stock::Mppe>) -> String {
    mode.map_or_else(
        || "in clear".to_owned(),
        |mode| {
            let kind = if mode.stateless {
                "stateless"
            } else {
                "stateful"
            };
            format!("MPPE-{} {kind}", mode.bits)
        },
    )
}

/// What the built-in client says of a call.
fn said(up: &Value) -> String {
    format!(
        "{} MTU {}, receives {}, sends {}",
        up["address"].as_str().unwrap_or("no address"),
        up["mtu"],
        mode(&up["mppe_receive"]),
        mode(&up["mppe_transmit"])
    )
}

/// MPPE in words, from turnpike's JSON.
fn mode(mode: &Value) -> String {
    if mode.is_null() {
        return "in clear".to_owned();
    }
    let kind = if mode["stateless"] == true {
        "stateless"
    } else {
        "stateful"
    };
    format!("MPPE-{} {kind}", mode["bits"])
}

fn one_session(server: &Server) -> Result<Value> {
    let mut sessions = server.sessions()?;
    ensure!(
        sessions.len() == 1,
        "turnpike knows {} calls",
        sessions.len()
    );
    sessions.pop().context("no session")
}

fn negotiated(session: &Value, client: &str) -> String {
    let user = session["user"].as_str().unwrap_or("nobody");
    let address = session["address"].as_str().unwrap_or("nothing");
    format!(
        "{user} got {address}; the server says: MTU {}, receives {}, sends {}; the client says: {client}",
        session["mtu"],
        mode(&session["mppe_receive"]),
        mode(&session["mppe_transmit"]),
    )
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
