//! The server as clients meet it, over loopback TCP and a worker over memory.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use std::net::Ipv4Addr;
use std::time::Duration;

use rig::{LOCAL, PASSWORD, PATIENCE, Rig, Saw, UNAUTHENTICATED};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use turnpike_controlplane::aaa::{Account, Secret, Users};
use turnpike_controlplane::admin::Selector;
use turnpike_controlplane::admission::Admission;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::listener::Limits;
use turnpike_controlplane::rivals::SameUser;
use turnpike_dataplane::api::CallRef;
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::rings::RingSizes;
use turnpike_protocol::CallId;
use turnpike_protocol::pptp::{
    CallResult, GeneralError, Message, OutgoingCallReply, OutgoingCallRequest, Text,
};

const ALICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const LIMITS: Limits = Limits {
    per_source: 64,
    total: 1000,
};

const SETUP: Duration = Duration::from_secs(30);

fn is_up(saw: &Saw) -> bool {
    matches!(saw, Saw::Up(_))
}

fn start_request() -> Vec<u8> {
    Message::StartRequest(turnpike_protocol::pptp::StartRequest {
        version: 0x0100,
        framing: 3,
        bearer: 3,
        max_channels: 0,
        firmware: 0,
        host_name: Text::EMPTY,
        vendor: Text::EMPTY,
    })
    .emit()
}

#[tokio::test]
async fn a_call_comes_up_and_leaves_nothing_behind() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut client = rig.dial(ALICE, 0, PASSWORD).await;
    let saw = client.until(is_up).await;
    assert_eq!(saw, Saw::Up(Ipv4Addr::new(10, 20, 1, 1)));
    rig.until("published", |rig| {
        let all = rig.shared.sessions.all();
        all.len() == 1 && all[0].snapshot.user.as_deref() == Some("alice")
    })
    .await;
    let entry = rig.shared.sessions.all().remove(0);
    let counters = rig.shared.switchboard.query(entry.snapshot.call).await;
    assert!(counters.unwrap().gre_received > 5);
    client.clear();
    client.until(|saw| *saw == Saw::Disconnected).await;
    drop(client);
    rig.until("empty", Rig::is_empty).await;
    assert_eq!(rig.shared.counts.by_name()["ended_hung_up"], 1);
    assert_eq!(
        rig.shared.switchboard.query(entry.snapshot.call).await,
        None
    );
}

#[tokio::test]
async fn rings_with_room_for_one_command_lose_nothing() {
    let sizes = RingSizes {
        commands: 1,
        ..RingSizes::default()
    };
    let rig = Rig::with_rings(LIMITS, 50, SETUP, sizes).await;
    let mut clients = Vec::new();
    for id in 0..20 {
        clients.push(rig.dial(ALICE, id, PASSWORD).await);
    }
    let up = clients.into_iter().map(|mut client| async move {
        client.until(is_up).await;
        client
    });
    let clients = futures_util::future::join_all(up).await;
    assert_eq!(rig.shared.sessions.len(), 20);
    drop(clients);
    rig.until("empty", Rig::is_empty).await;
    assert_eq!(rig.shared.counts.by_name()["ended_connection_lost"], 20);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_next_call_works() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut client = rig.dial(ALICE, 7, "wrong horse").await;
    let saw = client.until(|saw| matches!(saw, Saw::LinkOver(_))).await;
    assert!(
        matches!(
            &saw,
            Saw::LinkOver(turnpike_protocol::ppp::End::AuthenticationFailed { code: 691, .. })
        ),
        "{saw:?}"
    );
    client.until(|saw| *saw == Saw::Disconnected).await;
    drop(client);
    let mut client = rig.dial(ALICE, 8, PASSWORD).await;
    client.until(is_up).await;
    let counts = rig.shared.counts.by_name();
    assert_eq!(counts["logins_failed"], 1);
    assert_eq!(counts["ended_authentication_failed"], 1);
    assert_eq!(counts["calls_up"], 1);
}

