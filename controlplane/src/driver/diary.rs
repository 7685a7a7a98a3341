//! One log line for everything that happens to a tunnel and its calls.

use tracing::{debug, info, warn};
use turnpike_dataplane::api::Encryption;
use turnpike_protocol::CallId;

use crate::counts::Counts;
use crate::tunnel::{Ended, Notice};

/// Writes down and counts what a tunnel has to tell. To be called inside the tunnel's span.
pub(super) fn notice(notice: &Notice, counts: &Counts) {
    match notice {
        Notice::Started(peer) => {
            counts.started.add();
            info!(
                host = %peer.host_name,
                vendor = %peer.vendor,
                firmware = peer.firmware,
                "control connection up"
            );
        }
        Notice::Refused {
            peer_id: CallId(peer_call),
            cause,
        } => {
            counts.refused(*cause);
            warn!(
                peer_call,
                cause = cause.name(),
                windows_error = cause.client_error(),
                "call refused: {}",
                cause.text()
            );
        }
        Notice::LoginFailed {
            call,
            user,
            code,
            cause,
        } => {
            counts.login_failed.add();
            match code {
                Some(code) => warn!(
                    call = call.id.0,
                    user,
                    client = %call.peer,
                    windows_error = cause.client_error(),
                    "login failed: E={code}, {}",
                    cause.text()
                ),
                None => warn!(
                    call = call.id.0,
                    user,
                    client = %call.peer,
                    windows_error = cause.client_error(),
                    "login refused: {}",
                    cause.text()
                ),
            }
        }
        Notice::Up {
            call,
            user,
            address,
            mtu,
            encryption,
            mppe,
        } => {
            counts.up.add();
            let mppe = match (encryption, mppe) {
                (Encryption::Plain, _) => "none".to_owned(),
                (Encryption::Required, None) => "required".to_owned(),
                (Encryption::Required, Some(mppe)) => {
                    let mode = if mppe.stateless {
                        "stateless"
                    } else {
                        "stateful"
                    };
                    format!("{}-bit {mode}", mppe.bits)
                }
            };
            info!(
                call = call.id.0,
                user,
                client = %call.peer,
                %address,
                mppe,
                mtu,
                "call up"
            );
        }
        Notice::Dhcp6 { call, fault, bound } => {
            counts.dhcp6(*fault);
            match fault {
                None => debug!(call = call.id.0, bound, "DHCPv6 answered"),
                Some(fault) => debug!(call = call.id.0, "{fault}"),
            }
        }
        Notice::Informed { call, fault } => {
            counts.informed(*fault);
            match fault {
                None => debug!(call = call.id.0, "DHCPINFORM answered"),
                Some(fault) => debug!(call = call.id.0, "{fault}"),
            }
        }
        Notice::Ipv6Up {
            call,
            prefix,
            delegated,
        } => {
            counts.ipv6_up.add();
            info!(
                call = call.id.0,
                %prefix,
                delegated = delegated.map(|prefix| prefix.to_string()),
                "IPv6 up"
            );
        }
        Notice::Over(cause) => {
            info!(
                cause = cause.name(),
                "control connection over: {}",
                cause.text()
            );
        }
    }
}

/// Writes down the end of a call.
pub(super) fn ended(ended: &Ended) {
    let counters = &ended.counters;
    info!(
        call = ended.call.id.0,
        cause = ended.cause.name(),
        windows_error = ended.cause.client_error(),
        user = ended.user.as_deref().unwrap_or("-"),
        address = %ended.address.map_or_else(|| "-".to_owned(), |a| a.to_string()),
        up_seconds = ended.up.map_or(0, |up| up.as_secs()),
        received_packets = counters.received_packets,
        received_octets = counters.received_octets,
        sent_packets = counters.sent_packets,
        sent_octets = counters.sent_octets,
        missing = counters.missing,
        reordered = counters.held,
        dropped = counters.dropped,
        "call ended: {}",
        ended.cause.text()
    );
}
