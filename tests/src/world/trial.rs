//! Logins on trial: two clients dial over bad paths, one that knows its password and one that does not, and something
//! happens to their packets. In the end the first is in or out for a cause that blames nobody's password, the second is
//! out, and who judges was not asked without need.

use core::time::Duration;

use turnpike_bench::subscriber::Cause as ClientCause;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::config::DEFAULT_SETUP_TIME;
use turnpike_controlplane::tunnel::Stage;
use turnpike_dataplane::api::{Command, FrameBytes};
use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Allowed, Policy, Stateful, Strengths};
use turnpike_protocol::ppp::packet::code;
use turnpike_protocol::ppp::{AuthProtocol, End};
use turnpike_protocol::wire::ethernet;
use turnpike_protocol::wire::ppp::Protocol;

use super::model::Way;
use super::network::carried;
use super::play::{Happening, Outcome, World};
use super::story::{Ending, Person, Story, Weather};
use super::{Chance, Tally};

/// Who knows the password, and who does not: the numbers of their connections too.
const HONEST: usize = 0;
const GUESSING: usize = 1;

const SECOND: Duration = Duration::from_secs(1);

/// How long it may take until everybody is in or out: twice the longest series of PPP's repetitions with the longest delay.
const DECIDED: Duration = Duration::from_secs(300);

/// How often a call is challenged again, and for how long that is watched.
const RECHALLENGE: Duration = Duration::from_secs(10);
const MID_CALL: Duration = Duration::from_secs(60);

/// PPP's longest time between two repetitions, and there and back with the longest delay.
const REPEATED: Duration = Duration::from_secs(45);

/// Longer than it takes to find that a call's account is gone: one more challenge, its repetitions, and the farewell.
const EXPELLED: Duration = Duration::from_secs(180);

/// What happens to a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The first Response takes 10 s longer.
    ResponseLate,
    /// The client sends each Response twice.
    ResponseRepeated,
    /// The first three Successes never arrive.
    SuccessLost,
    /// The first Response takes so long that the Challenge is repeated; what answers the copies never arrives.
    EarlierCopy,
    /// The first Success is overtaken by CCP and IPCP.
    NcpsBeforeSuccess,
    /// Whoever judges takes 8 s.
    SlowVerdict,
    /// The client sends CCP, IPCP and IPV6CP while it is judged.
    NcpsBeforeVerdict,
    /// The client's first Configure-Request of LCP comes once more while it is judged.
    Renegotiation,
    /// The server asks again every 10 s.
    Rechallenge,
}

impl Trouble {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::ResponseLate,
        Self::ResponseRepeated,
        Self::SuccessLost,
        Self::EarlierCopy,
        Self::NcpsBeforeSuccess,
        Self::SlowVerdict,
        Self::NcpsBeforeVerdict,
        Self::Renegotiation,
        Self::Rechallenge,
    ];

    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResponseLate => "Response 10 s late",
            Self::ResponseRepeated => "Response sent twice",
            Self::SuccessLost => "Success lost three times",
            Self::EarlierCopy => "Response to an earlier copy of the Challenge",
            Self::NcpsBeforeSuccess => "CCP and IPCP before the Success",
            Self::SlowVerdict => "a verdict that takes 8 s",
            Self::NcpsBeforeVerdict => "NCP frames before the verdict",
            Self::Renegotiation => "Challenge crossing a renegotiation",
            Self::Rechallenge => "challenges in mid-call",
        }
    }
}

/// Configure-Requests of IPCP and CCP, as the client would send them.
const EARLY: [&[u8]; 2] = [
    &[0xff, 3, 0x80, 0x21, 1, 1, 0, 10, 3, 6, 0, 0, 0, 0],
    &[0xff, 3, 0x80, 0xfd, 1, 1, 0, 10, 18, 6, 1, 0, 0, 0x40],
];

/// What happens to one frame, beside the weather.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Fate {
    pub(super) lost: bool,
    /// Its sender sends it once more.
    pub(super) again: bool,
    late: Duration,
    /// What is sent after it may arrive before it.
    overtaken: bool,
}