#[tokio::test]
async fn five_hundred_probes_keep_nobody_out_and_hold_nothing() {
    let setup = Duration::from_secs(3);
    let rig = Rig::start(LIMITS, 10, setup).await;
    let mut probes = Vec::new();
    for n in 0..500 {
        let mut probe = rig.connect(ALICE).await;
        let octets: &[u8] = match n % 3 {
            0 => b"",
            1 => &start_request()[..70],
            _ => b"GET / HTTP/1.0\r\n\r\n",
        };
        // The server may have closed it already to make room.
        let _ = probe.write_all(octets).await;
        probes.push(probe);
    }
    // Behind the same address, and from another one.
    for source in [ALICE, BOB] {
        let start = Instant::now();
        let mut client = rig.dial(source, 1, PASSWORD).await;
        client.until(is_up).await;
        assert!(start.elapsed() < Duration::from_secs(20));
        client.clear();
        client.until(|saw| *saw == Saw::Disconnected).await;
    }
    assert!(rig.connections.len() <= LIMITS.per_source + 2);
    let deadline = Instant::now() + setup + Duration::from_secs(10);
    rig.until("the probes are gone", |rig| {
        assert!(Instant::now() < deadline, "probes hold on");
        rig.is_empty()
    })
    .await;
    for mut probe in probes {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, probe.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(rest.is_empty(), "a probe got an answer");
    }
}

#[tokio::test]
async fn whoever_has_spoken_is_not_displaced_but_newcomers_are_told() {
    let limits = Limits {
        per_source: 2,
        total: 3,
    };
    let rig = Rig::start(limits, 10, SETUP).await;
    let mut first = rig.dial(ALICE, 1, PASSWORD).await;
    first.until(is_up).await;
    let mut second = rig.dial(ALICE, 2, PASSWORD).await;
    second.until(is_up).await;
    // One more from the same address; then one more on the whole box.
    for source in [ALICE, BOB, Ipv4Addr::new(127, 0, 0, 4)] {
        let mut third = rig.dial(source, 3, PASSWORD).await;
        if source == BOB {
            third.until(is_up).await;
            std::mem::forget(third);
            continue;
        }
        let saw = third.until(|saw| matches!(saw, Saw::Finished(_))).await;
        let text = format!("{saw:?}");
        assert!(text.contains("RefusedByPeer"), "{text}");
    }
    assert_eq!(rig.shared.sessions.len(), 3);
}

#[tokio::test]
async fn no_more_calls_than_allowed() {
    let rig = Rig::start(LIMITS, 1, SETUP).await;
    let mut first = rig.dial(ALICE, 1, PASSWORD).await;
    first.until(is_up).await;
    let mut second = rig.dial(BOB, 2, PASSWORD).await;
    second.until(|saw| *saw == Saw::Refused).await;
    first.clear();
    first.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("room", |rig| rig.shared.sessions.is_empty())
        .await;
    let mut third = rig.dial(BOB, 3, PASSWORD).await;
    third.until(is_up).await;
}

#[tokio::test]
async fn an_operator_ends_the_calls_he_names() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut first = rig.dial(ALICE, 1, PASSWORD).await;
    first.until(is_up).await;
    let mut second = rig.dial(BOB, 2, PASSWORD).await;
    second.until(is_up).await;
    rig.until("published", |rig| rig.shared.sessions.len() == 2)
        .await;
    let killed = rig
        .shared
        .sessions
        .kill(&Selector::Client(BOB), Cause::Killed)
        .unwrap();
    assert_eq!(killed.len(), 1);
    assert_eq!(killed[0].client, BOB);
    second.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("one left", |rig| rig.shared.sessions.len() == 1)
        .await;
    assert_eq!(rig.shared.sessions.all()[0].snapshot.call.peer, ALICE);
    assert_eq!(rig.shared.counts.by_name()["ended_killed"], 1);
}

#[tokio::test]
async fn everybody_is_told_when_the_server_stops() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut clients = Vec::new();
    for id in 0..5 {
        let mut client = rig.dial(ALICE, id, PASSWORD).await;
        client.until(is_up).await;
        clients.push(client);
    }
    let idle = rig.connect(BOB).await;
    rig.stopping.send_replace(true);
    for mut client in clients {
        client.until(|saw| *saw == Saw::Disconnected).await;
        client.until(|saw| matches!(saw, Saw::Finished(_))).await;
    }
    rig.until("empty", Rig::is_empty).await;
    drop(idle);
    assert_eq!(rig.shared.counts.by_name()["ended_server_stopping"], 5);
}

fn call_request(id: u16) -> Vec<u8> {
    Message::OutgoingCallRequest(OutgoingCallRequest {
        call_id: CallId(id),
        serial: id,
        min_bps: 0,
        max_bps: 10_000_000,
        bearer: 3,
        framing: 3,
        window: 64,
        delay: 0,
        phone: Text::EMPTY,
        subaddress: Text::EMPTY,
    })
    .emit()
}

