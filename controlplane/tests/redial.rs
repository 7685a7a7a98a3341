//! A user who logs in again while an older call of his is still there, as after a crash of his machine.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use std::net::Ipv4Addr;
use std::time::Duration;

use rig::{Client, PASSWORD, Rig, Saw};
use tokio::time::Instant;
use turnpike_controlplane::aaa::{Account, Addresses, Secret, Users};
use turnpike_controlplane::listener::Limits;
use turnpike_controlplane::pool::Range;
use turnpike_controlplane::rivals::SameUser;
use turnpike_dataplane::rings::RingSizes;

const HOME: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 7);

const LIMITS: Limits = Limits {
    per_source: 64,
    total: 1000,
};

const SETUP: Duration = Duration::from_secs(30);

async fn rig(rule: SameUser, addresses: Addresses) -> Rig {
    let mut users = Users::default();
    let secret = Secret::new(PASSWORD).unwrap();
    users.add(Account {
        addresses,
        ..Account::new("alice", secret)
    });
    let sizes = RingSizes::default();
    Rig::with_rule(LIMITS, 10, SETUP, sizes, users.into(), rule).await
}

fn own() -> Addresses {
    Addresses::Fixed(vec![Range::single(OWN)])
}

async fn up(client: &mut Client) -> Ipv4Addr {
    let Saw::Up(address) = client.until(|saw| matches!(saw, Saw::Up(_))).await else {
        panic!("not up");
    };
    address
}

fn ended(rig: &Rig, cause: &str) -> u64 {
    rig.shared
        .counts
        .by_name()
        .get(cause)
        .copied()
        .unwrap_or_default()
}

#[tokio::test]
async fn a_user_takes_his_own_address_from_a_call_that_crashed() {
    let rig = rig(SameUser::Allow, own()).await;
    // Held, and never turned again: its machine says nothing more, not even that it is gone.
    let mut crashed = rig.dial(HOME, 0, PASSWORD).await;
    assert_eq!(up(&mut crashed).await, OWN);
    for id in 1..4 {
        let start = Instant::now();
        let mut client = rig.dial(HOME, id, PASSWORD).await;
        assert_eq!(up(&mut client).await, OWN);
        // Not by waiting for echoes, nor for anybody's farewell.
        assert!(start.elapsed() < Duration::from_secs(20));
        rig.until("the old call to be gone", |rig| {
            rig.shared.sessions.len() == 1
        })
        .await;
        assert_eq!(ended(&rig, "ended_replaced"), u64::from(id));
        std::mem::forget(std::mem::replace(&mut crashed, client));
    }
    crashed.clear();
    crashed.until(|saw| *saw == Saw::Disconnected).await;
    drop(crashed);
    rig.until("no call", |rig| rig.shared.sessions.is_empty())
        .await;
    assert_eq!(rig.shared.pools.in_use(), 0);
}

#[tokio::test]
async fn a_call_that_crashed_ends_soon_after_its_client_dials_again() {
    let rig = rig(SameUser::Allow, Addresses::Pool).await;
    // Held, and never turned again. The client gives its next call the same id.
    let mut crashed = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut crashed).await;
    let mut client = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut client).await;
    let start = Instant::now();
    let gone = async {
        rig.until("the old call to be gone", |rig| {
            rig.shared.sessions.len() == 1
        })
        .await;
    };
    tokio::select! {
        () = gone => {}
        saw = client.next() => panic!("{saw:?}"),
    }
    // Echoes would have taken a minute and a half.
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(ended(&rig, "ended_silent"), 1);
    drop(crashed);
    client.clear();
    client.until(|saw| *saw == Saw::Disconnected).await;
}

#[tokio::test]
async fn clients_of_one_address_and_with_one_id_do_not_end_each_other() {
    let rig = rig(SameUser::Allow, Addresses::Pool).await;
    let mut one = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut one).await;
    let mut two = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut two).await;
    // Longer than who is asked may take.
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(15)) => {}
        saw = one.next() => panic!("{saw:?}"),
        saw = two.next() => panic!("{saw:?}"),
    }
    assert_eq!(rig.shared.sessions.len(), 2);
}

#[tokio::test]
async fn calls_of_one_user_live_side_by_side_unless_the_rule_says_otherwise() {
    let rig = rig(SameUser::Allow, Addresses::Pool).await;
    let (mut one, mut two) = (
        rig.dial(HOME, 1, PASSWORD).await,
        rig.dial(ELSEWHERE, 1, PASSWORD).await,
    );
    assert_ne!(up(&mut one).await, up(&mut two).await);
    rig.until("both", |rig| rig.shared.sessions.len() == 2)
        .await;
}

#[tokio::test]
async fn the_newer_call_replaces_the_older_one_which_is_told() {
    let rig = rig(SameUser::Replace, Addresses::Pool).await;
    let mut old = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut old).await;
    let mut new = rig.dial(ELSEWHERE, 1, PASSWORD).await;
    up(&mut new).await;
    old.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("one call", |rig| rig.shared.sessions.len() == 1)
        .await;
    assert_eq!(ended(&rig, "ended_replaced"), 1);
    // A wrong password replaces nobody.
    let mut wrong = rig.dial(HOME, 2, "wrong horse").await;
    wrong.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("one call", |rig| rig.shared.sessions.len() == 1)
        .await;
    assert_eq!(ended(&rig, "ended_replaced"), 1);
}

#[tokio::test]
async fn the_newer_call_is_refused_until_the_older_one_is_over() {
    let rig = rig(SameUser::Refuse, Addresses::Pool).await;
    let mut old = rig.dial(HOME, 1, PASSWORD).await;
    up(&mut old).await;
    let mut new = rig.dial(ELSEWHERE, 1, PASSWORD).await;
    new.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("its cause", |rig| {
        ended(rig, "ended_already_logged_in") == 1
    })
    .await;
    old.clear();
    old.until(|saw| *saw == Saw::Disconnected).await;
    rig.until("no call", |rig| rig.shared.sessions.is_empty())
        .await;
    let mut again = rig.dial(ELSEWHERE, 2, PASSWORD).await;
    up(&mut again).await;
}
