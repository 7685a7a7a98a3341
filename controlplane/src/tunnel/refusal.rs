//! What a client whose login is refused is told.

use turnpike_protocol::ppp::Remedy;

use crate::cause::Cause;

/// Why a login was refused: what the client is told and what the call ends with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The error code of the CHAP Failure (RFC 2759 §6). `None` when the login was right but something else is in
    /// the way: no code says so, and 691 would make clients forget the password. PPP is closed with a text then.
    pub code: Option<u32>,
    /// The cause the call ends with, unless the client makes use of the remedy.
    pub cause: Cause,
    /// What it may do about it in the same call.
    pub remedy: Remedy,
}

impl Refusal {
    /// The refusal that tells the client as much of `cause` as MS-CHAP can say. Nothing can be mended
    /// in the same call.
    pub fn new(cause: Cause) -> Self {
        let code = match cause {
            Cause::AuthenticationFailed | Cause::HashOnly => Some(691),
            Cause::OutsideHours => Some(646),
            Cause::AccountDisabled => Some(647),
            Cause::PasswordExpired => Some(648),
            Cause::NotPermitted => Some(649),
            Cause::PasswordUnfit
            | Cause::PasswordFixed
            | Cause::PasswordChangedElsewhere
            | Cause::PasswordNotWritten => Some(709),
            // Windows shows the number that it is told, and these have texts there.
            Cause::RadiusSilent
            | Cause::RadiusWrongSecret
            | Cause::RadiusUnsigned
            | Cause::RadiusProofMissing => Some(930),
            Cause::RadiusKeysMissing | Cause::RadiusKeysWrong => Some(742),
            Cause::UnknownFilter | Cause::UnknownServiceType => Some(812),
            _ => None,
        };
        Self {
            code,
            cause,
            remedy: Remedy::None,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with(self, remedy: Remedy) -> Self {
        Self { remedy, ..self }
    }
}
