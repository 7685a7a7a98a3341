//! What a RADIUS server's answer means for a call.

use core::net::Ipv4Addr;
use core::time::Duration;

use ipnet::Ipv4Net;
use tracing::{info, warn};
use turnpike_protocol::mppe::{Policy, Strengths};
use turnpike_protocol::ppp::{AuthProtocol, Credentials, Limits, Proof, Remedy};
use turnpike_protocol::radius::microsoft::{self, KeyFault};
use turnpike_protocol::radius::{Attribute, Code, Packet, address, integer, show};

use super::names::printable;
use super::{Addresses, Admission, Entitlements};
use crate::cause::Cause;
use crate::pool::Range;
use crate::radius::Answer;
use crate::tunnel::Refusal;

/// Service-Type: Framed, the only one that a PPP call can have (RFC 2865 §5.6).
const FRAMED: u32 = 2;

/// Framed-Protocol: PPP (RFC 2865 §5.7).
const PPP: u32 = 1;

/// Framed-IP-Address: the client may choose (RFC 2865 §5.8).
const CLIENT_CHOOSES: u32 = 0xffff_ffff;

/// Framed-IP-Address: we choose.
const NAS_CHOOSES: u32 = 0xffff_fffe;

/// RFC 2869 §5.16: no shorter interval.
const MIN_INTERIM: u32 = 60;

/// The least Framed-MTU that is obeyed: what every IPv4 host must take (RFC 791 §3.1).
const MIN_MTU: u32 = 576;

/// What becomes of a call whose Filter-Id names no filter that there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownFilter {
    /// It is refused: a call that looks filtered is filtered.
    #[default]
    Refuse,
    /// It comes up, with a warning.
    Warn,
}

/// What answers are held against.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether calls are encrypted at all.
    pub mppe: Policy,
    /// Key lengths that calls may have.
    pub strengths: Strengths,
    /// What addresses must lie in, or no packet would find its way.
    pub prefixes: Vec<Ipv4Net>,
    /// Our own inner address, which no client gets.
    pub server_address: Ipv4Addr,
    /// About filters.
    pub unknown_filter: UnknownFilter,
    /// Whether an MS-CHAP login without keys is refused even where no call needs them.
    pub require_keys: bool,
}

/// Attributes that nothing here carries out yet. None of them keeps anybody out or in: a call without them is as safe as with
/// them, so they are told, and no more.
const NOT_CARRIED_OUT: &[Attribute] = &[
    Attribute::FRAMED_ROUTE,
    Attribute::FRAMED_IPV6_PREFIX,
    Attribute::FRAMED_IPV6_POOL,
    Attribute::FRAMED_IPV6_ROUTE,
    Attribute::FRAMED_IPV6_ADDRESS,
    Attribute::FRAMED_INTERFACE_ID,
    Attribute::DELEGATED_IPV6_PREFIX,
    Attribute::DNS_SERVER_IPV6_ADDRESS,
    Attribute::CISCO_AVPAIR,
    Attribute::WISPR_BANDWIDTH_MAX_UP,
    Attribute::WISPR_BANDWIDTH_MAX_DOWN,
    Attribute::MIKROTIK_RATE_LIMIT,
    Attribute::MIKROTIK_RECV_LIMIT,
    Attribute::MIKROTIK_XMIT_LIMIT,
    Attribute::MIKROTIK_TOTAL_LIMIT,
    Attribute::MIKROTIK_GROUP,
    Attribute::MIKROTIK_ADDRESS_LIST,
];

/// What a server's answer to these credentials means.
///
/// # Errors
/// Why the client does not get in, and what it hears of that.
pub fn judge(
    answer: &Answer,
    credentials: &Credentials,
    rules: &Rules,
) -> Result<Admission, Refusal> {
    let server = answer.server().name.as_str();
    let packet = answer.packet();
    for message in packet.all(Attribute::REPLY_MESSAGE) {
        info!(
            server,
            user = printable(credentials.name()),
            "Reply-Message: {}",
            printable(message)
        );
    }
    match packet.code() {
        Code::ACCESS_ACCEPT => accept(answer, credentials, rules),
        Code::ACCESS_REJECT => Err(reject(&packet)),
        _ => {
            warn!(
                server,
                "the RADIUS server asks the user something more (Access-Challenge), which no method that PPP has here can pass on"
            );
            Err(Refusal::new(Cause::AuthenticationFailed))
        }
    }
}

