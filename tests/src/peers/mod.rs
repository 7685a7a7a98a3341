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

use turnpike_controlplane::aaa::Login;
use turnpike_controlplane::tunnel::Settings;
use turnpike_protocol::mppe::{Allowed, Policy, Stateful, Strength, Strengths};

pub use player::{CLIENT, End, Lost, Player, REMOTE, Said, udp};
pub use profile::{Method, Mppe, Profile};

use crate::concentrator::{self, Concentrator};

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
}

impl Wish {
    /// The server's settings.
    pub fn settings(self) -> Settings {
        let (mppe, mppe_allowed) = match self.mppe {
            Mppe::Clear => (Policy::Deny, Allowed::default()),
            Mppe::Keys { bits, stateless } => {
                let strength = match bits {
                    40 => Strength::Bits40,
                    56 => Strength::Bits56,
                    _ => Strength::Bits128,
                };
                let stateful = if stateless {
                    Stateful::Refuse
                } else {
                    Stateful::Ask
                };
                let strengths = Strengths::NONE.with(strength);
                (
                    Policy::Require,
                    Allowed {
                        strengths,
                        stateful,
                    },
                )
            }
        };
        Settings {
            mppe,
            mppe_allowed,
            login: Login {
                methods: vec![self.method.into()],
                rechallenge: None,
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
        None
    }
}

/// Plays a call of a client with a server that allows nothing else; the error has all that passed.
///
/// # Errors
/// Says what did not hold.
pub fn play(profile: &Profile, wish: Wish, lost: Lost) -> Outcome<End> {
    play_with(wish.settings(), profile, wish, lost)
}

/// The same with a server of other settings.
///
/// # Errors
/// Says what did not hold.
pub fn play_with(settings: Settings, profile: &Profile, wish: Wish, lost: Lost) -> Outcome<End> {
    let mut player = Player::with(Concentrator::new(settings), profile, wish, lost);
    player.play().map_err(|error| {
        let mut text = format!("{}, {wish:?}, {lost:?}: {error}\n", profile.name);
        let skipped = player.log.len().saturating_sub(120);
        for line in player.log.iter().skip(skipped) {
            let _ = writeln!(text, "    {line}");
        }
        text
    })
}
