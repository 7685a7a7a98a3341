//! Records on their way to RADIUS servers.

use turnpike_protocol::radius::Code;

use super::deliver::Deliver;
use super::record::{Moment, Record};
use super::request::{Nas, fill};
use crate::config::Radius;
use crate::radius::{Client, Purpose};

/// The accounting servers.
pub struct Servers {
    client: Client,
    nas: Nas,
}

impl Servers {
    /// The servers of `[radius]`, by their accounting ports.
    pub fn new(radius: &Radius) -> Self {
        Self {
            client: Client::new(&radius.servers, Purpose::Accounting),
            nas: Nas {
                identifier: radius.nas_identifier.clone(),
                address: radius.nas_ip_address,
            },
        }
    }
}

impl Deliver for Servers {
    async fn deliver(&self, record: &Record) -> Result<(), String> {
        // Made anew for each server and each try of the spool, with the delay as it is then.
        let answer = self
            .client
            .ask(Code::ACCOUNTING_REQUEST, &|builder| {
                fill(builder, record, &self.nas, Moment::now())
            })
            .await;
        answer.map(drop).map_err(|failure| failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::UdpSocket;
    use turnpike_protocol::radius::{Attribute, Builder, Packet, Seal, Secret, integer};

    use super::super::clerk::Clerk;
    use super::super::ledger::Ledger;
    use super::super::ledger::tests::facts;
    use super::super::record::{Entry, SessionId, Traffic};
    use super::*;
    use crate::aaa::UnknownFilter;
    use crate::cause::Cause;
    use crate::driver::Clock;
    use crate::radius::ServerSettings;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn records_arrive_at_a_server_that_leaves_every_second_request_unanswered() {
        let secret = || Secret::new("of both").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut server = ServerSettings::new("127.0.0.1".parse().unwrap(), secret());
        server.accounting_port = socket.local_addr().unwrap().port();
        server.timeout = Duration::from_millis(100);
        server.status_server = false;
        server.dead_time = Duration::from_millis(100);
        let servers = Servers::new(&Radius {
            servers: vec![server],
            nas_identifier: "edge1".to_owned(),
            nas_ip_address: None,
            unknown_filter: UnknownFilter::default(),
            require_keys: false,
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let ledger = Ledger::open(&path, true, Moment::now()).unwrap();
        let clerk = Arc::new(Clerk::start(ledger, None).unwrap());
        let (id, at) = (SessionId(17), Moment::now());
        let begin = Entry::Begin {
            id,
            facts: facts("alice"),
            at,
        };
        let end = Entry::End {
            id,
            at,
            session_time: 60,
            traffic: Traffic::default(),
            cause: Cause::HungUp,
        };
        for entry in [Entry::On { at }, begin, end] {
            drop(clerk.enter(entry));
        }
        let delivery = tokio::spawn({
            let clerk = clerk.clone();
            async move { super::super::deliver(&clerk, Clock::start(), &servers).await }
        });
        let answering = async {
            let mut kinds = Vec::new();
            let mut buffer = [0; 4096];
            let mut came = 0;
            while kinds.len() < 3 {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let packet = Packet::parse(&buffer[..length]).unwrap();
                assert!(packet.verify_request(&secret()).is_ok());
                came += 1;
                if came % 2 == 1 {
                    continue;
                }
                kinds.push(packet.find(Attribute::ACCT_STATUS_TYPE).and_then(integer));
                let (secret, seal) = (secret(), Seal::Response(packet.authenticator()));
                let identifier = packet.identifier();
                let answer =
                    Builder::unsigned(Code::ACCOUNTING_RESPONSE, identifier, seal, &secret);
                let answer = answer.finish().unwrap();
                socket.send_to(&answer, from).await.unwrap();
            }
            kinds
        };
        let kinds = tokio::time::timeout(PATIENCE, answering).await.unwrap();
        assert_eq!(kinds, [Some(7), Some(1), Some(2)]);
        while clerk.backlog().await != Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        delivery.abort();
    }
}
