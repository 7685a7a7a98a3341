//! A record as an Accounting-Request (RFC 2866, RFC 2869; for IPv6 RFC 3162 and RFC 4818).

use std::net::Ipv4Addr;

use turnpike_protocol::radius::{Attribute, Builder, prefix6_octets};

use super::record::{Facts, Kind, Moment, Record};

/// Service-Type Framed and Framed-Protocol PPP (RFC 2865 §5.6, §5.7).
const FRAMED: u32 = 2;
const PPP: u32 = 1;
/// NAS-Port-Type Virtual (RFC 2865 §5.41).
const VIRTUAL: u32 = 5;
/// Tunnel-Type PPTP and Tunnel-Medium-Type IPv4 (RFC 2868 §3.1, §3.2).
const PPTP: u32 = 1;
const IPV4: u32 = 1;

/// Who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nas {
    /// NAS-Identifier.
    pub identifier: String,
    /// NAS-IP-Address; `None`: the address that the client dialled.
    pub address: Option<Ipv4Addr>,
}

/// Puts a record's attributes into a request that is sent `now`.
pub fn fill<'a>(mut builder: Builder<'a>, record: &Record, nas: &Nas, now: Moment) -> Builder<'a> {
    let seconds = u32::try_from(record.at.seconds()).unwrap_or(0);
    builder = builder
        .integer(Attribute::ACCT_STATUS_TYPE, record.kind.code().into())
        .integer(Attribute::ACCT_DELAY_TIME, record.delay(now))
        .integer(Attribute::EVENT_TIMESTAMP, seconds)
        .text(Attribute::NAS_IDENTIFIER, &nas.identifier);
    let Some((id, facts)) = &record.session else {
        // RFC 2866 §5.5: every request has one. That of the server as a whole is its own number.
        return match nas.address {
            Some(address) => builder.address(Attribute::NAS_IP_ADDRESS, address),
            None => builder,
        }
        .text(
            Attribute::ACCT_SESSION_ID,
            &format!("{:016x}", record.number),
        );
    };
    builder = session(builder, facts)
        .address(
            Attribute::NAS_IP_ADDRESS,
            nas.address.unwrap_or(facts.server),
        )
        .text(Attribute::ACCT_SESSION_ID, &id.to_string());
    if matches!(record.kind, Kind::Interim | Kind::Stop) {
        let traffic = &record.traffic;
        let low = |count: u64| (count & u64::from(u32::MAX)) as u32;
        let high = |count: u64| (count >> 32) as u32;
        builder = builder
            .integer(Attribute::ACCT_SESSION_TIME, record.session_time)
            // RFC 2869 §5.1: how often the counters of 32 bits went round.
            .integer(Attribute::ACCT_INPUT_OCTETS, low(traffic.received_octets))
            .integer(Attribute::ACCT_OUTPUT_OCTETS, low(traffic.sent_octets))
            .integer(
                Attribute::ACCT_INPUT_GIGAWORDS,
                high(traffic.received_octets),
            )
            .integer(Attribute::ACCT_OUTPUT_GIGAWORDS, high(traffic.sent_octets))
            .integer(Attribute::ACCT_INPUT_PACKETS, low(traffic.received_packets))
            .integer(Attribute::ACCT_OUTPUT_PACKETS, low(traffic.sent_packets));
    }
    match &record.termination {
        Some(why) => builder.integer(Attribute::ACCT_TERMINATE_CAUSE, why.code.into()),
        None => builder,
    }
}

fn session<'a>(mut builder: Builder<'a>, facts: &Facts) -> Builder<'a> {
    let text = |value: &str| value.as_bytes()[..value.len().min(253)].to_vec();
    if !facts.user.is_empty() {
        builder = builder.octets(Attribute::USER_NAME, &text(&facts.user));
    }
    builder = builder
        .octets(Attribute::CALLING_STATION_ID, &text(&facts.calling_station))
        .octets(Attribute::CALLED_STATION_ID, &text(&facts.called_station))
        .octets(Attribute::NAS_PORT_ID, &text(&facts.nas_port_id))
        .integer(Attribute::NAS_PORT_TYPE, VIRTUAL)
        .integer(Attribute::SERVICE_TYPE, FRAMED)
        .integer(Attribute::FRAMED_PROTOCOL, PPP)
        .integer(Attribute::ACCT_AUTHENTIC, facts.authentic.code().into())
        .integer(Attribute::TUNNEL_TYPE, PPTP)
        .integer(Attribute::TUNNEL_MEDIUM_TYPE, IPV4)
        .text(Attribute::TUNNEL_CLIENT_ENDPOINT, &facts.client.to_string())
        .text(Attribute::TUNNEL_SERVER_ENDPOINT, &facts.server.to_string());
    if let Some(port) = facts.nas_port {
        builder = builder.integer(Attribute::NAS_PORT, port);
    }
    if let Some(address) = facts.address {
        builder = builder.address(Attribute::FRAMED_IP_ADDRESS, address);
    }
    if let Some(prefix) = facts.prefix {
        builder = builder.octets(Attribute::FRAMED_IPV6_PREFIX, &prefix6_octets(prefix));
    }
    if let Some(prefix) = facts.delegated {
        builder = builder.octets(Attribute::DELEGATED_IPV6_PREFIX, &prefix6_octets(prefix));
    }
    for class in &facts.class {
        builder = builder.octets(Attribute::CLASS, class);
    }
    builder
}

