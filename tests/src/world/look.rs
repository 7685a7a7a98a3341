//! A look at the world when something does not hold.

use super::play::World;

impl World {
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
