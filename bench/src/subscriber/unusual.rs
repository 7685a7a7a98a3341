//! What a client does when it does not behave as usual: half a goodbye, or everything once more.

use turnpike_dataplane::api::{Command, FrameBytes};
use turnpike_protocol::ppp::packet::{code, frame};
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_protocol::{CallId, Time};

use super::{Stage, Subscriber};

impl Subscriber {
    /// Ends a call by LCP Terminate alone: to clear it is left to the server. False when PPP does not run in it.
    pub fn terminate(&mut self, id: CallId, now: Time) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        let runs = matches!(self.calls[at].stage, Stage::Open(_));
        if runs {
            self.calls[at].left_to_server = true;
            self.begin_closing(at, now);
            self.pump(now);
        }
        runs
    }

    /// Ends a call by Call-Clear-Request alone, without a word of PPP. False when there is no such call any more.
    pub fn clear_only(&mut self, id: CallId, now: Time) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        self.calls[at].closing = true;
        let clears = self.caller.clear(id, now);
        self.pump(now);
        clears
    }

    /// Negotiates LCP or IPCP anew, and all that stands on it. False when PPP does not run.
    pub fn renegotiate(&mut self, id: CallId, protocol: Protocol, now: Time) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        let Stage::Open(link) = &mut self.calls[at].stage else {
            return false;
        };
        // RFC 1661 §4.1: an automaton that is open and receives a Terminate-Ack goes down and sends a new
        // Configure-Request. Nobody sent this one; the server sees no more than our request.
        link.handle_frame(&frame(protocol, code::TERMINATE_ACK, 0, &[]), now);
        self.pump(now);
        true
    }

    /// Sends an LCP Echo-Request now. False when LCP is not open.
    pub fn probe(&mut self, id: CallId) -> bool {
        let call = self.call_ref(id);
        let Some(at) = self.position(id) else {
            return false;
        };
        let Stage::Open(link) = &mut self.calls[at].stage else {
            return false;
        };
        let frame = link.probe().and_then(|frame| FrameBytes::new(&frame));
        let sends = frame.is_some();
        if let Some(frame) = frame {
            self.command(Command::Send { call, frame });
        }
        sends
    }
}
