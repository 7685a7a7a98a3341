use super::*;

fn range(text: &str) -> Range {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Range::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
}

const NOW: Time = Time::ZERO;

/// Pools by name, and which is asked after each.
fn pools(pools: &[(&str, &[&str], Option<usize>)], rest: Rest, reserved: &[&str]) -> Pools {
    let pools: Vec<_> = pools
        .iter()
        .map(|(name, ranges, next)| PoolConfig {
            name: (*name).into(),
            ranges: ranges.iter().map(|text| range(text)).collect(),
            next: *next,
        })
        .collect();
    Pools::new(
        &pools,
        rest,
        &[range("10.0.0.2-10.0.0.9")],
        reserved.iter().map(|text| range(text)),
    )
}

fn pool(ranges: &[&str], reserved: &[&str]) -> Pools {
    pools(&[(DEFAULT, ranges, None)], Rest::default(), reserved)
}

/// The next address, or why there is none, as text.
fn next(pool: &mut Pools) -> String {
    match pool.allocate("", &Addresses::Pool, NOW) {
        Ok(address) => address.to_string(),
        Err(cause) => cause.name().to_owned(),
    }
}

#[test]
fn prefixes_keep_their_own_addresses() {
    let hosts = |prefix: &str| Range::hosts(prefix.parse().unwrap()).to_string();
    assert_eq!(hosts("10.21.0.0/24"), "10.21.0.1-10.21.0.254");
    assert_eq!(hosts("10.21.0.0/30"), "10.21.0.1-10.21.0.2");
    assert_eq!(hosts("10.21.0.0/31"), "10.21.0.0-10.21.0.1");
    assert_eq!(hosts("10.21.0.0/32"), "10.21.0.0");
    assert_eq!(hosts("0.0.0.0/0"), "0.0.0.1-255.255.255.254");
    assert_eq!(
        Range::hosts("0.0.0.0/0".parse().unwrap()).size(),
        (1 << 32) - 2
    );
}

#[test]
fn a_chosen_address_is_in_use_and_comes_round_once() {
    let mut pool = pool(&["10.0.0.1-10.0.0.4"], &["10.0.0.3"]);
    let at = |text: &str| range(text).first();
    let exchange = |pool: &mut Pools, held: &str, asked: &str| {
        pool.exchange("", at(held), at(asked), &Addresses::Pool, NOW)
    };
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert!(
        !exchange(&mut pool, "10.0.0.1", "10.0.0.3"),
        "somebody's own"
    );
    assert!(
        !exchange(&mut pool, "10.0.0.1", "10.0.0.5"),
        "not of the pool"
    );
    assert!(
        !exchange(&mut pool, "10.0.0.1", "10.0.0.1"),
        "not to be chosen"
    );
    // One whose first turn is still to come.
    assert!(exchange(&mut pool, "10.0.0.1", "10.0.0.4"));
    assert!(!exchange(&mut pool, "10.0.0.2", "10.0.0.4"), "in use");
    assert_eq!(pool.in_use(), 1);
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "pool_exhausted");
    pool.release("", at("10.0.0.4"), NOW);
    assert_eq!(next(&mut pool), "10.0.0.4");
    // One that was given back.
    pool.release("", at("10.0.0.2"), NOW);
    assert!(exchange(&mut pool, "10.0.0.1", "10.0.0.2"));
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert_eq!(pool.in_use(), 3);
}

#[test]
fn users_choose_among_their_own_addresses() {
    let mut pool = pool(&["10.0.0.1-10.0.0.4"], &["10.9.0.1-10.9.0.3"]);
    let own = Addresses::Fixed(vec![range("10.9.0.1-10.9.0.3")]);
    let at = |text: &str| range(text).first();
    assert_eq!(pool.allocate("", &own, NOW), Ok(at("10.9.0.1")));
    assert!(!pool.exchange("", at("10.9.0.1"), at("10.0.0.1"), &own, NOW));
    assert!(pool.exchange("", at("10.9.0.1"), at("10.9.0.3"), &own, NOW));
    assert_eq!(pool.allocate("", &own, NOW), Ok(at("10.9.0.1")));
    assert!(!pool.exchange("", at("10.9.0.1"), at("10.9.0.3"), &own, NOW));
    assert!(!pool.exchange("", at("10.9.0.1"), at("10.9.0.2"), &Addresses::None, NOW));
}

#[test]
fn every_address_goes_out_once_and_rests_after_use() {
    let mut pool = pool(&["10.0.0.1-10.0.0.2", "10.0.1.5"], &[]);
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert!(pool.release("", range("10.0.0.1").first(), NOW));
    assert!(!pool.release("", range("10.0.0.1").first(), NOW), "twice");
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "10.0.1.5");
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert_eq!(pool.in_use(), 3);
    pool.release("", range("10.0.1.5").first(), NOW);
    pool.release("", range("10.0.0.2").first(), NOW);
    assert_eq!(next(&mut pool), "10.0.1.5");
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "pool_exhausted");
}

