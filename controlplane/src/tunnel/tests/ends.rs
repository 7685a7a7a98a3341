//! However a call ends, the books are closed once and in order.

use turnpike_protocol::pptp::StopReason;

use super::*;

/// Ends a call that is up in some way; whatever the way, the books are closed once and in order.
fn tear_down(how: impl FnOnce(&mut World)) -> World {
    let mut world = World::up(1);
    world.worker = false;
    how(&mut world);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.ended, [], "ended before the worker forgot the call");
    assert!(!world.tunnel.is_finished());
    let unroute = world.position("unroute 10.20.0.9/32");
    assert!(unroute < world.position("close"), "{:#?}", world.did);
    world.worker = true;
    world.settle();
    let ended = world.end();
    assert_eq!(ended.user.as_deref(), Some("alice"));
    assert_eq!(ended.address, Some(ADDRESS));
    assert_eq!(
        ended.counters.received_packets, 100,
        "the worker's last count"
    );
    assert!(ended.up.is_some());
    // Whatever comes late changes nothing.
    let (call, counters) = (ended.call, ended.counters);
    let now = world.now;
    world.tunnel.event(Event::Closed { call, counters }, now);
    world.tunnel.kill(call, Cause::Killed, now);
    world.tunnel.hung_up(now);
    world.tunnel.shut_down(Cause::ServerStopping, now);
    world.settle();
    assert_eq!(world.ended.len(), 1);
    assert_eq!(world.did.iter().filter(|did| *did == "close").count(), 1);
    assert!(world.tunnel.is_finished());
    assert_eq!(world.tunnel.deadline(), None);
    world
}

