//! A call while PPP speaks.

use super::*;
use crate::accounting::Begun;

impl Live {
    pub(super) fn begin(&mut self, now: Time) {
        if self.begin_at.take().is_some() {
            self.link.open(now);
        }
    }

    pub(super) fn up(&mut self, terms: &Terms, now: Time, actions: &mut VecDeque<Action>) {
        let call = self.call;
        self.mtu = terms.mtu;
        if self.route != Some(terms.address) {
            let before = self.route.replace(terms.address);
            if before.is_some() {
                actions.push_back(Action::Cease(call));
            }
            actions.push_back(Action::Begin(Box::new(Begun {
                call,
                user: self.user.clone().unwrap_or_default(),
                address: terms.address,
                ipv6: self.ipv6.as_deref().map(Link6::grant),
            })));
            if let Some(old) = before {
                actions.push_back(Action::data(Command::Unroute {
                    prefix: Ipv4Net::from(old),
                }));
            }
            actions.push_back(Action::data(Command::Route {
                prefix: Ipv4Net::from(terms.address),
                call,
            }));
        }
        let encryption = match terms.encryption {
            ppp::Encryption::Plain => Encryption::Plain,
            ppp::Encryption::Required => Encryption::Required,
        };
        actions.push_back(Action::data(Command::Forward {
            call,
            forward: Forward {
                address: terms.address,
                compress_address: terms.compress_address,
                compress_protocol: terms.compress_protocol,
                mtu: terms.mtu,
                encryption,
            },
        }));
        // Before any answer of ours that lets the client send data; without a number of ours there is nothing to put in.
        if let Some(magic) = self.link.magic() {
            actions.push_back(Action::data(Command::Echo { call, magic }));
        }
        if self.up_since.is_none() {
            self.up_since = Some(now);
            self.tell_up = true;
            let mppe = self.link.info().mppe_transmit;
            actions.push_back(Action::Notice(Notice::Up {
                call,
                user: self.user.clone().unwrap_or_default(),
                address: terms.address,
                mtu: terms.mtu,
                encryption,
                mppe: mppe.map(|terms| Mppe::new(terms.strength, terms.mode)),
            }));
        }
    }

    /// The cause that stands when somebody else ends the call for `cause`. A goodbye that PPP had begun explains
    /// more than the broken connection that followed it.
    pub(super) fn final_cause(&self, cause: Cause) -> Cause {
        // A client that was refused hangs up by itself.
        if let Some(first) = self.cause.or(self.refused) {
            return first;
        }
        match (cause, self.link.ending()) {
            // What PPP said of it explains more than the hang-up that follows.
            (Cause::ConnectionLost | Cause::HungUp, Some(end)) => self.cause_of(end),
            _ => cause,
        }
    }

    pub(super) fn cause_of(&self, end: &End) -> Cause {
        if let Some(first) = self.cause.or(self.refused) {
            return first;
        }
        match end {
            End::Closed(_) => Cause::ServerFault,
            End::PeerTerminated { text } => {
                // pppd says so when our authenticator response does not fit its password.
                let distrust = self.user.is_some()
                    && self.up_since.is_none()
                    && text.to_ascii_lowercase().contains("authenticat");
                if distrust {
                    Cause::Distrusted
                } else if self.up_since.is_none() && is_about_encryption(text) {
                    if self.denies_mppe {
                        Cause::EncryptionDenied
                    } else {
                        Cause::EncryptionMismatch
                    }
                } else {
                    Cause::HungUp
                }
            }
            End::NoAnswer { .. } | End::SetUpTimeout { .. } if self.hear_by.is_some() => {
                Cause::NoGre
            }
            End::NoAnswer { .. } | End::LcpFailed(_) => Cause::LcpFailed,
            End::SetUpTimeout { .. } => Cause::SetupTimeout,
            End::AuthenticationRefused { .. } => Cause::AuthenticationRefused,
            End::AuthenticationTimeout => Cause::AuthenticationTimeout,
            End::AuthenticationFailed { .. } => self.refused.unwrap_or(Cause::AuthenticationFailed),
            End::ResponseUnusable { .. } => Cause::AuthenticationFailed,
            End::ServerNotAuthentic => Cause::Distrusted,
            End::MppeRefused(MppeRefusal::NoKeys) => Cause::NoKeys,
            End::MppeRefused(_) if self.up_since.is_some() => Cause::EncryptionLost,
            End::MppeRefused(MppeRefusal::Strength { .. }) => Cause::EncryptionStrength,
            End::MppeRefused(MppeRefusal::Stateful) => Cause::StatefulRefused,
            End::MppeRefused(MppeRefusal::NoLmHash) => Cause::NoLmHash,
            End::MppeRefused(_) => Cause::EncryptionRefused,
            End::IpcpFailed(_) => Cause::IpcpFailed,
            End::LoopedBack => Cause::Looped,
            End::EchoFailure { .. } => Cause::Silent,
        }
    }
}

/// Whether a peer's farewell blames encryption: pppd says "MPPE required but ..", Windows gives its error number.
pub(in crate::tunnel) fn is_about_encryption(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["mppe", "encrypt", "windows error 741", "windows error 742"]
        .iter()
        .any(|sign| text.contains(sign))
}

pub(super) fn close_reason(cause: Cause) -> CloseReason {
    match cause {
        Cause::Killed => CloseReason::Administrative,
        Cause::ServerStopping => CloseReason::Shutdown,
        _ => CloseReason::LocalFailure,
    }
}