#[test]
fn what_belongs_to_somebody_is_given_to_nobody_else() {
    let mut pool = pool(
        &["10.0.0.1-10.0.0.9"],
        &[
            "10.0.0.1",
            "10.0.0.3-10.0.0.6",
            "10.0.0.5-10.0.0.8",
            "10.9.0.1",
        ],
    );
    let own = Addresses::Fixed(vec![range("10.0.0.1"), range("10.9.0.1")]);
    let first = pool.allocate("", &own, NOW).unwrap();
    assert_eq!(first.to_string(), "10.0.0.1");
    assert_eq!(
        pool.allocate("", &own, NOW).unwrap().to_string(),
        "10.9.0.1"
    );
    assert_eq!(pool.allocate("", &own, NOW), Err(Cause::AddressInUse));
    assert!(pool.release("", first, NOW));
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "10.0.0.9");
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert_eq!(pool.allocate("", &own, NOW), Ok(first));
    assert_eq!(
        pool.allocate("", &Addresses::None, NOW),
        Err(Cause::NotPermitted)
    );
}

#[test]
fn reservations_change_and_no_address_goes_out_twice() {
    let mut pool = pool(&["10.0.0.1-10.0.0.6"], &["10.0.0.2", "10.0.0.5"]);
    let own = |text| Addresses::Fixed(vec![range(text)]);
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "10.0.0.3");
    pool.release("", range("10.0.0.3").first(), NOW);
    // In use by its owner, and its turn has not come.
    assert!(pool.allocate("", &own("10.0.0.5"), NOW).is_ok());
    pool.reserve([range("10.0.0.3"), range("10.0.0.1")], NOW);
    // Free for all now, after its turn had passed it.
    assert_eq!(next(&mut pool), "10.0.0.4");
    assert_eq!(next(&mut pool), "10.0.0.6");
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "pool_exhausted");
    pool.release("", range("10.0.0.5").first(), NOW);
    assert_eq!(next(&mut pool), "10.0.0.5");
    // Now somebody's own, it goes to nobody else when it is given back.
    assert_eq!(
        pool.allocate("", &own("10.0.0.1"), NOW),
        Err(Cause::AddressInUse)
    );
    pool.release("", range("10.0.0.1").first(), NOW);
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert!(pool.allocate("", &own("10.0.0.1"), NOW).is_ok());
    assert!(pool.allocate("", &own("10.0.0.3"), NOW).is_ok());
    // Given back before its turn, it has its turn once.
    let mut pool = self::pool(&["10.0.0.1-10.0.0.2"], &["10.0.0.2"]);
    assert!(pool.allocate("", &own("10.0.0.2"), NOW).is_ok());
    pool.reserve([], NOW);
    pool.release("", range("10.0.0.2").first(), NOW);
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "10.0.0.2");
    assert_eq!(next(&mut pool), "pool_exhausted");
}

#[test]
fn big_reservations_and_pools_cost_nothing_until_used() {
    let mut pool = pool(&["10.0.0.0-10.15.255.255"], &["10.0.0.0-10.15.255.254"]);
    assert_eq!(next(&mut pool), "10.15.255.255");
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert!(pool.resting.is_empty());
    assert_eq!(next(&mut self::pool(&[], &[])), "pool_exhausted");
}

#[test]
fn a_long_run_neither_doubles_nor_loses_addresses() {
    let mut pool = pool(&["10.0.0.1-10.0.0.50", "10.0.1.1-10.0.1.50"], &["10.0.0.7"]);
    let mut held = VecDeque::new();
    // A fixed sequence that takes more often than it gives back, then the other way round, again and again.
    let mut state = 1_u64;
    for step in 0..20_000_u32 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mostly_take = (step / 300).is_multiple_of(2);
        if (state >> 33).is_multiple_of(4) != mostly_take {
            match pool.allocate("", &Addresses::Pool, NOW) {
                Ok(address) => {
                    assert!(!held.contains(&address), "{address} was given twice");
                    assert_ne!(address.to_string(), "10.0.0.7");
                    held.push_back(address);
                }
                Err(cause) => {
                    assert_eq!(cause, Cause::PoolExhausted);
                    assert_eq!(held.len(), 99);
                }
            }
        } else if let Some(address) = held.pop_front() {
            assert!(pool.release("", address, NOW));
        }
        assert_eq!(pool.in_use(), held.len());
    }
}