#[cfg(test)]
mod tests {
    use turnpike_protocol::radius::{Code, Packet, Seal, Secret, Signature, address, integer};

    use super::super::ledger::tests::facts;
    use super::super::record::{SessionId, Termination, Traffic};
    use super::*;

    fn nas() -> Nas {
        Nas {
            identifier: "edge1".to_owned(),
            address: None,
        }
    }

    fn made(record: &Record, nas: &Nas, now: Moment, read: impl FnOnce(Packet<'_>)) {
        let secret = Secret::new("of both").unwrap();
        let builder = Builder::unsigned(Code::ACCOUNTING_REQUEST, 7, Seal::Computed, &secret);
        let octets = fill(builder, record, nas, now).finish().unwrap();
        let packet = Packet::parse(&octets).unwrap();
        assert_eq!(packet.verify_request(&secret), Ok(Signature::Unsigned));
        read(packet);
    }

    fn record(kind: Kind) -> Record {
        Record {
            number: 9,
            kind,
            at: Moment(1_700_000_000_400),
            session: Some((SessionId(0x6a1b_0000_0000_0011), *facts("alice"))),
            session_time: 65,
            traffic: Traffic {
                received_packets: 11,
                received_octets: (2 << 32) + 5,
                sent_packets: 12,
                sent_octets: u64::from(u32::MAX),
            },
            termination: (kind == Kind::Stop).then(|| Termination {
                cause: "silent".to_owned(),
                code: 2,
            }),
        }
    }

    #[test]
    fn a_stop_says_everything() {
        let now = Moment(1_700_000_042_500);
        made(&record(Kind::Stop), &nas(), now, |packet| {
            let number = |attribute| packet.find(attribute).and_then(integer);
            let text = |attribute| packet.find(attribute).map(String::from_utf8_lossy);
            for (attribute, expected) in [
                (Attribute::ACCT_STATUS_TYPE, 2),
                (Attribute::ACCT_DELAY_TIME, 42),
                (Attribute::EVENT_TIMESTAMP, 1_700_000_000),
                (Attribute::ACCT_SESSION_TIME, 65),
                (Attribute::ACCT_INPUT_OCTETS, 5),
                (Attribute::ACCT_INPUT_GIGAWORDS, 2),
                (Attribute::ACCT_OUTPUT_OCTETS, u32::MAX),
                (Attribute::ACCT_OUTPUT_GIGAWORDS, 0),
                (Attribute::ACCT_INPUT_PACKETS, 11),
                (Attribute::ACCT_OUTPUT_PACKETS, 12),
                (Attribute::ACCT_TERMINATE_CAUSE, 2),
                (Attribute::ACCT_AUTHENTIC, 1),
                (Attribute::NAS_PORT, 17),
                (Attribute::NAS_PORT_TYPE, 5),
                (Attribute::SERVICE_TYPE, 2),
                (Attribute::FRAMED_PROTOCOL, 1),
            ] {
                assert_eq!(number(attribute), Some(expected), "{:?}", attribute.name());
            }
            assert_eq!(
                text(Attribute::ACCT_SESSION_ID).unwrap(),
                "6a1b000000000011"
            );
            assert_eq!(text(Attribute::USER_NAME).unwrap(), "alice");
            assert_eq!(text(Attribute::CALLING_STATION_ID).unwrap(), "203.0.113.5");
            assert_eq!(text(Attribute::NAS_IDENTIFIER).unwrap(), "edge1");
            let inner = packet.find(Attribute::FRAMED_IP_ADDRESS).and_then(address);
            assert_eq!(inner, Some(Ipv4Addr::new(10, 20, 3, 4)));
            let ours = packet.find(Attribute::NAS_IP_ADDRESS).and_then(address);
            assert_eq!(ours, Some(Ipv4Addr::new(192, 0, 2, 1)));
            // All of them, as they came.
            let class: Vec<_> = packet.all(Attribute::CLASS).map(<[u8]>::to_vec).collect();
            assert_eq!(class, facts("alice").class);
            assert!(packet.find(Attribute::DELEGATED_IPV6_PREFIX).is_some());
        });
    }

    #[test]
    fn a_start_has_no_counters_and_the_server_no_user() {
        made(&record(Kind::Start), &nas(), Moment(0), |packet| {
            for never in [
                Attribute::ACCT_INPUT_OCTETS,
                Attribute::ACCT_SESSION_TIME,
                Attribute::ACCT_TERMINATE_CAUSE,
            ] {
                assert_eq!(packet.find(never), None, "{:?}", never.name());
            }
            // The clock was set back meanwhile.
            let delay = packet.find(Attribute::ACCT_DELAY_TIME).and_then(integer);
            assert_eq!(delay, Some(0));
        });
        let on = Record {
            session: None,
            ..record(Kind::On)
        };
        let nas = Nas {
            address: Some(Ipv4Addr::new(192, 0, 2, 9)),
            ..nas()
        };
        made(&on, &nas, Moment(0), |packet| {
            let kind = packet.find(Attribute::ACCT_STATUS_TYPE).and_then(integer);
            assert_eq!(kind, Some(7));
            assert!(packet.find(Attribute::ACCT_SESSION_ID).is_some());
            assert_eq!(packet.find(Attribute::USER_NAME), None);
            let ours = packet.find(Attribute::NAS_IP_ADDRESS).and_then(address);
            assert_eq!(ours, nas.address);
        });
    }
}
