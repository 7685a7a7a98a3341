//! Why a call ended, mapped once to everything that wants to know.
//!
//! The operator reads the text; the client gets a result code in Call-Disconnect-Notify (RFC 2637 §2.13) and a text
//! in LCP Terminate-Request (RFC 1661 §5.5); its user sees an error number, which is what support gets to hear;
//! accounting wants an Acct-Terminate-Cause (RFC 2866 §5.10).

use core::fmt;

/// Result Code and Error Code of a Call-Disconnect-Notify (RFC 2637 §2.13, general error codes in §2.16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect {
    /// 1 lost carrier, 2 general error, 3 administrative, 4 asked for by the peer.
    pub result: u8,
    /// With result 2: what kind of general error; else 0.
    pub error: u8,
}

const LOST_CARRIER: Disconnect = Disconnect {
    result: 1,
    error: 0,
};
const ADMINISTRATIVE: Disconnect = Disconnect {
    result: 3,
    error: 0,
};
const REQUESTED: Disconnect = Disconnect {
    result: 4,
    error: 0,
};

/// General error (2) with this error code.
const fn general(error: u8) -> Disconnect {
    Disconnect { result: 2, error }
}

/// Insufficient resources (RFC 2637 §2.16).
const NO_RESOURCE: u8 = 4;
/// An error of the PAC (RFC 2637 §2.16).
const PAC_ERROR: u8 = 6;

/// One line per cause: variant, name in logs and JSON, text, Call-Disconnect-Notify, Terminate-Request text,
/// error number of the Windows client, Acct-Terminate-Cause.
macro_rules! causes {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $text:literal, $disconnect:expr, $terminate:literal, $client_error:expr, $radius:literal;
    )*) => {
        /// Why a call ended, or never came up.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Cause {
            $($(#[$doc])* $variant,)*
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in logs and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The cause of this name.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|cause| cause.name() == name)
            }

            /// What an operator reads.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What Call-Disconnect-Notify says.
            pub const fn disconnect(self) -> Disconnect {
                match self { $(Self::$variant => $disconnect,)* }
            }

            /// What LCP Terminate-Request says; ASCII, shown by some clients.
            pub const fn terminate_text(self) -> &'static str {
                match self { $(Self::$variant => $terminate,)* }
            }

            /// The error number that a Windows client shows its user; `None` when it shows none. Which number comes
            /// up depends a little on its version; this is the one to search for.
            pub const fn client_error(self) -> Option<u16> {
                match self { $(Self::$variant => $client_error,)* }
            }

            /// Acct-Terminate-Cause (RFC 2866 §5.10).
            pub const fn radius_terminate_cause(self) -> u8 {
                match self { $(Self::$variant => $radius,)* }
            }
        }
    };
}