/// The next Outgoing-Call-Reply; what comes before it is skipped.
async fn call_reply(tcp: &mut TcpStream) -> OutgoingCallReply {
    loop {
        let mut octets = vec![0; 2];
        timeout(PATIENCE, tcp.read_exact(&mut octets))
            .await
            .unwrap()
            .unwrap();
        let len = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
        octets.resize(len, 0);
        tcp.read_exact(&mut octets[2..]).await.unwrap();
        if let Message::OutgoingCallReply(reply) = Message::parse(&octets).unwrap() {
            return reply;
        }
    }
}

/// One connection may have eight calls in the rig: strangers open several and never say a word of PPP.
#[tokio::test]
async fn calls_that_have_not_logged_in_are_limited_by_source() {
    let rig = Rig::start(LIMITS, 200, SETUP).await;
    // A user, who does not count once logged in.
    let mut user = rig.dial(ALICE, 1, PASSWORD).await;
    user.until(is_up).await;
    assert!(rig.shared.applicants.is_empty());

    let mut strangers = Vec::new();
    let mut accepted = 0;
    let mut refused = 0;
    for _ in 0..4 {
        let mut tcp = rig.connect(ALICE).await;
        tcp.write_all(&start_request()).await.unwrap();
        for id in 0..8 {
            tcp.write_all(&call_request(id)).await.unwrap();
            let reply = call_reply(&mut tcp).await;
            if reply.result == CallResult::CONNECTED {
                accepted += 1;
                continue;
            }
            refused += 1;
            // RFC 2637 §2.8: a general error, and which: insufficient resources.
            assert_eq!(reply.result, CallResult::GENERAL_ERROR);
            assert_eq!(reply.error, GeneralError::NO_RESOURCE);
            assert_eq!(reply.peer_call_id, CallId(id));
        }
        strangers.push(tcp);
    }
    assert_eq!((accepted, refused), (UNAUTHENTICATED, 32 - UNAUTHENTICATED));
    assert_eq!(rig.shared.counts.by_name()["calls_refused"], 12);
    // Others are not concerned.
    let mut other = rig.dial(BOB, 2, PASSWORD).await;
    other.until(is_up).await;
    // The places come back with the calls' ends.
    drop(strangers);
    rig.until("room", |rig| rig.shared.applicants.is_empty())
        .await;
    let mut again = rig.dial(ALICE, 3, PASSWORD).await;
    again.until(is_up).await;
    drop((user, other, again));
    rig.until("empty", Rig::is_empty).await;
}

/// So many calls are set up at once, and others wait for so long.
async fn admitting(limit: usize, wait: Duration) -> Rig {
    let mut users = Users::default();
    users.add(Account::new("alice", Secret::new(PASSWORD).unwrap()));
    let admission = Admission::new(limit, wait);
    let (sizes, rule) = (RingSizes::default(), SameUser::Allow);
    Rig::admitting(LIMITS, 100, SETUP, sizes, users.into(), rule, admission).await
}

#[tokio::test]
async fn a_storm_is_told_so_and_who_is_up_gives_the_place_to_others() {
    let rig = admitting(2, Duration::ZERO).await;
    // Who is up holds no place: one after the other comes in.
    let mut up = Vec::new();
    for id in 0..4 {
        let mut client = rig.dial(ALICE, id, PASSWORD).await;
        client.until(is_up).await;
        rig.until("a place", |rig| rig.shared.admission.is_empty())
            .await;
        up.push(client);
    }
    let mut stranger = rig.connect(BOB).await;
    stranger.write_all(&start_request()).await.unwrap();
    for (id, result) in [
        (0, CallResult::CONNECTED),
        (1, CallResult::CONNECTED),
        (2, CallResult::GENERAL_ERROR),
    ] {
        stranger.write_all(&call_request(id)).await.unwrap();
        let reply = call_reply(&mut stranger).await;
        assert_eq!((reply.peer_call_id, reply.result), (CallId(id), result));
        if result == CallResult::GENERAL_ERROR {
            // RFC 2637 §2.8: insufficient resources.
            assert_eq!(reply.error, GeneralError::NO_RESOURCE);
        }
    }
    let mut client = rig.dial(ALICE, 9, PASSWORD).await;
    client.until(|saw| *saw == Saw::Refused).await;
    let counts = rig.shared.counts.by_name();
    assert_eq!(counts["refused_too_many_setting_up"], 2);
    assert_eq!(rig.shared.sessions.len(), 6);
    drop(stranger);
    rig.until("a place", |rig| rig.shared.admission.is_empty())
        .await;
    let mut again = rig.dial(ALICE, 10, PASSWORD).await;
    again.until(is_up).await;
    drop((up, client, again));
    rig.until("empty", Rig::is_empty).await;
}