/// A login, as it goes.
#[derive(Default)]
struct Candidate {
    /// The client's Configure-Requests of LCP; the first of them.
    requests: u32,
    first_request: Vec<u8>,
    /// The server's Challenges.
    challenges: u32,
    responses: u32,
    successes: u32,
    /// How often the judge was asked, and what he said the last time.
    asked: u32,
    verdict: Option<bool>,
    /// Nothing arrives before that, per direction.
    not_before: [Time; 2],
    client_end: Option<ClientCause>,
    server_end: Option<Cause>,
}

pub(super) struct Trial {
    trouble: Trouble,
    candidates: [Candidate; 2],
}

impl Trial {
    /// What happens to a frame; the error says which rule it breaks.
    pub(super) fn fate(&mut self, frame: &[u8], direction: usize) -> Outcome<Fate> {
        let mut fate = Fate::default();
        let Some((payload, at, protocol)) = carried(frame) else {
            return Ok(fate);
        };
        let candidate = &mut self.candidates[candidate_of(frame, direction)];
        let from_client = direction == 0;
        let trouble = self.trouble;
        match (protocol, payload.get(at)) {
            // What was sent too early may arrive in time on a slow path, and be unwanted all the same.
            (Protocol::LCP, Some(&code::PROTOCOL_REJECT))
                if trouble != Trouble::NcpsBeforeVerdict || candidate.verdict != Some(true) =>
            {
                return Err(format!("something was Protocol-Rejected: {payload:02x?}"));
            }
            (Protocol::LCP, Some(&code::CONFIGURE_REQUEST)) if from_client => {
                candidate.requests += 1;
                if candidate.requests == 1 {
                    candidate.first_request = payload.to_vec();
                }
            }
            (Protocol::CHAP, Some(1)) if !from_client => candidate.challenges += 1,
            // A Response, or PAP's Authenticate-Request.
            (Protocol::CHAP, Some(2)) | (Protocol::PAP, Some(1)) if from_client => {
                candidate.responses += 1;
                match (trouble, candidate.responses) {
                    (Trouble::ResponseLate, 1) => fate.late = 10 * SECOND,
                    (Trouble::ResponseRepeated, n) => fate.again = n % 2 == 1,
                    (Trouble::EarlierCopy, 1) => fate.late = 4 * SECOND,
                    (Trouble::EarlierCopy, 2..4) => fate.lost = true,
                    _ => {}
                }
            }
            // A Success, or PAP's Authenticate-Ack.
            (Protocol::CHAP, Some(3)) | (Protocol::PAP, Some(2)) if !from_client => {
                candidate.successes += 1;
                match (trouble, candidate.successes) {
                    (Trouble::SuccessLost, 1..=3) => fate.lost = true,
                    (Trouble::NcpsBeforeSuccess, 1) => {
                        fate.late = 4 * SECOND;
                        fate.overtaken = true;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(fate)
    }

    /// Makes a frame's copies as late as they have to be, and keeps what follows behind them.
    pub(super) fn shift(&mut self, arrivals: &mut [(Time, Vec<u8>)], direction: usize, fate: Fate) {
        for (at, frame) in arrivals {
            let candidate = &mut self.candidates[candidate_of(frame, direction)];
            let not_before = &mut candidate.not_before[direction];
            *at = (*at + fate.late).max(*not_before);
            if fate.late > Duration::ZERO && !fate.overtaken || *at == *not_before {
                *not_before = *at + Duration::from_nanos(1);
            }
        }
    }

    /// The judge is asked; how much longer he takes.
    pub(super) fn judging(&mut self, at: usize) -> Outcome<Duration> {
        let candidate = &mut self.candidates[at];
        candidate.asked += 1;
        // Each Configure-Request may begin everything anew, and nothing else does.
        let most = match self.trouble {
            Trouble::Rechallenge => candidate.challenges,
            _ => candidate.requests,
        };
        if candidate.asked > most {
            return Err(format!(
                "the judge was asked {} times; {most} would have been enough",
                candidate.asked
            ));
        }
        Ok(match self.trouble {
            Trouble::SlowVerdict => 8 * SECOND,
            Trouble::NcpsBeforeVerdict => 3 * SECOND,
            Trouble::Renegotiation => 2 * SECOND,
            _ => Duration::ZERO,
        })
    }

    /// Whether the account is there: with challenges in mid-call, one is gone after the first.
    pub(super) fn is_known(&self, at: usize) -> bool {
        self.trouble != Trouble::Rechallenge || at == HONEST || self.candidates[at].asked <= 1
    }

    pub(super) fn judged(&mut self, at: usize, accepted: bool) {
        self.candidates[at].verdict = Some(accepted);
    }

    pub(super) fn client_lost(&mut self, at: usize, cause: &ClientCause) {
        self.candidates[at].client_end = Some(cause.clone());
    }

    pub(super) fn server_lost(&mut self, at: usize, wanted: bool, cause: Cause) -> Outcome {
        let candidate = &mut self.candidates[at];
        candidate.server_end = Some(cause);
        let refused = cause == Cause::AuthenticationFailed;
        if refused != (candidate.verdict == Some(false)) && (refused || at == HONEST) && !wanted {
            return Err(format!(
                "the judge said {:?}, and the call ended because of {cause:?}",
                candidate.verdict
            ));
        }
        Ok(())
    }

    fn out(&self, at: usize) -> bool {
        let candidate = &self.candidates[at];
        candidate.client_end.is_some() && candidate.server_end.is_some()
    }
}

/// Whose call a frame belongs to: the last octet of the client's outer address says so.
fn candidate_of(frame: &[u8], direction: usize) -> usize {
    let octet = ethernet::HEADER_LEN + if direction == 0 { 15 } else { 19 };
    let honest = frame.get(octet) == Some(&10);
    if honest { HONEST } else { GUESSING }
}

impl Story {
    /// Two clients on a path with up to 10 % loss, and delay up to `longest`.
    fn on_trial(chance: &mut Chance, trouble: Trouble, longest: Duration) -> Self {
        let base = Self::draw(chance);
        let method = [
            AuthProtocol::MsChapV2,
            AuthProtocol::MsChapV1,
            AuthProtocol::ChapMd5,
            AuthProtocol::Pap,
        ][chance.below(if trouble == Trouble::Rechallenge {
            3
        } else {
            4
        }) as usize];
        let rechallenged = trouble == Trouble::Rechallenge;
        Self {
            method,
            rechallenge: rechallenged.then_some(RECHALLENGE),
            // As the configuration has it where it says nothing.
            set_up: DEFAULT_SETUP_TIME,
            mppe: match method.gives_keys() {
                true => Policy::Require,
                false => Policy::Deny,
            },
            mppe_allowed: Allowed {
                strengths: Strengths::ALL,
                stateful: match chance.percent(30) {
                    true => Stateful::Ask,
                    false => Stateful::Refuse,
                },
            },
            people: [true, false]
                .into_iter()
                .zip(0..)
                .map(|(honest, user)| Person {
                    user,
                    // With challenges in mid-call the other's account goes later.
                    honest: honest || rechallenged,
                    dials: Duration::ZERO,
                    calls: 1,
                    leaves: None,
                    ending: Ending::HangUp,
                })
                .collect(),
            weather: Weather {
                delay: chance.up_to(longest),
                loss: chance.below(11),
                duplicate: chance.below(6),
                reorder: chance.below(6),
                corrupt: 0,
                lost_acks: 0,
                doubled_acks: 0,
                outage: None,
            },
            ..base
        }
    }
}

/// Puts the login of a seed on trial; counts whether the right password got in, or else the cause. The error says what did
/// not hold.
pub fn log_in(seed: u64, trouble: Trouble, longest: Duration, trace: bool) -> Outcome<Tally> {
    let mut chance = Chance::new(seed);
    let story = Story::on_trial(&mut chance, trouble, longest);
    let mut world = World::new(story, chance)?;
    world.trace = trace.then(Vec::new);
    world.trial = Some(Trial {
        trouble,
        candidates: Default::default(),
    });
    world.try_login().map_err(|error| {
        let context = world.describe();
        world.report(&format!("{}: {error}; {context}", trouble.name()))
    })?;
    Ok(world.model.tally)
}

impl World {
    fn try_login(&mut self) -> Outcome {
        // Data is for the proof at the end.
        self.busy = false;
        self.begin()?;
        if !self.until(self.now + DECIDED, Self::decided)? {
            return Err("neither in nor out".to_owned());
        }
        if self.story.rechallenge.is_some() {
            self.until(self.now + MID_CALL, |_| false)?;
            if !self.until(self.now + EXPELLED, |world| world.is_out(GUESSING))? {
                return Err("an account is gone, and its call goes on".to_owned());
            }
        }
        self.bad = false;
        // Stateful keys show that something was lost when the next packet comes, and then ask for a reset.
        let online: Vec<_> = self.online().collect();
        for address in online {
            for way in [Way::Up, Way::Down] {
                self.plan(self.now, Happening::Data(address, way));
            }
        }
        self.until(self.now + REPEATED, |_| false)?;
        if !self.is_in(HONEST) && !self.until(self.now + DECIDED, |world| world.is_out(HONEST))? {
            return Err("one end is up and the other is not".to_owned());
        }
        if let Some(Candidate {
            client_end,
            server_end,
            ..
        }) = self.trial.as_ref().map(|trial| &trial.candidates[HONEST])
        {
            match server_end {
                None => self.model.tally.count("right password: in"),
                Some(cause) if is_of_the_path(*cause, client_end.as_ref()) => {
                    self.model.tally.count(cause.name());
                }
                Some(cause) => {
                    return Err(format!(
                        "the right password is out because of {cause:?}, at the client {client_end:?}"
                    ));
                }
            }
        }
        self.prove()?;
        self.end()
    }

    /// The right password is in or out at both ends, the wrong one is out, or comes to that later.
    fn decided(&self) -> bool {
        let later = self.story.rechallenge.is_some();
        let done = |at| self.is_in(at) || self.is_out(at);
        done(HONEST)
            && if later {
                done(GUESSING)
            } else {
                self.is_out(GUESSING)
            }
    }

    fn is_in(&self, at: usize) -> bool {
        self.connections.get(at).is_some_and(|connection| {
            let mut calls = connection.tunnel.snapshots();
            !connection.online.is_empty() && calls.any(|call| call.stage == Stage::Up)
        })
    }

    fn is_out(&self, at: usize) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.out(at))
    }

    /// The judge has been asked for the first time: what the client does then.
    pub(super) fn inject(&mut self, at: usize) -> Outcome {
        let Some(trial) = &self.trial else {
            return Ok(());
        };
        let candidate = &trial.candidates[at];
        if candidate.asked > 1 {
            return Ok(());
        }
        let frames = match trial.trouble {
            Trouble::NcpsBeforeVerdict => EARLY.map(<[u8]>::to_vec).to_vec(),
            Trouble::Renegotiation => vec![candidate.first_request.clone()],
            _ => Vec::new(),
        };
        for frame in frames {
            self.client_sends(at, &frame)?;
        }
        Ok(())
    }

    /// The client sends the PPP frame in `frame` once more, in a GRE packet of its own.
    pub(super) fn send_again(&mut self, frame: &[u8]) -> Outcome {
        match carried(frame) {
            Some((payload, ..)) => self.client_sends(candidate_of(frame, 0), payload),
            None => Ok(()),
        }
    }

    fn client_sends(&mut self, at: usize, frame: &[u8]) -> Outcome {
        let connection = &self.connections[at];
        self.client.tell(Command::Send {
            call: connection.subscriber.call_ref(connection.first),
            frame: FrameBytes::new(frame).ok_or("a frame is too long")?,
        })
    }
}

/// Whether a call ended for a reason that lies on its way: something did not come in time, for one end or the other.
fn is_of_the_path(server: Cause, client: Option<&ClientCause>) -> bool {
    match server {
        Cause::SetupTimeout
        | Cause::NoGre
        | Cause::LcpFailed
        | Cause::AuthenticationTimeout
        | Cause::Silent => true,
        Cause::HungUp => matches!(
            client,
            Some(
                ClientCause::Link(
                    End::NoAnswer { .. }
                        | End::SetUpTimeout { .. }
                        | End::AuthenticationTimeout
                        | End::EchoFailure { .. }
                ) | ClientCause::Disconnected(..)
            )
        ),
        _ => false,
    }
}
