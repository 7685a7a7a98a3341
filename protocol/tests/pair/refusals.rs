//! What is refused by name, and what is let pass without a word.

use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::{AuthProtocol, End, ResponseFault};

use crate::MINUTE;
use crate::harness::{Pair, Side, client, server};
use crate::methods::pair;

/// Protocol-Rejects that the server has sent, by what they reject.
fn rejected(pair: &Pair) -> Vec<Vec<u8>> {
    let sent = pair.ends[1].sent.iter();
    sent.filter(|frame| frame[..5] == [0xff, 3, 0xc0, 0x21, 8])
        .map(|frame| frame[8..].to_vec())
        .collect()
}

fn frame(protocol: u16, information: &[u8]) -> Vec<u8> {
    [&[0xff, 3][..], &protocol.to_be_bytes(), information].concat()
}

#[test]
fn protocols_that_nobody_speaks_are_rejected_when_the_network_is_reached() {
    // VJ, IPX, AppleTalk, multilink, ECP, BACP, BAP and something made up.
    let unknown = [
        0x002d, 0x002f, 0x002b, 0x0029, 0x003d, 0x8053, 0xc02b, 0xc02d, 0x8281,
    ];
    let mut pair = Pair::new(client(), server(), 1);
    pair.verdict_delay = MINUTE;
    pair.open();
    pair.run(MINUTE, |pair| pair.ends[1].authentications == 1);
    for protocol in [0x002d, 0x003d, 0x8053] {
        pair.inject(Side::Server, &frame(protocol, &[1, 1, 0, 4]));
    }
    assert_eq!(rejected(&pair), Vec::<Vec<u8>>::new(), "too early");

    let mut pair = Pair::new(client(), server(), 1);
    assert!(pair.set_up());
    for protocol in unknown {
        pair.inject(Side::Server, &frame(protocol, &[1, 1, 0, 4]));
    }
    let expected = unknown.map(|protocol| [&protocol.to_be_bytes()[..], &[1, 1, 0, 4]].concat());
    assert_eq!(rejected(&pair), expected);
    // IP and MPPE are data, whatever becomes of it.
    for protocol in [0x0021, 0x0057, 0x00fd] {
        pair.inject(Side::Server, &frame(protocol, &[0x45, 0, 0, 20]));
    }
    assert_eq!(rejected(&pair).len(), unknown.len());
    // A long one comes back cut, so that it fits into any MRU.
    let long = [0x5a; 1400];
    pair.inject(Side::Server, &frame(0x8281, &long));
    let last = rejected(&pair).pop().unwrap();
    assert_eq!(last[..2], [0x82, 0x81]);
    assert!((100..1400).contains(&last.len()), "{}", last.len());
    assert!(long.starts_with(&last[2..]));
    assert!(pair.both_up());
}

#[test]
fn what_lcp_says_beside_its_business_changes_nothing() {
    let mut pair = Pair::new(client(), server(), 1);
    assert!(pair.set_up());
    let before = pair.ends[1].sent.len();
    for code in [11, 12, 13] {
        // Discard-Request, Identification, Time-Remaining: magic number, and something.
        pair.inject(
            Side::Server,
            &frame(0xc021, &[code, 9, 0, 12, 1, 2, 3, 4, 0, 0, 0, 60]),
        );
    }
    assert_eq!(pair.ends[1].sent.len(), before);
    assert!(pair.both_up());
}

/// Plays a login in which the client's Response is changed on its way.
fn changed(method: AuthProtocol, change: fn(&mut Vec<u8>)) -> Option<End> {
    let mut pair = pair(&[method], &[method], Policy::Deny, 1);
    let is_answer =
        |frame: &[u8]| matches!(frame, [_, _, 0xc2, 0x23, 2, ..] | [_, _, 0xc0, 0x23, 1, ..]);
    pair.filter = Box::new(move |from, frame| from == Side::Client && is_answer(frame));
    pair.open();
    pair.run(MINUTE, |pair| {
        pair.ends[0].sent.iter().any(|frame| is_answer(frame))
    });
    let mut answer = pair.ends[0].sent.last().unwrap().clone();
    change(&mut answer);
    let len = (answer.len() - 4) as u16;
    answer[6..8].copy_from_slice(&len.to_be_bytes());
    pair.inject(Side::Server, &answer);
    pair.run(MINUTE, Pair::both_ended);
    assert_eq!(pair.ends[1].authentications, 0, "{method}");
    pair.ends[1].end.clone()
}

#[test]
fn responses_that_prove_nothing_are_refused_by_name() {
    let fault = |end: Option<End>| match end {
        Some(End::ResponseUnusable { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    // The last octet of the value says that the LM response is to be used.
    let lm_only = changed(AuthProtocol::MsChapV1, |answer| answer[9 + 48] = 0);
    assert_eq!(fault(lm_only), ResponseFault::LmOnly);
    for method in [
        AuthProtocol::MsChapV2,
        AuthProtocol::MsChapV1,
        AuthProtocol::ChapMd5,
    ] {
        let size = changed(method, |answer| {
            answer[8] -= 1;
            answer.remove(9);
        });
        assert_eq!(fault(size), ResponseFault::Size, "{method}");
    }
    let nameless = changed(AuthProtocol::Pap, |answer| {
        let name = usize::from(answer[8]);
        answer.drain(9..9 + name);
        answer[8] = 0;
    });
    assert_eq!(fault(nameless), ResponseFault::NoName);
}