/// What a client hears of an Access-Reject: the number that MS-CHAP-Error names, if any.
fn reject(packet: &Packet<'_>) -> Refusal {
    let text = microsoft::error_text(packet).map(printable);
    let text = text.unwrap_or_default();
    let field = |name| {
        let mut fields = text.split_ascii_whitespace();
        fields.find_map(|field| field.strip_prefix(name))
    };
    let code = field("E=").and_then(|code| code.parse::<u32>().ok());
    let cause = match code {
        Some(646) => Cause::OutsideHours,
        Some(647) => Cause::AccountDisabled,
        Some(648) => Cause::PasswordExpired,
        Some(649) => Cause::NotPermitted,
        Some(709) => Cause::PasswordUnfit,
        _ => Cause::AuthenticationFailed,
    };
    let remedy = match cause {
        Cause::PasswordExpired => Remedy::ChangePassword,
        // Without MS-CHAP-Error nobody has said that it is of no use.
        Cause::AuthenticationFailed if field("R=") != Some("0") => Remedy::Retry,
        _ => Remedy::None,
    };
    let mut refusal = Refusal::new(cause).with(remedy);
    // Numbers of Windows' own that have no cause here pass through.
    if let Some(code @ 600..1000) = code {
        refusal.code = Some(code);
    }
    refusal
}

fn accept(answer: &Answer, credentials: &Credentials, rules: &Rules) -> Result<Admission, Refusal> {
    let server = answer.server().name.as_str();
    let packet = answer.packet();
    let user = packet.find(Attribute::USER_NAME);
    let user = printable(user.unwrap_or_else(|| credentials.name()));
    let number = |attribute| number(&packet, attribute, server, &user);
    for (attribute, expected) in [
        (Attribute::SERVICE_TYPE, FRAMED),
        (Attribute::FRAMED_PROTOCOL, PPP),
    ] {
        let Some(value) = packet.find(attribute) else {
            continue;
        };
        if integer(value) != Some(expected) {
            let value = show(attribute, value);
            warn!(
                server,
                user,
                "{attribute} = {value} is nothing that a PPTP call can be: refused (RFC 2865 §5.6)"
            );
            return Err(Refusal::new(Cause::UnknownServiceType));
        }
    }
    if let Some(filter) = packet.find(Attribute::FILTER_ID) {
        let filter = printable(filter);
        match rules.unknown_filter {
            UnknownFilter::Refuse => {
                warn!(
                    server,
                    user,
                    filter,
                    "Filter-Id names no filter that there is: refused, as radius.unknown_filter says"
                );
                return Err(Refusal::new(Cause::UnknownFilter));
            }
            UnknownFilter::Warn => {
                warn!(
                    server,
                    user,
                    filter,
                    "Filter-Id names no filter that there is: the call is NOT filtered"
                );
            }
        }
    }
    for attribute in NOT_CARRIED_OUT {
        if let Some(value) = packet.find(*attribute) {
            let value = show(*attribute, value);
            warn!(server, user, "{attribute} = {value} is not carried out");
        }
    }
    let (mppe, keys_needed) = encryption(&packet, rules)?;
    let proof = proof(answer, credentials, rules, keys_needed, &user)?;
    let seconds = |attribute| {
        let seconds = number(attribute).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    };
    let servers = |attributes: [Attribute; 2]| {
        attributes.map(|attribute| packet.find(attribute).and_then(address))
    };
    let mtu = number(Attribute::FRAMED_MTU).filter(|mtu| {
        let fits = *mtu >= MIN_MTU;
        if !fits {
            warn!(
                server,
                user, "Framed-MTU = {mtu} is less than {MIN_MTU}: not obeyed"
            );
        }
        fits
    });
    let entitlements = Entitlements {
        class: packet.all(Attribute::CLASS).map(<[u8]>::to_vec).collect(),
        session_timeout: seconds(Attribute::SESSION_TIMEOUT),
        idle_timeout: seconds(Attribute::IDLE_TIMEOUT),
        interim: number(Attribute::ACCT_INTERIM_INTERVAL)
            .map(|interval| Duration::from_secs(interval.max(MIN_INTERIM).into())),
        dns: servers([
            Attribute::MS_PRIMARY_DNS_SERVER,
            Attribute::MS_SECONDARY_DNS_SERVER,
        ]),
        nbns: servers([
            Attribute::MS_PRIMARY_NBNS_SERVER,
            Attribute::MS_SECONDARY_NBNS_SERVER,
        ]),
        limits: Limits {
            mppe,
            mtu: mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)),
        },
        server: server.to_owned(),
    };
    Ok(Admission {
        addresses: addresses(&packet, rules, server, &user)?,
        user,
        proof,
        entitlements: Some(entitlements.into()),
    })
}

/// A number, if it is there and is one.
fn number(packet: &Packet<'_>, attribute: Attribute, server: &str, user: &str) -> Option<u32> {
    let value = packet.find(attribute)?;
    let number = integer(value);
    if number.is_none() {
        warn!(
            server,
            user,
            "{attribute} has {} octets in place of four: not obeyed",
            value.len()
        );
    }
    number
}

