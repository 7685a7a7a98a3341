//! Every client of `peers/` with every way to log in and every kind of encryption, and the table in the README that says
//! what came of it. With `TURNPIKE_WRITE_TABLE` set the table is written, not compared (`cargo xtask table` does that).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they covered"
)]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_tests::peers::table::{self, Cell};
use turnpike_tests::peers::{End, Lost, Method, Mppe, Obstacle, Profile, Wish, play, play_with};

/// 128 bits, a key for each packet: what nearly all calls use.
const USUAL: Wish = Wish {
    method: Method::MsChapV2,
    mppe: Mppe::keys(128, true),
};

/// Does something for each client, on as many threads.
fn for_each<T: Send>(what: impl Fn(&Profile) -> T + Sync) -> Vec<T> {
    let profiles = Profile::all();
    thread::scope(|scope| {
        let threads: Vec<_> = profiles
            .iter()
            .map(|profile| scope.spawn(|| what(profile)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// What becomes of a call that cannot be had: the client is not let in, under the right name, and never in clear.
fn hold(profile: &Profile, wish: Wish, obstacle: Option<Obstacle>) -> Result<(), String> {
    let refused = |cause| {
        let end = play(profile, wish, Lost::Nothing)?;
        if end == End::Refused(cause) {
            Ok(())
        } else {
            Err(format!("{}, {wish:?}: {end:?}", profile.name))
        }
    };
    let good = |end| match end {
        // Nothing of this waits for a timer.
        End::Good { took, .. } if took < Duration::from_secs(1) => Ok(()),
        end => Err(format!("{}, {wish:?}: {end:?}", profile.name)),
    };
    match (obstacle, wish.mppe) {
        (None, _) => good(play(profile, wish, Lost::Nothing)?),
        (Some(Obstacle::NoKeys), _) => refused(Cause::AuthenticationRefused),
        (Some(Obstacle::Strength), _) => refused(Cause::EncryptionStrength),
        // Asked for keys that last, it insists on a key for each packet, and has it.
        (Some(Obstacle::Stateful), Mppe::Keys { bits, .. }) => {
            let own = Wish {
                mppe: Mppe::keys(bits, true),
                ..wish
            };
            good(play_with(wish.settings(), profile, own, Lost::Nothing)?)
        }
        // Nobody can choose what is not there.
        (Some(_), _) => Ok(()),
    }
}

#[test]
fn every_client_gets_in_by_every_way_it_has() {
    let cells = for_each(|profile| {
        let mut cells = Vec::new();
        let mut failures = Vec::new();
        for method in Method::ALL {
            for mppe in Mppe::ALL {
                let wish = Wish { method, mppe };
                let obstacle = wish.obstacle(profile);
                failures.extend(hold(profile, wish, obstacle).err());
                cells.push(Cell {
                    client: profile.name.clone(),
                    method,
                    mppe,
                    obstacle,
                });
            }
        }
        (cells, failures)
    });
    let failures: Vec<String> = cells.iter().flat_map(|(_, f)| f.clone()).collect();
    let cells: Vec<Cell> = cells.into_iter().flat_map(|(cells, _)| cells).collect();
    assert!(
        failures.is_empty(),
        "{} calls failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let good = cells.iter().filter(|cell| cell.obstacle.is_none()).count();
    println!("{good} of {} cells are calls", cells.len());
    let block = table::render(&cells);
    if std::env::var_os("TURNPIKE_WRITE_TABLE").is_some() {
        table::write(&block).unwrap();
    }
    table::check(&block).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_one_lost_packet_is_made_up_for() {
    let played = for_each(|profile| {
        let mut failures = Vec::new();
        let mut slowest = Duration::ZERO;
        for n in 0..24 {
            for lost in [Lost::Up(n), Lost::Down(n)] {
                match play(profile, USUAL, lost) {
                    Ok(End::Good { took, .. }) => slowest = slowest.max(took),
                    Ok(end) => failures.push(format!("{}, {lost:?}: {end:?}", profile.name)),
                    Err(error) => failures.push(error),
                }
            }
        }
        (profile.name.clone(), slowest, failures)
    });
    let mut failed = Vec::new();
    for (name, slowest, failures) in played {
        println!("{name:<16} up after {slowest:?} at most");
        failed.extend(failures);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_a_client_cannot_have_it_is_told_once() {
    let rejected: Vec<(String, BTreeSet<u16>)> = for_each(|profile| {
        match play(profile, USUAL, Lost::Nothing).unwrap_or_else(|error| panic!("{error}")) {
            End::Good { rejected, .. } => {
                let once: BTreeSet<u16> = rejected.iter().copied().collect();
                assert_eq!(once.len(), rejected.len(), "{}", profile.name);
                (profile.name.clone(), once)
            }
            end => panic!("{}: {end:?}", profile.name),
        }
    });
    for (name, protocols) in rejected {
        // Apple's own protocol.
        assert_eq!(protocols.contains(&0x8235), name == "macOS", "{name}");
    }
}
