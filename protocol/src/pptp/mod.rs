//! The control connection of RFC 2637 §2 and §3: messages, and a state machine for each role.

use core::fmt;

/// A call id (RFC 2637 §2.7): chosen by the receiver of the GRE packets that carry it. Every value is legal; 0 comes
/// from Windows and pptp-linux and never means "unset".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u16);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
