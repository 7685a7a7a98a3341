//! Errors by who is at fault, because the answer differs.

/// What was wrong with something received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The octets cannot be what they claim to be: lengths or structure are wrong. The text names the part.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Well formed, but against the protocol's rules at this point. The text names the rule.
    #[error("peer misbehaved: {0}")]
    Misbehaved(&'static str),
    /// Honest, but nothing both sides can do. The text names what could not be agreed.
    #[error("incompatible: {0}")]
    Incompatible(&'static str),
}