#[tokio::test]
async fn who_may_wait_comes_in_when_it_is_his_turn() {
    let rig = admitting(1, PATIENCE).await;
    let mut stranger = rig.connect(BOB).await;
    stranger.write_all(&start_request()).await.unwrap();
    stranger.write_all(&call_request(0)).await.unwrap();
    call_reply(&mut stranger).await;
    // Two in one connection, one of which thinks better of it, and one in another.
    let mut other = rig.connect(BOB).await;
    let clear = Message::CallClearRequest { call_id: CallId(5) };
    let requests = [start_request(), call_request(5), call_request(6)].concat();
    other.write_all(&requests).await.unwrap();
    let waiting = |n| move |rig: &Rig| rig.shared.counts.by_name()["calls_waited"] == n;
    rig.until("two in the queue", waiting(2)).await;
    other.write_all(&clear.emit()).await.unwrap();
    let mut client = rig.dial(ALICE, 7, PASSWORD).await;
    let turns = async {
        rig.until("three in the queue", waiting(3)).await;
        drop(stranger);
        let reply = call_reply(&mut other).await;
        assert_eq!(
            (reply.peer_call_id, reply.result),
            (CallId(6), CallResult::CONNECTED)
        );
        drop(other);
    };
    tokio::join!(turns, client.until(is_up));
    assert_eq!(rig.shared.counts.by_name()["calls_refused"], 0);
    drop(client);
    rig.until("empty", Rig::is_empty).await;
}

/// A place is for work, which a client that says nothing makes none of.
#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let rig = admitting(1, PATIENCE).await;
    let mut stranger = rig.connect(BOB).await;
    stranger.write_all(&start_request()).await.unwrap();
    stranger.write_all(&call_request(0)).await.unwrap();
    call_reply(&mut stranger).await;
    let mut client = rig.dial(ALICE, 7, PASSWORD).await;
    client.until(is_up).await;
    assert_eq!(rig.shared.counts.by_name()["calls_waited"], 1);
    assert_eq!(rig.shared.sessions.len(), 2, "the stranger's call as well");
}

#[tokio::test]
async fn a_wrong_password_gives_its_place_back() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut client = rig.dial(ALICE, 7, "wrong horse").await;
    client.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("room", |rig| rig.shared.applicants.is_empty())
        .await;
}

/// A call that is cleared before it has a place is opened nowhere: were its inbox registered all the same, nothing
/// would ever take that away.
#[tokio::test]
async fn a_call_that_is_withdrawn_leaves_no_inbox() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut tcp = rig.connect(ALICE).await;
    // In one piece, so that the request is taken back before anybody looks for a place.
    let clear = Message::CallClearRequest { call_id: CallId(5) };
    let octets = [start_request(), call_request(5), clear.emit()].concat();
    tcp.write_all(&octets).await.unwrap();
    rig.until("withdrawn", |rig| {
        rig.shared.counts.by_name().get("ended_hung_up") == Some(&1)
    })
    .await;
    // The first id that the rig deals. The switchboard asks the worker only about calls that have an inbox.
    let call = CallRef {
        local: LOCAL,
        peer: ALICE,
        id: CallId(100),
    };
    assert_eq!(rig.shared.switchboard.query(call).await, None);
    // The id and the place are free again, and the connection serves.
    assert!(rig.shared.calls.lock().unwrap().is_empty());
    assert!(rig.shared.applicants.is_empty());
    tcp.write_all(&call_request(6)).await.unwrap();
    let reply = call_reply(&mut tcp).await;
    assert_eq!(
        (reply.result, reply.call_id),
        (CallResult::CONNECTED, CallId(101))
    );
    let call = CallRef {
        id: CallId(101),
        ..call
    };
    assert!(rig.shared.switchboard.query(call).await.is_some());
}

#[tokio::test]
async fn echoes_of_a_call_that_is_up_are_answered_by_its_worker() {
    let rig = Rig::start(LIMITS, 10, SETUP).await;
    let mut client = rig.dial(ALICE, 0, PASSWORD).await;
    client.until(is_up).await;
    let total = |rig: &Rig, total| rig.shared.switchboard.counters()[0].total(total);
    let before = total(&rig, Total::FramesReceived);
    client.ask();
    let answered = rig.until("an answer", |rig| total(rig, Total::EchoesAnswered) == 1);
    tokio::select! {
        () = answered => {}
        saw = client.next() => panic!("{saw:?}"),
    }
    assert_eq!(total(&rig, Total::FramesReceived), before);
    client.clear();
    client.until(|saw| *saw == Saw::Disconnected).await;
}