#[test]
fn who_comes_again_gets_the_same_address_while_it_is_kept() {
    let rest = Rest {
        quarantine: Duration::from_secs(60),
        sticky: Duration::from_secs(3600),
    };
    let mut pool = pools(&[(DEFAULT, &["10.0.0.1-10.0.0.3"], None)], rest, &[]);
    let at = |seconds| NOW + Duration::from_secs(seconds);
    let ask = |pool: &mut Pools, user: &str, seconds| {
        let allocated = pool.allocate(user, &Addresses::Pool, at(seconds));
        allocated.map_or_else(
            |cause| cause.name().to_owned(),
            |address| address.to_string(),
        )
    };
    let give = |pool: &mut Pools, user: &str, address: &str, seconds| {
        assert!(pool.release(user, range(address).first(), at(seconds)));
    };
    assert_eq!(ask(&mut pool, "alice", 0), "10.0.0.1");
    give(&mut pool, "alice", "10.0.0.1", 10);
    // Others get what was never used; she gets hers, which rests from others only.
    assert_eq!(ask(&mut pool, "bob", 20), "10.0.0.2");
    assert_eq!(ask(&mut pool, "alice", 30), "10.0.0.1");
    assert_eq!(ask(&mut pool, "alice", 30), "10.0.0.3", "her second call");
    give(&mut pool, "alice", "10.0.0.1", 100);
    give(&mut pool, "alice", "10.0.0.3", 101);
    assert_eq!(ask(&mut pool, "carol", 159), "pool_exhausted", "all rest");
    assert_eq!(ask(&mut pool, "alice", 159), "10.0.0.3", "the later one");
    assert_eq!(ask(&mut pool, "carol", 160), "10.0.0.1");
    give(&mut pool, "alice", "10.0.0.3", 200);
    assert_eq!(ask(&mut pool, "dave", 260), "10.0.0.3");
    give(&mut pool, "dave", "10.0.0.3", 300);
    assert_eq!(ask(&mut pool, "alice", 320), "pool_exhausted", "dave's now");
    give(&mut pool, "bob", "10.0.0.2", 400);
    assert_eq!(ask(&mut pool, "bob", 4001), "10.0.0.3", "kept no longer");
    assert_eq!(pool.in_use(), 2);
    assert!(pool.last.len() <= pool.resting.len(), "{:?}", pool.last);
}

#[test]
fn pools_are_asked_one_after_the_other() {
    let all: [(&str, &[&str], _); 3] = [
        (DEFAULT, &["10.0.0.1"], None),
        ("gold", &["10.0.1.1"], Some(2)),
        ("silver", &["10.0.2.1-10.0.2.2"], Some(0)),
    ];
    let mut pool = pools(&all, Rest::default(), &["10.0.2.1"]);
    let ask = |pool: &mut Pools, name: &str| {
        let allocated = pool.allocate("", &Addresses::Named(name.into()), NOW);
        allocated.map_or_else(
            |cause| cause.name().to_owned(),
            |address| address.to_string(),
        )
    };
    assert_eq!(ask(&mut pool, "gold"), "10.0.1.1");
    assert_eq!(ask(&mut pool, "gold"), "10.0.2.2");
    assert_eq!(ask(&mut pool, "bronze"), "pool_unknown");
    assert_eq!(ask(&mut pool, "gold"), "10.0.0.1");
    assert_eq!(ask(&mut pool, "gold"), "pool_exhausted");
    assert_eq!(next(&mut pool), "pool_exhausted");
    // Each goes back to where it is from.
    for address in ["10.0.2.2", "10.0.0.1"] {
        assert!(pool.release("", range(address).first(), NOW));
    }
    assert_eq!(next(&mut pool), "10.0.0.1");
    assert_eq!(next(&mut pool), "pool_exhausted");
    assert_eq!(ask(&mut pool, "silver"), "10.0.2.2");
}

#[test]
fn an_address_that_is_taken_and_given_back_for_ever_costs_no_memory() {
    let rest = Rest {
        sticky: Duration::from_secs(3600),
        ..Rest::default()
    };
    let mut pool = pools(&[(DEFAULT, &["10.0.0.0-10.255.255.255"], None)], rest, &[]);
    for step in 0..10_000 {
        let now = NOW + Duration::from_secs(step);
        let address = pool.allocate("alice", &Addresses::Pool, now).unwrap();
        assert_eq!(address.to_string(), "10.0.0.0");
        assert!(pool.release("alice", address, now));
    }
    assert!(pool.pools[0].returned.len() < 100);
    assert_eq!((pool.resting.len(), pool.last.len()), (1, 1));
}

#[test]
fn a_range_without_others() {
    let without = |of: &str, others: &[&str]| {
        let others = merged(others.iter().map(|text| range(text)));
        let left = range(of).without(&others);
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        left.join(" ")
    };
    assert_eq!(without("10.0.0.1-10.0.0.9", &[]), "10.0.0.1-10.0.0.9");
    assert_eq!(
        without(
            "10.0.0.1-10.0.0.9",
            &["10.0.0.1", "10.0.0.4-10.0.0.5", "10.0.0.9", "10.1.0.0"]
        ),
        "10.0.0.2-10.0.0.3 10.0.0.6-10.0.0.8"
    );
    assert_eq!(without("10.0.0.1-10.0.0.9", &["10.0.0.0-10.0.0.20"]), "");
    assert_eq!(
        without("10.0.0.1-10.0.0.9", &["10.0.0.8-10.0.0.20"]),
        "10.0.0.1-10.0.0.7"
    );
    assert_eq!(
        without("255.255.255.254-255.255.255.255", &["255.255.255.255"]),
        "255.255.255.254"
    );
}
