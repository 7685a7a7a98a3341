//! The option negotiation automaton of RFC 1661 §4.1 as a table.

/// The states of RFC 1661 §4.2, numbered as in its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// The lower layer is down and no Open has come.
    Initial = 0,
    /// An Open has come; the lower layer is down.
    Starting = 1,
    /// The lower layer is up; no Open has come.
    Closed = 2,
    /// Open, but the negotiation ended; waits for the peer.
    Stopped = 3,
    /// Terminate-Request sent because of a Close.
    Closing = 4,
    /// Terminate-Request sent, or the peer's acknowledged; still open from our side.
    Stopping = 5,
    /// Configure-Request sent; nothing acknowledged.
    ReqSent = 6,
    /// The peer acknowledged our request.
    AckRcvd = 7,
    /// We acknowledged the peer's request.
    AckSent = 8,
    /// Both.
    Opened = 9,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Initial,
        Self::Starting,
        Self::Closed,
        Self::Stopped,
        Self::Closing,
        Self::Stopping,
        Self::ReqSent,
        Self::AckRcvd,
        Self::AckSent,
        Self::Opened,
    ];

    /// Whether the Restart timer may run in this state: those that have TO events in the table.
    pub const fn has_timer(self) -> bool {
        matches!(
            self,
            Self::Closing | Self::Stopping | Self::ReqSent | Self::AckRcvd | Self::AckSent
        )
    }
}

/// The events of RFC 1661 §4.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The lower layer is up.
    Up,
    /// The lower layer is down.
    Down,
    /// The administrator wants the layer.
    Open,
    /// The administrator wants it no more.
    Close,
    /// TO+: the Restart timer ran out, requests are left.
    TimeoutRetry,
    /// TO-: the Restart timer ran out for the last time.
    TimeoutLast,
    /// RCR+: a Configure-Request that can be acknowledged.
    RequestGood,
    /// RCR-: a Configure-Request that is answered with Nak or Reject.
    RequestBad,
    /// RCA: a Configure-Ack.
    Ack,
    /// RCN: a Configure-Nak or Configure-Reject.
    Nak,
    /// RTR: a Terminate-Request.
    TerminateRequest,
    /// RTA: a Terminate-Ack.
    TerminateAck,
    /// RUC: an unknown code.
    UnknownCode,
    /// RXJ+: a Code-Reject or Protocol-Reject that can be lived with.
    RejectTolerable,
    /// RXJ-: one that cannot.
    RejectFatal,
    /// RXR: an Echo-Request, Echo-Reply or Discard-Request.
    Echo,
}

impl Event {
    /// All events, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::Up,
        Self::Down,
        Self::Open,
        Self::Close,
        Self::TimeoutRetry,
        Self::TimeoutLast,
        Self::RequestGood,
        Self::RequestBad,
        Self::Ack,
        Self::Nak,
        Self::TerminateRequest,
        Self::TerminateAck,
        Self::UnknownCode,
        Self::RejectTolerable,
        Self::RejectFatal,
        Self::Echo,
    ];
}

/// The actions of RFC 1661 §4.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// tlu: this layer is up.
    LayerUp,
    /// tld: this layer is down.
    LayerDown,
    /// tls: this layer needs the lower one.
    LayerStarted,
    /// tlf: this layer needs it no more.
    LayerFinished,
    /// irc: load the restart counter with Max-Configure or Max-Terminate.
    InitializeCounter,
    /// zrc: clear it, and wait one Restart period.
    ZeroCounter,
    /// scr: send a Configure-Request.
    SendRequest,
    /// sca: send a Configure-Ack.
    SendAck,
    /// scn: send a Configure-Nak or Configure-Reject.
    SendNak,
    /// str: send a Terminate-Request.
    SendTerminateRequest,
    /// sta: send a Terminate-Ack.
    SendTerminateAck,
    /// scj: send a Code-Reject.
    SendCodeReject,
    /// ser: send an Echo-Reply.
    SendEchoReply,
}

/// What to do on a transition, in the order in which the RFC lists it.
pub type Actions = &'static [Act];

/// One transition of RFC 1661 §4.1. A pair that the RFC marks `-` (it cannot happen) does nothing and stays.
pub const fn step(state: State, event: Event) -> (Actions, State) {
    match transition(state, event) {
        Some(outcome) => outcome,
        None => (&[], state),
    }
}

