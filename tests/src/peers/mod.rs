//! Clients as they are known: one file of `peers/` each says what a client sends and takes, octet by octet, and a player
//! that shares no state machine with the server makes calls by it, decrypting with ciphers of its own.
//!
//! Nothing here was tried with the products themselves. What is not known and had to be chosen is marked in the files as
//! assumed, with the reason.

mod link;
mod player;
mod profile;
mod secrets;
pub mod table;

use std::fmt::Write as _;

use turnpike_controlplane::tunnel::Settings;
use turnpike_protocol::mppe::Policy;

pub use player::{End, Lost, Player, Said};
pub use profile::{Method, Mppe, Profile};

use crate::concentrator;

/// What did not hold, in words.
pub type Outcome<T = ()> = Result<T, String>;

/// What a client's user wants, and the server allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// The only method that the user has chosen.
    pub method: Method,
    /// The only encryption that the server allows.
    pub mppe: Mppe,
}

/// Why a call cannot be had, whoever the server is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Obstacle {
    /// The method yields no keys.
    NoKeys,
    /// The client does not have the method.
    Method,
    /// The client does not have the strength.
    Strength,
    /// The client changes keys for every packet, or does not encrypt.
    Stateful,
    /// The server does not have it.
    Server,
}

impl Wish {
    /// The server's settings.
    pub fn settings(self) -> Settings {
        Settings {
            mppe: match self.mppe {
                Mppe::Clear => Policy::Deny,
                Mppe::Keys { .. } => Policy::Require,
            },
            ..concentrator::settings()
        }
    }

    /// Why it cannot be had with this client.
    pub fn obstacle(self, profile: &Profile) -> Option<Obstacle> {
        if let Mppe::Keys { .. } = self.mppe
            && !self.method.has_keys()
        {
            return Some(Obstacle::NoKeys);
        }
        if !profile.login.methods.contains(&self.method) {
            return Some(Obstacle::Method);
        }
        if let Mppe::Keys { bits, stateless } = self.mppe {
            if !profile.ccp.strengths.contains(&bits) {
                return Some(Obstacle::Strength);
            }
            if !stateless && !profile.ccp.stateful {
                return Some(Obstacle::Stateful);
            }
        }
        let spoken = self.method == Method::MsChapV2 && self.is_offered();
        (!spoken).then_some(Obstacle::Server)
    }

    /// Whether a server can be told to allow nothing but this encryption.
    pub fn is_offered(self) -> bool {
        [Mppe::Clear, Mppe::keys(128, true)].contains(&self.mppe)
    }
}

/// Plays a call of a client; the error has all that passed.
///
/// # Errors
/// Says what did not hold.
pub fn play(profile: &Profile, wish: Wish, lost: Lost) -> Outcome<End> {
    let mut player = Player::new(profile, wish, lost);
    player.play().map_err(|error| {
        let mut text = format!("{}, {wish:?}, {lost:?}: {error}\n", profile.name);
        let skipped = player.log.len().saturating_sub(120);
        for line in player.log.iter().skip(skipped) {
            let _ = writeln!(text, "    {line}");
        }
        text
    })
}
