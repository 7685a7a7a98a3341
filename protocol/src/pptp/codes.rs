//! Result, error and reason codes. Values without a name are legal on receipt: peers send their own.

use core::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $constant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$value_doc])* pub const $constant: Self = Self($value);)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$constant => f.write_str($text),)*
                    Self(value) => write!(f, "code {value}"),
                }
            }
        }
    };
}

codes! {
    /// General error codes (RFC 2637 §2.16).
    GeneralError {
        /// No general error.
        NONE = 0, "no error";
        /// No control connection exists yet for this pair.
        NOT_CONNECTED = 1, "not connected";
        /// Length is wrong or the cookie is.
        BAD_FORMAT = 2, "bad format";
        /// A field was out of range, or a reserved one was not zero.
        BAD_VALUE = 3, "bad value";
        /// Not enough resources now.
        NO_RESOURCE = 4, "no resource";
        /// The call id is not valid here.
        BAD_CALL_ID = 5, "bad call id";
        /// An error of the vendor's own.
        PAC_ERROR = 6, "error of the access concentrator";
    }
}

codes! {
    /// Result of Start-Control-Connection-Reply (RFC 2637 §2.2).
    StartResult {
        /// Started.
        OK = 1, "started";
        /// See the general error code.
        GENERAL_ERROR = 2, "general error";
        /// This connection exists already.
        EXISTS = 3, "exists already";
        /// Not allowed.
        NOT_AUTHORIZED = 4, "not authorised";
        /// Version not supported.
        VERSION = 5, "protocol version not supported";
    }
}

codes! {
    /// Reason of Stop-Control-Connection-Request (RFC 2637 §2.3).
    StopReason {
        /// General request.
        NONE = 1, "no reason given";
        /// Cannot support the peer's version.
        PROTOCOL = 2, "protocol version not supported";
        /// The sender is being shut down.
        LOCAL_SHUTDOWN = 3, "shutting down";
    }
}

codes! {
    /// Result of Stop-Control-Connection-Reply (RFC 2637 §2.4).
    StopResult {
        /// Closed.
        OK = 1, "closed";
        /// Not closed; see the general error code.
        GENERAL_ERROR = 2, "general error";
    }
}

codes! {
    /// Result of Echo-Reply (RFC 2637 §2.6).
    EchoResult {
        /// Valid.
        OK = 1, "ok";
        /// See the general error code.
        GENERAL_ERROR = 2, "general error";
    }
}

codes! {
    /// Result of Outgoing-Call-Reply (RFC 2637 §2.8).
    CallResult {
        /// Established.
        CONNECTED = 1, "connected";
        /// See the general error code.
        GENERAL_ERROR = 2, "general error";
        /// No carrier detected.
        NO_CARRIER = 3, "no carrier";
        /// Busy.
        BUSY = 4, "busy";
        /// No dial tone.
        NO_DIAL_TONE = 5, "no dial tone";
        /// Not established within the time allotted.
        TIME_OUT = 6, "time-out";
        /// Forbidden by administration.
        DO_NOT_ACCEPT = 7, "not accepted";
    }
}

codes! {
    /// Result of Incoming-Call-Reply (RFC 2637 §2.10).
    IncomingResult {
        /// The call may be answered.
        CONNECT = 1, "connect";
        /// See the general error code.
        GENERAL_ERROR = 2, "general error";
        /// Hang up or send busy.
        DO_NOT_ACCEPT = 3, "not accepted";
    }
}

codes! {
    /// Result of Call-Disconnect-Notify (RFC 2637 §2.13). Windows sends 0; receivers ignore the value.
    DisconnectResult {
        /// Carrier lost.
        LOST_CARRIER = 1, "lost carrier";
        /// See the general error code.
        GENERAL_ERROR = 2, "general error";
        /// Ended by administration.
        ADMIN_SHUTDOWN = 3, "administrative shutdown";
        /// A Call-Clear-Request came.
        REQUEST = 4, "on request";
    }
}