/// Which address the user gets.
fn addresses(
    packet: &Packet<'_>,
    rules: &Rules,
    server: &str,
    user: &str,
) -> Result<Addresses, Refusal> {
    let number = number(packet, Attribute::FRAMED_IP_ADDRESS, server, user);
    let own = number.filter(|number| !matches!(*number, CLIENT_CHOOSES | NAS_CHOOSES));
    let Some(number) = own else {
        // That there is such a pool is seen when an address is taken.
        let pool = packet.find(Attribute::FRAMED_POOL);
        return Ok(pool.map_or(Addresses::Pool, |pool| {
            Addresses::Named(printable(pool).into())
        }));
    };
    let address = Ipv4Addr::from_bits(number);
    let routed = rules
        .prefixes
        .iter()
        .any(|prefix| prefix.contains(&address));
    if !routed || address == rules.server_address {
        warn!(
            server,
            user,
            "Framed-IP-Address = {address} lies in no pool, where packets for it would come: add it to one"
        );
        return Err(Refusal::new(Cause::AddressElsewhere));
    }
    Ok(Addresses::Fixed(vec![Range::single(address)]))
}

/// What MS-MPPE-Encryption-Policy and -Types make of the policy for this call; and whether it cannot do without keys.
fn encryption(
    packet: &Packet<'_>,
    rules: &Rules,
) -> Result<(Option<(Policy, Strengths)>, bool), Refusal> {
    let said = microsoft::encryption(packet);
    let policy = match (rules.mppe, said.policy) {
        (Policy::Deny, Some(Policy::Require)) => {
            return Err(Refusal::new(Cause::EncryptionDenied));
        }
        (Policy::Deny, _) => return Ok((None, false)),
        (_, Some(Policy::Require)) => Policy::Require,
        (own, _) => own,
    };
    let strengths = said
        .strengths
        .map_or(rules.strengths, |theirs| theirs.and(rules.strengths));
    if strengths.is_empty() {
        return if policy == Policy::Require {
            Err(Refusal::new(Cause::EncryptionStrength))
        } else {
            Ok((Some((Policy::Deny, strengths)), false))
        };
    }
    let other = (policy, strengths) != (rules.mppe, rules.strengths);
    let limits = other.then_some((policy, strengths));
    Ok((limits, policy == Policy::Require))
}

/// What the login proves, and the keys that it gives.
fn proof(
    answer: &Answer,
    credentials: &Credentials,
    rules: &Rules,
    keys_needed: bool,
    user: &str,
) -> Result<Proof, Refusal> {
    let server = answer.server();
    let (packet, request) = (answer.packet(), answer.request());
    let keys = |read: &dyn Fn() -> Result<turnpike_protocol::mschap::MasterKeys, KeyFault>| {
        if rules.mppe == Policy::Deny && !rules.require_keys {
            return Ok(None);
        }
        match read() {
            Ok(keys) => Ok(Some(keys)),
            Err(fault) if fault.is_missing() => {
                if keys_needed || rules.require_keys {
                    warn!(
                        server = server.name,
                        user,
                        "{fault} in the Access-Accept: no encryption without it. Does the server return MPPE keys for MS-CHAP?"
                    );
                    Err(Refusal::new(Cause::RadiusKeysMissing))
                } else {
                    Ok(None)
                }
            }
            Err(fault) => {
                warn!(server = server.name, user, "{fault}");
                Err(Refusal::new(Cause::RadiusKeysWrong))
            }
        }
    };
    let challenge_v1 = match credentials {
        Credentials::MsChapV1 { challenge, .. } => Some(*challenge),
        Credentials::ChangePassword(change) => match &change.response {
            turnpike_protocol::ppp::ChangeResponse::MsChapV1 { challenge, .. } => Some(*challenge),
            turnpike_protocol::ppp::ChangeResponse::MsChapV2 { .. } => None,
        },
        _ => None,
    };
    match credentials.method() {
        AuthProtocol::Pap => Ok(Proof::Pap),
        AuthProtocol::ChapMd5 => Ok(Proof::ChapMd5),
        AuthProtocol::MsChapV1 => {
            let challenge = challenge_v1.unwrap_or_default();
            let keys =
                keys(&|| microsoft::symmetric_keys(&packet, request, &server.secret, &challenge))?;
            Ok(Proof::MsChapV1 { keys })
        }
        AuthProtocol::MsChapV2 => {
            let Some(authenticator_response) = microsoft::success(&packet) else {
                warn!(
                    server = server.name,
                    user,
                    "MS-CHAP2-Success is missing in the Access-Accept, or is not S= and 40 digits: no client would believe us"
                );
                return Err(Refusal::new(Cause::RadiusProofMissing));
            };
            let keys = keys(&|| microsoft::asymmetric_keys(&packet, request, &server.secret))?;
            Ok(Proof::MsChapV2 {
                authenticator_response,
                keys,
            })
        }
        AuthProtocol::Eap | AuthProtocol::Other(_) => Err(Refusal::new(Cause::ServerFault)),
    }
}
