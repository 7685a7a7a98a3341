//! LCP echoes: answered by the worker while it was told to, and everybody else's business otherwise.

mod rig;

use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Port};
use turnpike_dataplane::counters::{Reason, Total};

const OURS: u32 = 0x5eed_0001;

/// An Echo-Request with this magic number, and what the server sent for it.
fn ask(pair: &mut Pair, magic: u32) -> (Vec<u8>, Vec<Vec<u8>>) {
    let frame = echo(9, 7, magic);
    pair.client.send_frame(AT_CLIENT, &frame);
    let sent = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, sent);
    let answers = pair.server.sent(Port::Access);
    (frame, answers.iter().map(|frame| gre_of(frame).1).collect())
}

fn echo(code: u8, identifier: u8, magic: u32) -> Vec<u8> {
    let header = [0xff, 0x03, 0xc0, 0x21, code, identifier, 0, 13];
    [&header[..], &magic.to_be_bytes(), b"hello"].concat()
}

#[test]
fn echoes_are_answered_from_being_told_to_until_held() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up(encryption);
        // What started the keys.
        pair.server.frames();
        let (request, answers) = ask(&mut pair, 3);
        assert!(answers.is_empty(), "nobody has told it to");
        assert_eq!(pair.server.frames(), [request]);

        let call = AT_SERVER;
        pair.server.tell(Command::Echo { call, magic: OURS });
        let heard = pair.server.counters(call).gre_received;
        let (_, answers) = ask(&mut pair, 3);
        assert_eq!(answers, [echo(10, 7, OURS)]);
        assert!(pair.server.frames().is_empty());
        assert_eq!(pair.server.total(Total::EchoesAnswered), 1);
        // The control plane knows by this that the client lives.
        assert_eq!(pair.server.counters(call).gre_received, heard + 1);

        // The answer to one of ours, and a loop, are for the control plane.
        let reply = echo(10, 7, 3);
        pair.client.send_frame(AT_CLIENT, &reply);
        pair.exchange();
        let (looped, answers) = ask(&mut pair, OURS);
        assert!(answers.is_empty());
        assert_eq!(pair.server.frames(), [reply, looped]);

        pair.server.tell(Command::Hold { call });
        let (request, answers) = ask(&mut pair, 3);
        assert!(answers.is_empty(), "LCP may not be open");
        assert_eq!(pair.server.frames(), [request]);
        assert_eq!(pair.server.total(Total::EchoesAnswered), 1);
        pair.server.assert_dropped(&[]);
    }
}

#[test]
fn a_flood_of_echoes_is_answered_as_slowly_as_any_control_frames() {
    let mut pair = Pair::up(Encryption::Plain);
    let call = AT_SERVER;
    pair.server.tell(Command::Echo { call, magic: OURS });
    for _ in 0..200 {
        ask(&mut pair, 3);
    }
    let answered = pair.server.total(Total::EchoesAnswered);
    assert!((1..200).contains(&answered), "{answered}");
    pair.server
        .assert_dropped(&[(Reason::FrameRate, 200 - answered)]);
}
