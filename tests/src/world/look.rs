//! A look at the world: who is online, what is over, and what to say when something does not hold.

use core::net::Ipv4Addr;

use turnpike_protocol::Time;

use super::play::{Happening, World};

impl World {
    /// Inner addresses that clients hold.
    pub(super) fn online(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.connections
            .iter()
            .flat_map(|connection| connection.online.values().copied())
    }

    pub(super) fn everybody_is_up(&self) -> bool {
        let waiting = self
            .agenda
            .values()
            .any(|happening| matches!(happening, Happening::Dial(_) | Happening::Leave(..)));
        !waiting
            && self.connections.iter().all(|connection| {
                let calls = usize::from(connection.person.calls);
                if connection.leaving || !connection.person.honest {
                    connection.over == calls
                } else {
                    connection.online.len() == calls
                }
            })
    }

    pub(super) fn everything_is_over(&self) -> bool {
        self.connections.iter().all(|connection| {
            connection.subscriber.is_finished() && connection.tunnel.is_finished()
        })
    }

    pub(super) fn drops(&self) -> String {
        self.server
            .iter()
            .chain([&self.client])
            .map(|node| {
                let reasons: Vec<String> = node
                    .worker
                    .counters()
                    .reasons()
                    .map(|(reason, n)| format!("{reason} {n}"))
                    .collect();
                format!("[{}]", reasons.join(", "))
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What did not hold, in which world.
    pub(super) fn report(&mut self, error: &str) -> String {
        format!(
            "at {:?}: {error}\n{:#?}\n{}",
            self.now.since(Time::ZERO),
            self.story,
            self.trace.take().unwrap_or_default().join("\n")
        )
    }

    pub(super) fn describe(&self) -> String {
        let connections: Vec<String> = self
            .connections
            .iter()
            .map(|connection| {
                let server: Vec<_> = connection
                    .tunnel
                    .snapshots()
                    .map(|snapshot| (snapshot.call.id.0, snapshot.stage.name()))
                    .collect();
                format!(
                    "user {} (honest {}, leaving {}): online {:?}, {} over, at the server {server:?}, finished {} {}",
                    connection.person.user,
                    connection.person.honest,
                    connection.leaving,
                    connection.online,
                    connection.over,
                    connection.subscriber.is_finished(),
                    connection.tunnel.is_finished()
                )
            })
            .collect();
        format!("{}; drops {}", connections.join("; "), self.drops())
    }
}
