//! `[limits]`.

use std::time::Duration;

use turnpike_dataplane::api::SourceCheck;

use super::network::NetworkAt;
use super::parse::MAX_ADDRESSES;
use super::read::{At, Reader, Section};
use super::{Access, Limits};
use crate::aaa::Users;
use crate::admission::{DEFAULT_LIMIT, DEFAULT_WAIT};
use crate::applicants::default_limit;
use crate::rivals::SameUser;

/// [`Limits::setup_time`] where nothing is said: a path that takes a second, loses a packet in ten and stops for ten seconds in
/// between lets 99 of 100 calls come up in this time.
pub const DEFAULT_SETUP_TIME: Duration = Duration::from_secs(60);

pub(super) fn limits_of(
    reader: &mut Reader<'_>,
    section: Option<Section<'_>>,
    network: Option<&NetworkAt>,
    users: &Users,
    access: Option<&Access>,
) -> Limits {
    let pool: u64 = network
        .map(|network| network.pool.iter().map(|range| range.value.size()).sum())
        .unwrap_or_default();
    let addresses = pool + users.fixed().count() as u64;
    let mut limits = Limits {
        calls: usize::try_from(addresses.clamp(1, 65_000)).unwrap_or(65_000),
        connections_per_source: 64,
        unauthenticated_per_source: 0,
        setting_up: DEFAULT_LIMIT,
        setting_up_wait: DEFAULT_WAIT,
        same_user: SameUser::default(),
        setup_time: DEFAULT_SETUP_TIME,
        echo_interval: Duration::from_secs(30),
    };
    limits.unauthenticated_per_source = default_limit(limits.calls);
    let Some(mut section) = section else {
        return limits;
    };
    let number = |found: Option<At<u64>>, or: usize| {
        found
            .and_then(|found| usize::try_from(found.value).ok())
            .unwrap_or(or)
    };
    let calls = section.number(
        reader,
        "calls",
        1..=MAX_ADDRESSES,
        "write how many calls there may be at once, or leave the key out for one per address (65000 at most)",
    );
    // RFC 2637 §2.7: 16 bits, and we never choose 0.
    let ids = u64::from(u16::MAX);
    let relaxed = access.is_some_and(|access| access.source_check == SourceCheck::Relaxed);
    if let Some(calls) = calls.as_ref().filter(|calls| relaxed && calls.value > ids) {
        reader.fault(
            &calls.span,
            format!(
                "`calls` in [limits] is {}, but with source_check = \"relaxed\" call ids cannot repeat and there are {ids}",
                calls.value
            ),
            format!("write at most {ids}, or source_check = \"strict\" in [access]"),
        );
    }
    limits.calls = number(calls, limits.calls);
    limits.connections_per_source = number(
        section.number(
            reader,
            "connections_per_source",
            1..=100_000,
            "write how many control connections one address may have (an office behind NAT has many): 64",
        ),
        limits.connections_per_source,
    );
    limits.unauthenticated_per_source = number(
        section.number(
            reader,
            "unauthenticated_per_source",
            1..=MAX_ADDRESSES,
            "write how many calls of one address may be logging in at once, or leave the key out for a quarter of calls",
        ),
        default_limit(limits.calls),
    );
    limits.setting_up = number(
        section.number(
            reader,
            "setting_up",
            1..=100_000,
            "write how many calls may be set up at once (on a path of 100 ms, 1000 make about 500 per second): 1000",
        ),
        limits.setting_up,
    );
    let seconds = Duration::from_secs;
    if let Some(wait) = section.duration(reader, "setting_up_wait", seconds(0)..=seconds(60), "10s")
    {
        limits.setting_up_wait = wait.value;
    }
    let same_user = [
        ("allow", SameUser::Allow),
        ("replace", SameUser::Replace),
        ("refuse", SameUser::Refuse),
    ];
    if let Some(rule) = section.choice(reader, "same_user", &same_user) {
        limits.same_user = rule.value;
    }
    if let Some(setup_time) =
        section.duration(reader, "setup_time", seconds(5)..=seconds(600), "60s")
    {
        limits.setup_time = setup_time.value;
    }
    if let Some(echo_interval) =
        section.duration(reader, "echo_interval", seconds(1)..=seconds(3600), "30s")
    {
        limits.echo_interval = echo_interval.value;
    }
    section.finish(reader);
    limits
}