#[test]
fn the_client_clears_the_call() {
    let world = tear_down(|world| {
        world.caller.clear(CallId(0), world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
    world.position("tcp Call-Disconnect-Notify");
}

#[test]
fn the_client_ends_ppp() {
    let world = tear_down(|world| world.links[0].1.close(CloseReason::UserRequest, world.now));
    assert_eq!(world.end().cause, Cause::HungUp);
    assert!(world.position("LCP Terminate-Ack") < world.position("tcp Call-Disconnect-Notify"));
}

#[test]
fn the_client_ends_ppp_and_drops_tcp_at_once() {
    let world = tear_down(|world| {
        world.links[0].1.close(CloseReason::UserRequest, world.now);
        world.settle();
        world.tcp = false;
        world.tunnel.hung_up(world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
}

#[test]
fn the_client_stops_the_connection() {
    let world = tear_down(|world| {
        world.caller.stop(StopReason::NONE, world.now);
    });
    assert_eq!(world.end().cause, Cause::HungUp);
    world.position("tcp Stop-Control-Connection-Reply");
    world.position("close tcp");
}

#[test]
fn the_connection_breaks() {
    let world = tear_down(|world| {
        world.tcp = false;
        world.tunnel.hung_up(world.now);
    });
    assert_eq!(world.end().cause, Cause::ConnectionLost);
    assert!(!world.did.iter().any(|did| did.starts_with("tcp ")));
}

#[test]
fn the_client_breaks_the_protocol() {
    let world = tear_down(|world| world.tunnel.receive(b"GET / HTTP/1.0\r\n\r\n", world.now));
    assert_eq!(world.end().cause, Cause::ControlMisbehaved);
    world.position("close tcp");
}

#[test]
fn the_operator_kills_the_call() {
    let world = tear_down(|world| {
        let call = world.call(100);
        world.tunnel.kill(call, Cause::Killed, world.now);
    });
    assert_eq!(world.end().cause, Cause::Killed);
    assert!(world.position("LCP Terminate-Request") < world.position("tcp Call-Disconnect-Notify"));
}

#[test]
fn the_operator_kills_a_call_whose_client_is_gone() {
    let world = tear_down(|world| {
        world.gre = false;
        let call = world.call(100);
        world.tunnel.kill(call, Cause::Killed, world.now);
    });
    assert_eq!(world.end().cause, Cause::Killed);
}

#[test]
fn the_server_stops() {
    let world = tear_down(|world| {
        world.tunnel.shut_down(Cause::ServerStopping, world.now);
    });
    assert_eq!(world.end().cause, Cause::ServerStopping);
    let steps = [
        "LCP Terminate-Request",
        "unroute 10.20.0.9/32",
        "close",
        "tcp Call-Disconnect-Notify",
        "tcp Stop-Control-Connection-Request",
        "close tcp",
    ];
    let positions = steps.map(|step| world.position(step));
    assert!(positions.is_sorted(), "{:#?}", world.did);
}

#[test]
fn the_client_falls_silent() {
    let mut world = World::up(1);
    world.gre = false;
    world.pass(Duration::from_secs(300));
    assert_eq!(world.end().cause, Cause::Silent);
}

/// On a busy path echoes may be the first to be lost.
#[test]
fn data_is_a_sign_of_life() {
    let mut world = World::up(1);
    (world.gre, world.data) = (false, true);
    world.pass(Duration::from_secs(1000));
    assert!(world.ended.is_empty(), "{:#?}", world.did);
    world.data = false;
    world.pass(Duration::from_secs(300));
    assert_eq!(world.end().cause, Cause::Silent);
}

#[test]
fn who_is_doubted_may_answer_by_either_way() {
    for (tcp, gre, lives) in [
        (true, true, true),
        (true, false, true),
        // The usual echo on TCP still has its usual time.
        (false, true, true),
        (false, false, false),
    ] {
        let mut world = World::up(1);
        (world.tcp, world.gre) = (tcp, gre);
        // Many dial at once: while an answer is awaited, nothing more is asked.
        for _ in 0..10 {
            world.tunnel.doubt(world.now);
        }
        world.settle();
        let echoes = |world: &World| {
            let asked = world.did.iter().filter(|did| *did == "LCP Echo-Request");
            asked.count()
        };
        // GRE for the older call reaches a client that has crashed in its newer one, whose numbers are others: that is asked
        // only where TCP says nothing, and a client that has crashed answers there with a reset.
        assert_eq!(echoes(&world), 0);
        world.pass(Duration::from_secs(15));
        assert_eq!(echoes(&world), usize::from(!tcp));
        assert_eq!(
            world.ended.is_empty(),
            lives,
            "{tcp} {gre}: {:#?}",
            world.did
        );
    }
}

/// Frames for a call that its client has forgotten reach the call that it has begun since.
#[test]
fn a_call_whose_id_is_given_again_says_nothing_for_a_moment() {
    let mut world = World::up(1);
    let said = |world: &World, since: usize| {
        let frames = world.did[since..].iter();
        frames
            .filter(|did| did.starts_with("LCP") && did.ends_with("Request"))
            .count()
    };
    // From here on one is due every 30 seconds.
    let before = world.did.len();
    while said(&world, before) == 0 {
        world.pass(Duration::from_millis(100));
    }
    // Behind a carrier's address somebody dials every moment: that silences nobody for good.
    let before = world.did.len();
    world.pass(Duration::from_secs(2));
    for _ in 0..25 {
        world.pass(Duration::from_secs(1));
        world.tunnel.hush(world.now);
    }
    world.pass(Duration::from_secs(4));
    assert_eq!(said(&world, before), 1, "{:#?}", world.did);
    world.pass(Duration::from_secs(54));
    // And the one that is due in five seconds waits for ten.
    let before = world.did.len();
    world.tunnel.hush(world.now);
    world.pass(Duration::from_secs(9));
    assert_eq!(said(&world, before), 0, "{:#?}", world.did);
    world.pass(Duration::from_secs(3));
    assert_eq!(said(&world, before), 1, "{:#?}", world.did);
    assert!(world.ended.is_empty(), "{:#?}", world.did);
    world.pass(Duration::from_secs(60));
    // Its user has logged in by the newer call.
    world.tunnel.hush(world.now);
    let before = world.did.len();
    let call = world.call(world.ids[0].1.0);
    world.tunnel.replace(call, world.now);
    world.settle();
    assert_eq!(world.end().cause, Cause::Replaced);
    assert_eq!(said(&world, before), 0, "{:#?}", world.did);
    world.position("tcp Call-Disconnect-Notify");
}

#[test]
fn who_has_answered_may_be_doubted_again() {
    let mut world = World::up(1);
    world.tunnel.doubt(world.now);
    world.settle();
    world.pass(Duration::from_secs(2));
    (world.tcp, world.gre) = (false, false);
    world.tunnel.doubt(world.now);
    world.settle();
    // The usual echoes would take longer.
    world.pass(Duration::from_secs(15));
    assert_eq!(world.end().cause, Cause::Silent);
}

/// A client may negotiate LCP anew in mid-call. The login that follows gets an address of its own, so the first one's
/// goes back before: else each time would cost the pool one, and a user with a fixed address would be in his own way.
#[test]
fn a_login_that_is_made_anew_gives_its_address_back_first() {
    let mut world = World::up(1);
    let id = world.ids[0].1;
    let before = world.did.len();
    // A Configure-Request with the magic number alone.
    let request = [0xff, 0x03, 0xc0, 0x21, 1, 77, 0, 10, 5, 6, 1, 2, 3, 4];
    let frame = turnpike_dataplane::api::FrameBytes::new(&request).unwrap();
    let call = world.call(id.0);
    world.tunnel.event(Event::Frame { call, frame }, world.now);
    world.settle();
    world.pass(Duration::from_secs(10));
    let did = &world.did[before..];
    let at = |what: &str| {
        did.iter()
            .position(|did| did == what)
            .unwrap_or_else(|| panic!("no {what}: {did:#?}"))
    };
    assert!(at("unroute 10.20.0.9/32") < at("release 10.20.0.9"));
    assert!(at("cease") < at("release 10.20.0.9"));
    assert!(at("release 10.20.0.9") < at("authenticate"));
    assert!(at("authenticate") < at("begin alice 10.20.0.9"));
}

#[test]
fn a_connection_that_had_a_good_call_gets_a_new_limit_for_the_next() {
    let mut world = World::up(1);
    world.pass(Duration::from_secs(100));
    world.caller.clear(CallId(0), world.now);
    world.pass(Duration::from_secs(29));
    assert_eq!(world.end().cause, Cause::HungUp);
    assert!(world.tcp, "{:#?}", world.did);
    world.pass(Duration::from_secs(2));
    world.position("tcp Stop-Control-Connection-Request");
    world.position("over setup_timeout");
}

/// Whoever dials without GRE, again and again on one connection, is told why each time, and sent away in the end.
#[test]
fn a_connection_with_dead_calls_only_ends() {
    let mut world = World::new(settings());
    world.gre = false;
    for id in 0..3 {
        world.caller.call(CallId(id), world.now);
        world.pass(Duration::from_secs(14));
    }
    // The first has ended at its limit, the others have time left, and no further one comes in.
    assert_eq!(world.end().cause, Cause::NoGre);
    assert!(world.tcp);
    world.caller.call(CallId(3), world.now);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.ended.len(), 3);
    assert!(world.ended.iter().all(|ended| ended.cause == Cause::NoGre));
    world.position("over setup_timeout");
    assert!(world.tunnel.is_finished());
}

#[test]
fn a_client_with_other_keys_than_ours_is_told_so() {
    let world = tear_down(|world| {
        let call = world.call(world.ids[0].1.0);
        world.tunnel.event(Event::Garbled { call }, world.now);
    });
    assert_eq!(world.end().cause, Cause::Garbled);
    world.position("LCP Terminate-Request");
}