causes! {
    /// The client cleared the call or closed PPP.
    HungUp = "hung_up", "the client hung up", REQUESTED, "Goodbye", None, 1;
    /// The control connection broke without a farewell.
    ConnectionLost = "connection_lost", "the client's control connection (TCP 1723) broke", LOST_CARRIER, "Control connection lost", Some(619), 2;
    /// LCP or control echoes went unanswered.
    Silent = "silent", "the client stopped answering echo requests", LOST_CARRIER, "No answer to echo requests", Some(619), 2;
    /// `turnpike kill`.
    Killed = "killed", "ended by the operator", ADMINISTRATIVE, "Disconnected by the operator", Some(619), 6;
    /// The user's newer call took its place.
    Replaced = "replaced", "the same user logged in again, and the newer call took this one's place (limits.same_user, or the user's own address)", ADMINISTRATIVE, "You have logged in again", Some(619), 13;
    /// The user has another call, and may have one only.
    AlreadyLoggedIn = "already_logged_in", "the user has another call, and limits.same_user allows only one", ADMINISTRATIVE, "You are logged in already", Some(619), 17;
    /// The server is going down.
    ServerStopping = "server_stopping", "the server is stopping", ADMINISTRATIVE, "The server is stopping", Some(619), 7;
    /// The box holds as many calls as it may.
    TooManyCalls = "too_many_calls", "limits.calls is reached", general(NO_RESOURCE), "The server is full", Some(619), 15;
    /// Too many calls of one source that have not logged in.
    TooManyUnauthenticated = "too_many_unauthenticated", "limits.unauthenticated_per_source is reached: too many calls from one address have not logged in yet", general(NO_RESOURCE), "Too many calls", Some(619), 15;
    /// Too many calls are being set up, and this one would have waited for too long.
    TooManySettingUp = "too_many_setting_up", "limits.setting_up calls were being set up, and none of these places came free within limits.setting_up_wait", general(NO_RESOURCE), "The server is busy", Some(619), 15;
    /// Too many control connections from one source.
    TooManyConnections = "too_many_connections", "limits.connections_per_source is reached", general(NO_RESOURCE), "Too many connections", Some(800), 15;
    /// The client's GRE never came.
    NoGre = "no_gre", "no GRE came from the client: something on its way drops IP protocol 47", LOST_CARRIER, "No GRE received", Some(806), 2;
    /// PPP did not come up in time, though something was received.
    SetupTimeout = "setup_timeout", "the call was not up within limits.setup_time", general(PAC_ERROR), "Set-up took too long", Some(721), 2;
    /// The control connection did not follow RFC 2637.
    ControlMisbehaved = "control_misbehaved", "the client broke the rules of the control connection", general(PAC_ERROR), "Protocol error", Some(619), 8;
    /// LCP came to no agreement.
    LcpFailed = "lcp_failed", "LCP came to no agreement", general(PAC_ERROR), "LCP failed", Some(734), 8;
    /// Our own frames come back.
    Looped = "looped", "the link is looped back: our own magic number came back", general(PAC_ERROR), "Loop detected", Some(734), 8;
    /// The client refuses the only authentication there is.
    AuthenticationRefused = "authentication_refused", "the client refuses every authentication method that is allowed", ADMINISTRATIVE, "No authentication method in common", Some(734), 17;
    /// The client never answered the challenge.
    AuthenticationTimeout = "authentication_timeout", "the client did not authenticate itself in time", ADMINISTRATIVE, "Authentication timed out", Some(718), 17;
    /// Wrong name or password.
    AuthenticationFailed = "authentication_failed", "wrong user name or password", ADMINISTRATIVE, "Authentication failed", Some(691), 17;
    /// The method needs what is not stored.
    HashOnly = "hash_only", "CHAP-MD5 needs the password, and of this user only the NT hash is stored", ADMINISTRATIVE, "Authentication failed", Some(691), 17;
    /// The account may not dial in.
    NotPermitted = "not_permitted", "the user may not dial in: the account forbids it or allows no address", ADMINISTRATIVE, "Not permitted", Some(649), 17;
    /// The account is locked.
    AccountDisabled = "account_disabled", "the account is disabled", ADMINISTRATIVE, "The account is disabled", Some(647), 17;
    /// The account is not to be used at this time.
    OutsideHours = "outside_hours", "the user may not log on at this hour", ADMINISTRATIVE, "Not at this hour", Some(646), 17;
    /// The password is too old.
    PasswordExpired = "password_expired", "the password has expired", ADMINISTRATIVE, "The password has expired", Some(648), 17;
    /// A new password is not good enough.
    PasswordUnfit = "password_unfit", "the new password is too short, too long, or the old one", ADMINISTRATIVE, "The new password is not good enough", Some(709), 17;
    /// The password is where nothing can be written.
    PasswordFixed = "password_fixed", "the password cannot be changed by its user: the account is not in the file of auth.users_file", ADMINISTRATIVE, "The password cannot be changed", Some(709), 17;
    /// The account was edited while its user chose a new password.
    PasswordChangedElsewhere = "password_changed_elsewhere", "somebody else has changed or removed the password meanwhile", ADMINISTRATIVE, "The password was changed elsewhere", Some(709), 17;
    /// The new password could not be written.
    PasswordNotWritten = "password_not_written", "the new password could not be written: see the log", ADMINISTRATIVE, "The password could not be changed", Some(709), 9;
    /// No RADIUS server answered.
    RadiusSilent = "radius_silent", "no RADIUS server answered: is its address right, does it know this machine as a client, with the same secret, and does nothing block UDP on the way?", general(NO_RESOURCE), "The authentication server does not answer", Some(930), 9;
    /// What came back was not made with our secret.
    RadiusWrongSecret = "radius_wrong_secret", "what a RADIUS server answered is not made with our secret: compare `secret` in [[radius.server]] with the server's", general(NO_RESOURCE), "The authentication server is not trusted", Some(930), 9;
    /// What came back lacked a Message-Authenticator.
    RadiusUnsigned = "radius_unsigned", "a RADIUS server sends no Message-Authenticator: update it, or write message_authenticator = \"accept_missing\" in its [[radius.server]]", general(NO_RESOURCE), "The authentication server is not trusted", Some(930), 9;
    /// An Access-Accept without MS-CHAP2-Success.
    RadiusProofMissing = "radius_proof_missing", "the RADIUS server accepted an MS-CHAPv2 login without MS-CHAP2-Success: the client would not believe us", general(PAC_ERROR), "Server error", Some(930), 9;
    /// An Access-Accept without keys where there must be some.
    RadiusKeysMissing = "radius_keys_missing", "the RADIUS server accepted the login, but sent no MPPE keys, without which the call may not come up", ADMINISTRATIVE, "No encryption keys", Some(742), 9;
    /// Keys that cannot be read.
    RadiusKeysWrong = "radius_keys_wrong", "the MPPE keys that the RADIUS server sent cannot be used: see the log for the attribute", ADMINISTRATIVE, "Wrong encryption keys", Some(742), 9;
    /// A Filter-Id that names nothing.
    UnknownFilter = "unknown_filter", "the RADIUS server named a filter (Filter-Id) that there is not, and radius.unknown_filter refuses such calls", ADMINISTRATIVE, "Not permitted", Some(812), 17;
    /// A Service-Type or Framed-Protocol that is no PPTP call's.
    UnknownServiceType = "unknown_service_type", "the RADIUS server wants another service (Service-Type, Framed-Protocol) than a PPP call", ADMINISTRATIVE, "Not permitted", Some(812), 17;
    /// An address for which no packets would come.
    AddressElsewhere = "address_elsewhere", "the RADIUS server gave an address that is in no pool: add it to network.pool", general(NO_RESOURCE), "No usable address", Some(720), 15;
    /// The call has lasted as long as it may.
    SessionTimeout = "session_timeout", "the call has lasted as long as the user's Session-Timeout allows", ADMINISTRATIVE, "Session timeout", Some(619), 5;
    /// Nothing was carried for as long as that may be.
    IdleTimeout = "idle_timeout", "nothing was carried for as long as the user's Idle-Timeout allows", ADMINISTRATIVE, "Idle timeout", Some(828), 4;
    /// The client ended the link when it saw our proof of knowing the password.
    Distrusted = "distrusted", "the client did not believe our authenticator response: do both sides know the same password?", REQUESTED, "Goodbye", Some(778), 1;
    /// We require encryption, the client refuses it.
    EncryptionRefused = "encryption_refused", "the client refuses MPPE, which auth.mppe requires", ADMINISTRATIVE, "Encryption is required", Some(741), 17;
    /// The client has no key length that we allow.
    EncryptionStrength = "encryption_strength", "the client's MPPE keys have lengths that auth.mppe_strengths does not hold", ADMINISTRATIVE, "MPPE key length not allowed", Some(741), 17;
    /// The client insists on stateful keys.
    StatefulRefused = "stateful_refused", "the client insists on stateful MPPE, which auth.mppe_stateful refuses", ADMINISTRATIVE, "Stateful MPPE not allowed", Some(742), 17;
    /// Weak keys come of the LM hash, and long passwords have none.
    NoLmHash = "no_lm_hash", "with MS-CHAPv1, MPPE keys of 40 and 56 bits need a password of at most 14 ASCII characters: let the client use MS-CHAPv2 or 128 bits", ADMINISTRATIVE, "Password too long for weak MPPE keys", Some(742), 17;
    /// The client ended the call because of its encryption, for reasons that only it knows.
    EncryptionMismatch = "encryption_mismatch", "the client wants other encryption than it was offered: compare its settings with auth.mppe, mppe_strengths and mppe_stateful", REQUESTED, "Goodbye", Some(742), 1;
    /// The client requires encryption that we may not give.
    EncryptionDenied = "encryption_denied", "the client wants MPPE, which auth.mppe denies", ADMINISTRATIVE, "Encryption is not available", Some(742), 17;
    /// Encryption is required but the login left no keys.
    NoKeys = "no_keys", "MPPE is required, but this login gives no keys for it", ADMINISTRATIVE, "No encryption keys", Some(742), 9;
    /// A required encryption ended in mid-call.
    EncryptionLost = "encryption_lost", "MPPE, which auth.mppe requires, went down", general(PAC_ERROR), "Encryption lost", Some(742), 8;
    /// What the client sends decrypts to nothing.
    Garbled = "garbled", "a hundred packets in a row decrypted to garbage: the client's MPPE key is another than ours", general(PAC_ERROR), "MPPE keys do not match", Some(742), 8;
    /// IPCP came to no agreement.
    IpcpFailed = "ipcp_failed", "IPCP came to no agreement", general(PAC_ERROR), "IPCP failed", Some(720), 8;
    /// No free address.
    PoolExhausted = "pool_exhausted", "no address is free in the user's pool and those after it: enlarge `pool` in [network], or `addresses` in [[pool]]", general(NO_RESOURCE), "No address is free", Some(720), 15;
    /// The user's pool is not configured.
    PoolUnknown = "pool_unknown", "the user is to have an address of a pool that there is not: add a [[pool]] with this name, or mend the user's", general(NO_RESOURCE), "No address is free", Some(720), 15;
    /// The user's fixed address has another call.
    AddressInUse = "address_in_use", "the user's fixed address is in use by another call", general(NO_RESOURCE), "The address is in use", Some(720), 15;
    /// Accounting cannot be written, and no call may be without.
    AccountingFailed = "accounting_failed", "accounting records cannot be written, and accounting.mandatory is set: see the log", ADMINISTRATIVE, "Accounting is not available", Some(619), 9;
    /// The server died while the call was up; found at its next start.
    ServerCrashed = "server_crashed", "the server crashed or was killed while the call was up; the counters are the last that it wrote", LOST_CARRIER, "Server error", Some(619), 11;
    /// Something of ours broke.
    ServerFault = "server_fault", "a fault of the server: see the log", general(PAC_ERROR), "Server error", Some(619), 9;
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl serde::Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_codes_that_the_rfcs_know() {
        let mut names = std::collections::HashSet::new();
        for cause in Cause::ALL {
            assert!(names.insert(cause.name()), "{cause:?} shares its name");
            assert_eq!(Cause::of_name(cause.name()), Some(*cause));
            assert!(
                cause
                    .name()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
            assert!(!cause.text().is_empty());
            // RFC 2637 §2.13: results 1 to 4; the error code speaks only with result 2.
            let Disconnect { result, error } = cause.disconnect();
            assert!((1..=4).contains(&result), "{cause:?}");
            assert_eq!(result == 2, error != 0, "{cause:?}");
            assert!(error <= 6, "{cause:?}");
            // RFC 2866 §5.10.
            assert!((1..=18).contains(&cause.radius_terminate_cause()));
            let terminate = cause.terminate_text();
            assert!(!terminate.is_empty() && terminate.is_ascii() && terminate.len() < 64);
            assert!(
                cause
                    .client_error()
                    .is_none_or(|error| (600..1000).contains(&error))
            );
        }
    }

    #[test]
    fn what_users_report_leads_to_the_cause() {
        let causes = |error| {
            Cause::ALL
                .iter()
                .copied()
                .filter(|cause| cause.client_error() == Some(error))
                .collect::<Vec<_>>()
        };
        assert_eq!(causes(691), [Cause::AuthenticationFailed, Cause::HashOnly]);
        assert_eq!(causes(646), [Cause::OutsideHours]);
        assert_eq!(causes(647), [Cause::AccountDisabled]);
        assert_eq!(causes(648), [Cause::PasswordExpired]);
        assert_eq!(causes(649), [Cause::NotPermitted]);
        assert_eq!(causes(709).len(), 4);
        assert_eq!(
            causes(741),
            [Cause::EncryptionRefused, Cause::EncryptionStrength]
        );
        assert!(causes(742).contains(&Cause::StatefulRefused));
        assert!(causes(742).contains(&Cause::NoLmHash));
        assert_eq!(causes(778), [Cause::Distrusted]);
        assert!(causes(930).contains(&Cause::RadiusSilent));
        assert_eq!(causes(806), [Cause::NoGre]);
        assert!(causes(720).contains(&Cause::PoolExhausted));
    }

    #[test]
    fn serializes_as_its_name() {
        assert_eq!(
            serde_json::to_string(&Cause::AuthenticationFailed).unwrap(),
            r#""authentication_failed""#
        );
    }
}
