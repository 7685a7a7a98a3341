//! From the first octet to data: the order of things, and everything that may keep a call from coming up.

use turnpike_protocol::mppe::{Strength, Strengths};

use super::*;

#[test]
fn everything_stands_before_the_client_is_told() {
    let mut world = World::new(settings());
    world.caller.call(CallId(0), world.now);
    world.settle();
    let before = |one: &str, other: &str| {
        assert!(
            world.position(one) < world.position(other),
            "{one} comes after {other} in {:#?}",
            world.did
        );
    };
    before("open peer 0 via 10.7.0.254", "tcp Outgoing-Call-Reply");
    before("tcp Outgoing-Call-Reply", "LCP Configure-Request");
    before("authenticate", "CHAP Success");
    before("secure receive", "CCP Configure-Request");
    before("secure transmit", "CCP Configure-Ack");
    before("begin alice 10.20.0.9", "route 10.20.0.9/32");
    before("route 10.20.0.9/32", "forward 10.20.0.9 1400");
    before("forward 10.20.0.9 1400", "IPCP Configure-Ack");
    before("answer echoes", "IPCP Configure-Ack");
    assert!(world.ended.is_empty());
}

#[test]
fn a_login_is_this_and_nothing_else() {
    let mut world = World::new(settings());
    world.caller.call(CallId(0), world.now);
    world.settle();
    let expected: Vec<_> = include_str!("login.txt").lines().collect();
    assert_eq!(world.did, expected);
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_comes_in_after_it() {
    let mut world = World::new(settings());
    world.password = "wrong horse";
    world.lose_failure = true;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.position("login failed alice Some(691)");
    world.position("CHAP Failure");
    // RFC 2759 says nothing of it, but a client that is cut off at once shows "hung up" in place of "wrong password".
    world.pass(Duration::from_millis(500));
    assert!(!world.did.iter().any(|did| did == "LCP Terminate-Request"));
    world.pass(Duration::from_millis(700));
    world.position("LCP Terminate-Request");
    world.pass(Duration::from_secs(8));
    assert_eq!(world.end().cause, Cause::AuthenticationFailed);
    assert_eq!(world.end().user, None);
    assert_eq!(world.end().address, None);
    world.position("tcp Call-Disconnect-Notify");

    world.password = PASSWORD;
    world.links.clear();
    world.caller.call(CallId(1), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
}

#[test]
fn a_call_without_any_gre_says_so() {
    let mut world = World::new(settings());
    world.gre = false;
    world.caller.call(CallId(0), world.now);
    world.pass(settings().setup_time);
    assert_eq!(world.end().cause, Cause::NoGre);
    assert!(world.end().cause.text().contains("GRE"));
    world.position("tcp Call-Disconnect-Notify");
}

#[test]
fn a_client_that_refuses_encryption_does_not_come_in() {
    let mut world = World::new(settings());
    world.mppe = Policy::Deny;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.end().cause, Cause::EncryptionRefused);
    assert!(!world.did.iter().any(|did| did.starts_with("forward")));
}

#[test]
fn a_client_with_other_encryption_hears_which_error() {
    let weak = Allowed {
        strengths: Strengths::NONE.with(Strength::Bits40),
        ..Allowed::default()
    };
    // Where the server could do without, it is the client that ends the call, and says why.
    for (policy, cause) in [
        (Policy::Require, Cause::EncryptionStrength),
        (Policy::Prefer, Cause::EncryptionMismatch),
        (Policy::Allow, Cause::EncryptionMismatch),
        (Policy::Deny, Cause::EncryptionDenied),
    ] {
        let mut world = World::new(Settings {
            mppe: policy,
            ..settings()
        });
        world.mppe_allowed = weak;
        world.caller.call(CallId(0), world.now);
        world.pass(Duration::from_secs(31));
        assert_eq!(world.end().cause, cause, "{policy:?}");
        assert!(!world.did.iter().any(|did| did.starts_with("forward")));
    }
}

/// pppd says why in its Terminate-Request, and closes the control connection before the second is over in which PPP waits.
#[test]
fn a_farewell_explains_the_hang_up_that_follows() {
    let text = b"MPPE required but peer negotiation failed";
    let mut frame = vec![0xff, 0x03, 0xc0, 0x21, 5, 2, 0, text.len() as u8 + 4];
    frame.extend(text);
    for (text, cause) in [(true, Cause::EncryptionMismatch), (false, Cause::HungUp)] {
        let mut world = World::new(settings());
        world.gre = false;
        world.caller.call(CallId(0), world.now);
        world.settle();
        if text {
            let call = world.call(world.ids[0].1.0);
            let frame = FrameBytes::new(&frame).unwrap();
            world.tunnel.event(Event::Frame { call, frame }, world.now);
        }
        world.caller.clear(CallId(0), world.now);
        world.settle();
        assert_eq!(world.end().cause, cause);
    }
}

#[test]
fn farewells_about_encryption_are_known() {
    for (text, known) in [
        ("Windows error 742", true),
        ("Windows error 741", true),
        ("MPPE required but peer negotiation failed", true),
        ("Windows error 619", false),
        ("User request", false),
        ("", false),
    ] {
        assert_eq!(call::is_about_encryption(text), known, "{text}");
    }
}

#[test]
fn without_encryption_no_keys_are_loaded() {
    let mut world = World::new(Settings {
        mppe: Policy::Deny,
        ..settings()
    });
    world.mppe = Policy::Deny;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
    assert!(!world.did.iter().any(|did| did.starts_with("secure")));
}

#[test]
fn a_client_may_ask_for_another_address() {
    let mut world = World::new(settings());
    world.address = CHOSEN;
    world.caller.call(CallId(0), world.now);
    world.settle();
    let asked = world.position("choose 10.20.0.77 for 10.20.0.9");
    assert!(asked < world.position("up alice 10.20.0.77 1400"));
    let snapshot = world.tunnel.snapshots().next().unwrap();
    assert_eq!(snapshot.address, Some(CHOSEN));
    let call = snapshot.call;
    world.tunnel.kill(call, Cause::Killed, world.now);
    world.pass(Duration::from_secs(31));
    // What goes back is what it has, not what it was granted first.
    assert_eq!(world.end().address, Some(CHOSEN));

    let mut world = World::new(settings());
    world.address = Ipv4Addr::new(10, 20, 0, 78);
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.position("choose 10.20.0.78 for 10.20.0.9");
    world.position("up alice 10.20.0.9 1400");
    let snapshot = world.tunnel.snapshots().next().unwrap();
    assert_eq!(snapshot.address, Some(ADDRESS));
}

#[test]
fn a_refused_call_holds_nothing() {
    let mut world = World::new(settings());
    world.no_place = Some(Cause::TooManyCalls);
    world.caller.call(CallId(0), world.now);
    world.settle();
    assert_eq!(
        world.did,
        [
            "tcp Start-Control-Connection-Reply",
            "started",
            "place",
            "refused too_many_calls",
            "tcp Outgoing-Call-Reply",
        ]
    );
    assert_eq!(world.tunnel.snapshots().count(), 0);
    // There may be room a moment later.
    world.no_place = None;
    world.caller.call(CallId(1), world.now);
    world.settle();
    world.position("up alice 10.20.0.9 1400");
}

#[test]
fn calls_of_one_connection_live_apart() {
    let mut world = World::up(3);
    let second = world.call(101);
    world.tunnel.kill(second, Cause::Killed, world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.end().call, second);
    assert_eq!(world.tunnel.snapshots().count(), 2);
    assert!(world.tunnel.snapshots().all(|call| call.stage == Stage::Up));
    world.tcp = false;
    world.tunnel.hung_up(world.now);
    world.settle();
    let mut causes: Vec<_> = world.ended.iter().map(|ended| ended.cause).collect();
    assert_eq!(
        causes.split_off(1),
        [Cause::ConnectionLost, Cause::ConnectionLost]
    );
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_place_that_comes_too_late_goes_back() {
    let mut world = World::new(settings());
    world.caller.call(CallId(5), world.now);
    // Up to the request for a place, which is not answered yet.
    let mut asked = false;
    while !asked {
        while let Some(action) = world.caller.poll() {
            if let CallerAction::Send(octets) = action {
                world.tunnel.receive(&octets, world.now);
            }
        }
        while let Some(action) = world.tunnel.poll() {
            match action {
                Action::Place { peer_id } => asked = peer_id == CallId(5),
                other => world.carry_out(other),
            }
        }
    }
    world.tunnel.hung_up(world.now);
    let placement = Placement {
        call: world.call(7),
        via: VIA,
        seed: [0; 32],
    };
    world.tunnel.placed(CallId(5), Ok(placement), world.now);
    world.tcp = false;
    world.settle();
    assert_eq!(world.end().call.id, CallId(7));
    assert!(!world.did.iter().any(|did| did.starts_with("open")));
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_new_way_to_the_client_is_taken_once() {
    let mut world = World::up(2);
    let [first, second] = [0, 1].map(|n: usize| world.call(world.ids[n].1.0));
    for call in [first, second] {
        world.tunnel.reroute(call, VIA);
    }
    world.settle();
    assert!(world.did.is_empty());
    for call in [first, second, first] {
        world.tunnel.reroute(call, PEER);
    }
    world.settle();
    assert_eq!(world.did, ["via 10.7.0.2", "via 10.7.0.2"]);
}

#[test]
fn gre_that_comes_from_elsewhere_asks_for_a_way_there() {
    let mut world = World::up(2);
    let source = Ipv4Addr::new(203, 0, 113, 9);
    let second = world.call(world.ids[1].1.0);
    let event = |call| Event::Bound { call, source };
    world.tunnel.event(event(second), world.now);
    // A call that is none of its own.
    world.tunnel.event(event(world.call(9999)), world.now);
    world.settle();
    assert_eq!(world.did, [format!("bound {} 203.0.113.9", second.id)]);
    world.did.clear();
    world.tunnel.reroute(second, PEER);
    world.settle();
    assert_eq!(world.did, ["via 10.7.0.2"]);
    // Nothing is looked for when the call is over.
    world.did.clear();
    world.tunnel.hung_up(world.now);
    world.tunnel.event(event(second), world.now);
    world.settle();
    assert!(!world.did.iter().any(|did| did.starts_with("bound")));
}

#[test]
fn probes_hold_nothing_longer_than_the_set_up_time() {
    for octets in [&b""[..], &[0, 156, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1]] {
        let mut tunnel = Tunnel::new(settings(), LOCAL, PEER, Time::ZERO);
        tunnel.receive(octets, Time::ZERO);
        assert!(tunnel.poll().is_none());
        let deadline = tunnel.deadline().unwrap();
        assert!(deadline <= Time::ZERO + settings().setup_time);
        tunnel.handle_timeout(deadline);
        assert!(matches!(
            tunnel.poll(),
            Some(Action::Notice(Notice::Over(_)))
        ));
        assert!(matches!(tunnel.poll(), Some(Action::Close)));
        assert!(tunnel.is_finished());
    }
    let mut tunnel = Tunnel::new(settings(), LOCAL, PEER, Time::ZERO);
    tunnel.receive(&[0xff; 64], Time::ZERO);
    assert!(matches!(
        tunnel.poll(),
        Some(Action::Notice(Notice::Over(Cause::ControlMisbehaved)))
    ));
    assert!(matches!(tunnel.poll(), Some(Action::Close)));
    assert!(tunnel.is_finished());
}

#[test]
fn a_client_without_room_is_told_so() {
    let mut world = World::new(settings());
    world.tunnel = Tunnel::refusing(settings(), LOCAL, PEER, world.now);
    world.caller.call(CallId(0), world.now);
    world.settle();
    assert_eq!(
        world.did,
        [
            "tcp Start-Control-Connection-Reply",
            "over too_many_connections",
            "close tcp"
        ]
    );
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_client_that_listens_a_moment_late_misses_nothing() {
    let mut world = World::new(settings());
    // GRE of the first 50 ms is lost both ways.
    world.gre = false;
    world.caller.call(CallId(0), world.now);
    world.pass(Duration::from_millis(50));
    world.gre = true;
    world.pass(Duration::from_millis(60));
    let requests = |world: &World| {
        let did = world.did.iter();
        did.filter(|did| *did == "LCP Configure-Request").count()
    };
    assert_eq!(requests(&world), 1, "{:#?}", world.did);
    world.pass(Duration::from_secs(5));
    world.position("up alice 10.20.0.9 1400");
    assert_eq!(requests(&world), 1, "ours was not lost");
}