/// The table itself; `None` where the RFC has a dash.
const fn transition(state: State, event: Event) -> Option<(Actions, State)> {
    use Act::{
        InitializeCounter as irc, LayerDown as tld, LayerFinished as tlf, LayerStarted as tls,
        LayerUp as tlu, SendAck as sca, SendCodeReject as scj, SendEchoReply as ser,
        SendNak as scn, SendRequest as scr, SendTerminateAck as sta, SendTerminateRequest as str_,
        ZeroCounter as zrc,
    };
    use State::{
        AckRcvd, AckSent, Closed, Closing, Initial, Opened, ReqSent, Starting, Stopped, Stopping,
    };

    Some(match event {
        Event::Up => match state {
            Initial => (&[], Closed),
            Starting => (&[irc, scr], ReqSent),
            _ => return None,
        },
        Event::Down => match state {
            Closed => (&[], Initial),
            Stopped => (&[tls], Starting),
            Closing => (&[], Initial),
            Stopping | ReqSent | AckRcvd | AckSent => (&[], Starting),
            Opened => (&[tld], Starting),
            Initial | Starting => return None,
        },
        // The RFC's restart option (r) is not taken: an Open in a state that is open already changes nothing.
        Event::Open => match state {
            Initial => (&[tls], Starting),
            Closed => (&[irc, scr], ReqSent),
            Closing => (&[], Stopping),
            Starting | Stopped | Stopping | ReqSent | AckRcvd | AckSent | Opened => (&[], state),
        },
        Event::Close => match state {
            Initial => (&[], Initial),
            Starting => (&[tlf], Initial),
            Closed | Stopped => (&[], Closed),
            Closing | Stopping => (&[], Closing),
            ReqSent | AckRcvd | AckSent => (&[irc, str_], Closing),
            Opened => (&[tld, irc, str_], Closing),
        },
        Event::TimeoutRetry => match state {
            Closing | Stopping => (&[str_], state),
            ReqSent | AckRcvd => (&[scr], ReqSent),
            AckSent => (&[scr], AckSent),
            _ => return None,
        },
        Event::TimeoutLast => match state {
            Closing => (&[tlf], Closed),
            Stopping | ReqSent | AckRcvd | AckSent => (&[tlf], Stopped),
            _ => return None,
        },
        Event::RequestGood => match state {
            Closed => (&[sta], Closed),
            Stopped => (&[irc, scr, sca], AckSent),
            Closing | Stopping => (&[], state),
            ReqSent | AckSent => (&[sca], AckSent),
            AckRcvd => (&[sca, tlu], Opened),
            Opened => (&[tld, scr, sca], AckSent),
            Initial | Starting => return None,
        },
        Event::RequestBad => match state {
            Closed => (&[sta], Closed),
            Stopped => (&[irc, scr, scn], ReqSent),
            Closing | Stopping => (&[], state),
            ReqSent | AckSent => (&[scn], ReqSent),
            AckRcvd => (&[scn], AckRcvd),
            Opened => (&[tld, scr, scn], ReqSent),
            Initial | Starting => return None,
        },
        Event::Ack => match state {
            Closed | Stopped => (&[sta], state),
            Closing | Stopping => (&[], state),
            ReqSent => (&[irc], AckRcvd),
            AckRcvd => (&[scr], ReqSent),
            AckSent => (&[irc, tlu], Opened),
            Opened => (&[tld, scr], ReqSent),
            Initial | Starting => return None,
        },
        Event::Nak => match state {
            Closed | Stopped => (&[sta], state),
            Closing | Stopping => (&[], state),
            ReqSent => (&[irc, scr], ReqSent),
            AckRcvd => (&[scr], ReqSent),
            AckSent => (&[irc, scr], AckSent),
            Opened => (&[tld, scr], ReqSent),
            Initial | Starting => return None,
        },
        Event::TerminateRequest => match state {
            Closed | Stopped | Closing | Stopping => (&[sta], state),
            ReqSent | AckRcvd | AckSent => (&[sta], ReqSent),
            Opened => (&[tld, zrc, sta], Stopping),
            Initial | Starting => return None,
        },
        Event::TerminateAck => match state {
            Closed | Stopped => (&[], state),
            Closing => (&[tlf], Closed),
            Stopping => (&[tlf], Stopped),
            ReqSent | AckRcvd => (&[], ReqSent),
            AckSent => (&[], AckSent),
            Opened => (&[tld, scr], ReqSent),
            Initial | Starting => return None,
        },
        Event::UnknownCode => match state {
            Initial | Starting => return None,
            _ => (&[scj], state),
        },
        Event::RejectTolerable => match state {
            Initial | Starting => return None,
            ReqSent | AckRcvd => (&[], ReqSent),
            _ => (&[], state),
        },
        Event::RejectFatal => match state {
            Closed | Closing => (&[tlf], Closed),
            Stopped | Stopping | ReqSent | AckRcvd | AckSent => (&[tlf], Stopped),
            Opened => (&[tld, irc, str_], Stopping),
            Initial | Starting => return None,
        },
        Event::Echo => match state {
            Initial | Starting => return None,
            Opened => (&[ser], Opened),
            _ => (&[], state),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the table as RFC 1661 §4.1 does: two halves, `actions/state`, the footnotes as letters.
    fn print() -> String {
        let mut text = String::new();
        for (states, width) in [(&State::ALL[..6], 12), (&State::ALL[6..], 14)] {
            let mut head = String::from("Events|");
            for &state in states {
                head += &format!(" {:<width$}", format!("{} {}", state as u8, name(state)));
            }
            text += head.trim_end();
            text += "\n------+";
            text += &"-".repeat(states.len() * (width + 1));
            text += "\n";
            for event in Event::ALL {
                let mut line = format!(" {:<5}|", event_name(event));
                for &state in states {
                    line += &format!(" {:<width$}", cell(state, event));
                }
                text += line.trim_end();
                text += "\n";
            }
            text += "\n";
        }
        text
    }

    fn cell(state: State, event: Event) -> String {
        let Some((actions, next)) = transition(state, event) else {
            return "-".to_owned();
        };
        let mut text: Vec<&str> = actions.iter().map(|&act| act_name(act)).collect();
        let mut footnote = "";
        if event == Event::Open
            && matches!(
                state,
                State::Stopped | State::Closing | State::Stopping | State::Opened
            )
        {
            footnote = "r";
        }
        if event == Event::TimeoutLast && state >= State::ReqSent {
            footnote = "p";
        }
        let answered = matches!(state, State::AckRcvd | State::Opened);
        if matches!(event, Event::Ack | Event::Nak) && answered {
            footnote = "x";
        }
        let next = format!("{}{footnote}", next as u8);
        text.push(&next);
        let (state, actions) = text.split_last().unwrap();
        if actions.is_empty() {
            (*state).to_owned()
        } else {
            format!("{}/{state}", actions.join(","))
        }
    }

    fn name(state: State) -> &'static str {
        match state {
            State::ReqSent => "Req-Sent",
            State::AckRcvd => "Ack-Rcvd",
            State::AckSent => "Ack-Sent",
            State::Initial => "Initial",
            State::Starting => "Starting",
            State::Closed => "Closed",
            State::Stopped => "Stopped",
            State::Closing => "Closing",
            State::Stopping => "Stopping",
            State::Opened => "Opened",
        }
    }

    fn event_name(event: Event) -> &'static str {
        match event {
            Event::Up => "Up",
            Event::Down => "Down",
            Event::Open => "Open",
            Event::Close => "Close",
            Event::TimeoutRetry => "TO+",
            Event::TimeoutLast => "TO-",
            Event::RequestGood => "RCR+",
            Event::RequestBad => "RCR-",
            Event::Ack => "RCA",
            Event::Nak => "RCN",
            Event::TerminateRequest => "RTR",
            Event::TerminateAck => "RTA",
            Event::UnknownCode => "RUC",
            Event::RejectTolerable => "RXJ+",
            Event::RejectFatal => "RXJ-",
            Event::Echo => "RXR",
        }
    }

    fn act_name(act: Act) -> &'static str {
        match act {
            Act::LayerUp => "tlu",
            Act::LayerDown => "tld",
            Act::LayerStarted => "tls",
            Act::LayerFinished => "tlf",
            Act::InitializeCounter => "irc",
            Act::ZeroCounter => "zrc",
            Act::SendRequest => "scr",
            Act::SendAck => "sca",
            Act::SendNak => "scn",
            Act::SendTerminateRequest => "str",
            Act::SendTerminateAck => "sta",
            Act::SendCodeReject => "scj",
            Act::SendEchoReply => "ser",
        }
    }

    #[test]
    fn table_is_that_of_rfc_1661() {
        assert_eq!(print(), include_str!("fsm_rfc1661.txt"), "\n{}", print());
    }
}
