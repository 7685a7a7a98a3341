//! What policies, keys and CCP make of a call.

use super::*;

#[test]
fn policies_meet() {
    use Policy::{Allow, Deny, Prefer, Require};
    for client_policy in [Deny, Allow, Prefer, Require] {
        for server_policy in [Deny, Allow, Prefer, Require] {
            let mut pair = with_policies(client_policy, server_policy);
            pair.open();
            pair.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
            let denied = [client_policy, server_policy].contains(&Deny);
            let required = [client_policy, server_policy].contains(&Require);
            let wanted = required || [client_policy, server_policy].contains(&Prefer);
            if denied && required {
                assert!(
                    pair.ends
                        .iter()
                        .any(|end| matches!(end.end, Some(End::MppeRefused(_)))),
                    "{client_policy:?} {server_policy:?}"
                );
            } else {
                assert!(pair.both_up(), "{client_policy:?} {server_policy:?}");
                // A side that may still learn better by CCP does.
                pair.run(Duration::from_secs(1), |_| false);
                assert!(pair.both_up());
                pair.assert_agreed(wanted && !denied);
                assert!(
                    pair.now.since(turnpike_protocol::Time::ZERO) < Duration::from_secs(3),
                    "{client_policy:?} {server_policy:?} waited for a timer"
                );
            }
        }
    }
}

#[test]
fn no_keys_means_no_mppe() {
    let mut pair = with_policies(Policy::Prefer, Policy::Prefer);
    pair.verdict = Box::new(keyless_verdict);
    assert!(pair.set_up());
    assert_eq!(pair.server().up.unwrap().encryption, Encryption::Plain);
    assert!(pair.server().transmit.running.is_none());

    let mut pair = with_policies(Policy::Require, Policy::Require);
    pair.verdict = Box::new(keyless_verdict);
    pair.open();
    assert!(pair.run(MINUTE, Pair::both_ended));
    assert_eq!(
        pair.server().end,
        Some(End::MppeRefused(MppeRefusal::NoKeys))
    );
    assert!(matches!(
        pair.client().end,
        Some(End::PeerTerminated { .. })
    ));
}

#[test]
fn lost_and_doubled_ccp_acknowledgements_start_the_same_keys() {
    for (lost, doubled) in [(Side::Client, 0), (Side::Server, 0), (Side::Client, 1000)] {
        let mut pair = Pair::new(client(), server(), 9);
        pair.faults.duplication = doubled;
        let mut acks = 0;
        pair.filter = Box::new(move |from, frame| {
            let ack = ccp_ack(frame).is_some() && from == lost;
            acks += u32::from(ack);
            ack && acks == 1
        });
        assert!(pair.set_up());
        pair.run(Duration::from_secs(10), |_| false);
        assert!(pair.both_up());
        pair.assert_agreed(true);
        assert_eq!(pair.counts.lost_ccp_acks, 1);
        assert_eq!(pair.counts.doubled_ccp_acks > 0, doubled > 0);
    }
}

#[test]
fn ccp_negotiated_anew_holds_data_and_starts_the_keys_again() {
    let mut pair = Pair::new(client(), server(), 18);
    assert!(pair.set_up());
    let request = [0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 6, 1, 0, 0, 0x40];
    pair.inject(Side::Server, &request);
    assert!(pair.server().up.is_none(), "no data without CCP");
    assert!(pair.run(MINUTE, |pair| pair.ends[1].up.is_some()));
    pair.run(Duration::from_secs(10), |_| false);
    assert!(pair.both_up());
    pair.assert_agreed(true);
    assert!(pair.server().transmit.starts >= 2);
}

#[test]
fn malformed_ccp_changes_nothing() {
    let mut pair = Pair::new(client(), server(), 19);
    assert!(pair.set_up());
    for frame in [
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 9, 1, 0, 0, 0x40][..],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 1, 1, 0, 0, 0x40],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 99, 18, 6, 1, 0, 0, 0x40],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 3],
        &[0xff, 0x03, 0x80, 0xfd, 1],
        &[0xff, 0x03],
        &[],
    ] {
        pair.inject(Side::Server, frame);
        assert!(pair.server().up.is_some());
    }
    assert_eq!(pair.server().ups, 1);
    assert!(pair.server().link.info().malformed >= 4);
}

#[test]
fn ccp_closed_by_the_peer_ends_an_encrypted_call() {
    for policy in [Policy::Allow, Policy::Prefer, Policy::Require] {
        let mut pair = with_policies(Policy::Require, policy);
        assert!(pair.set_up());
        pair.run(Duration::from_secs(1), |_| false);
        pair.assert_agreed(true);
        pair.inject(Side::Server, &[0xff, 0x03, 0x80, 0xfd, 5, 9, 0, 4]);
        assert!(pair.server().up.is_none(), "never back to clear");
        assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
        assert_eq!(
            pair.server().end,
            Some(End::MppeRefused(MppeRefusal::Terminated)),
            "{policy:?}"
        );
    }
}
