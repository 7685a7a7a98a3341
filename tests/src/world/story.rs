//! What one world is like: drawn from its seed before anything happens.

use core::time::Duration;

use turnpike_protocol::mppe::{Allowed, Policy, Stateful, Strength, Strengths};
use turnpike_protocol::ppp::AuthProtocol;

use super::Chance;
use super::play::PATIENCE;

/// How a control connection and its calls end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The client hangs up.
    HangUp,
    /// The server shuts down and tells everybody.
    ShutDown,
    /// An operator kills each call.
    Kill,
    /// TCP breaks.
    Cut,
}

impl Ending {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(4) {
            0 => Self::HangUp,
            1 => Self::ShutDown,
            2 => Self::Kill,
            _ => Self::Cut,
        }
    }

    /// For counting.
    pub fn name(self) -> &'static str {
        match self {
            Self::HangUp => "ended by the client",
            Self::ShutDown => "ended by the server's shutdown",
            Self::Kill => "ended by an operator",
            Self::Cut => "ended by a broken connection",
        }
    }
}

/// A client.
#[derive(Clone, Debug)]
pub struct Person {
    /// Which user; also decides the address it dials from.
    pub user: u8,
    /// Whether it knows its password.
    pub honest: bool,
    /// When it dials.
    pub dials: Duration,
    /// Calls in its control connection.
    pub calls: u8,
    /// When it ends before the end of the world, and how; it then dials again.
    pub leaves: Option<(Duration, Ending)>,
    /// How it ends at the end of the world.
    pub ending: Ending,
}

/// How bad the network is. Shares are per cent.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way through it.
    pub delay: Duration,
    /// GRE packets lost.
    pub loss: u32,
    /// GRE packets doubled.
    pub duplicate: u32,
    /// GRE packets that others overtake.
    pub reorder: u32,
    /// GRE packets of which an octet changes.
    pub corrupt: u32,
    /// CCP Configure-Acks lost, on top.
    pub lost_acks: u32,
    /// CCP Configure-Acks doubled, on top; the second copy late.
    pub doubled_acks: u32,
    /// From when until when nothing at all gets through.
    pub outage: Option<(Duration, Duration)>,
}

/// What one world is like.
#[derive(Clone, Debug)]
pub struct Story {
    /// Workers of the server.
    pub workers: usize,
    /// Packets of a call that may wait for earlier ones, at both ends.
    pub queue: u8,
    /// How everybody says who they are.
    pub method: AuthProtocol,
    /// How often the server asks again.
    pub rechallenge: Option<Duration>,
    /// How long a call may take to come up.
    pub set_up: Duration,
    /// Both sides' policy.
    pub mppe: Policy,
    /// Key lengths and modes of both sides.
    pub mppe_allowed: Allowed,
    /// The clients.
    pub people: Vec<Person>,
    /// The network while it misbehaves.
    pub weather: Weather,
    /// For how long it does.
    pub bad_weather: Duration,
}

impl Story {
    /// From chance.
    pub fn draw(chance: &mut Chance) -> Self {
        let bad_weather = Duration::from_secs(8) + chance.up_to(Duration::from_secs(8));
        let worst = [0, 2, 8][chance.below(3) as usize];
        let share = |chance: &mut Chance| chance.below(worst + 1);
        let weather = Weather {
            delay: Duration::from_millis(1) + chance.up_to(Duration::from_millis(40)),
            loss: share(chance),
            duplicate: share(chance),
            reorder: share(chance),
            corrupt: share(chance) / 2,
            lost_acks: [0, 0, 40][chance.below(3) as usize],
            doubled_acks: [0, 0, 60][chance.below(3) as usize],
            outage: chance.percent(20).then(|| {
                let from = chance.up_to(bad_weather);
                (from, from + chance.up_to(Duration::from_millis(2_500)))
            }),
        };
        let number = 1 + chance.below(4);
        let people = (0..number)
            .map(|user| Person {
                user: user as u8,
                honest: !chance.percent(8),
                dials: chance.up_to(Duration::from_secs(2)),
                calls: 1 + u8::from(chance.percent(25)),
                leaves: chance.percent(25).then(|| {
                    let at = Duration::from_secs(3) + chance.up_to(Duration::from_secs(5));
                    (at, Ending::draw(chance))
                }),
                ending: Ending::draw(chance),
            })
            .collect();
        Self {
            workers: 1 + chance.below(2) as usize,
            queue: [0, 4, 32][chance.below(3) as usize],
            method: AuthProtocol::MsChapV2,
            rechallenge: None,
            set_up: PATIENCE,
            mppe: if chance.percent(85) {
                Policy::Require
            } else {
                Policy::Deny
            },
            mppe_allowed: Allowed {
                strengths: [
                    Strengths::STRONG,
                    Strengths::ALL,
                    Strengths::ALL.without(Strengths::STRONG),
                    Strengths::NONE.with(Strength::Bits40),
                ][chance.below(4) as usize],
                stateful: if chance.percent(30) {
                    Stateful::Ask
                } else {
                    Stateful::Refuse
                },
            },
            people,
            weather,
            bad_weather,
        }
    }
}
