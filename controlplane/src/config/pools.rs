//! The pools: that of `[network]`, and every `[[pool]]`.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv4Subnets};

use super::network::host_address;
use super::parse::{MAX_ADDRESSES, must};
use super::read::{At, Reader, Section};
use crate::pool::{DEFAULT, PoolConfig, Range, Rest, merged};

/// What stands in the file of pools, with its faults found so far.
pub(super) struct Found {
    pools: Vec<Pool>,
    choice: Option<At<Vec<At<Block>>>>,
    rest: Rest,
}

struct Pool {
    name: At<Arc<str>>,
    /// What its addresses are called in faults.
    what: &'static str,
    blocks: At<Vec<At<Block>>>,
    exclude: Vec<At<Block>>,
    next: Option<At<String>>,
}

/// The pools, and what others have to know of them.
pub(super) struct PoolsAt {
    pub(super) pools: Vec<PoolConfig>,
    pub(super) rest: Rest,
    pub(super) choice: Vec<Range>,
    /// All addresses, sorted.
    pub(super) ranges: Vec<At<Range>>,
    /// What covers them and what is excluded.
    pub(super) prefixes: Vec<Ipv4Net>,
}

const BLOCK: &str = "a range \"10.20.0.10-10.20.3.250\" or a prefix \"10.21.0.0/24\"";
const PART: &str = "a range \"10.20.3.1-10.20.3.99\" or a prefix \"10.21.0.0/24\" of the pool";
const NAME: &str = "write 1 to 63 visible ASCII characters";

impl Found {
    /// Reads what `[network]` says of its pool and of all, and the other pools. `None`: the pool of `[network]` is missing.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        network: &mut Section<'_>,
        named: Vec<Section<'_>>,
        broken: bool,
    ) -> Option<Self> {
        let mut pools = Vec::new();
        let missing = (
            "`pool` in [network]",
            "write what clients get addresses from: pool = [\"10.20.0.10-10.20.0.250\"]",
        );
        let first = Pool::read(reader, network, "pool", missing, broken);
        let first = first.map(|(blocks, exclude)| Pool {
            name: At {
                value: DEFAULT.into(),
                span: blocks.span.clone(),
            },
            what: missing.0,
            blocks,
            exclude,
            next: None,
        });
        let choice = network.texts(reader, "client_choice", PART, block);
        let day = Duration::from_secs(24 * 60 * 60);
        let mut time = |key, longest, example| {
            let found = network.duration(reader, key, Duration::ZERO..=longest, example);
            found.map_or(Duration::ZERO, |found| found.value)
        };
        let rest = Rest {
            quarantine: time("quarantine", day, "1m"),
            sticky: time("sticky", 366 * day, "1d"),
        };
        for mut section in named {
            let has = section.has("name");
            let name = section.text(reader, "name", NAME, pool_name);
            let name = must(
                reader,
                name,
                has,
                broken,
                section.span(),
                "`name` in [[pool]]",
                "write what users' `pool` and RADIUS' Framed-Pool call it: name = \"business\"",
            );
            let missing = (
                "`addresses` in [[pool]]",
                "write what clients get addresses from: addresses = [\"10.30.0.0/24\"]",
            );
            let found = Pool::read(reader, &mut section, "addresses", missing, broken);
            let next = section.text(reader, "next", NAME, pool_name);
            section.finish(reader);
            if let (Some(name), Some((blocks, exclude))) = (name, found) {
                pools.push(Pool {
                    name: At {
                        value: name.value.into(),
                        span: name.span,
                    },
                    what: missing.0,
                    blocks,
                    exclude,
                    next,
                });
            }
        }
        pools.insert(0, first?);
        Some(Self {
            pools,
            choice,
            rest,
        })
    }

    /// Whether they go together.
    pub(super) fn judge(self, reader: &mut Reader<'_>, server: &At<Ipv4Addr>) -> PoolsAt {
        let nexts = chain_of(reader, &self.pools);
        let mut all: Vec<At<Range>> = Vec::new();
        let mut prefixes = Vec::new();
        let mut pools = Vec::new();
        let whole = self.pools.first().map(|pool| pool.blocks.span.clone());
        for (pool, next) in self.pools.into_iter().zip(nexts) {
            let name = pool.name.value.clone();
            let ranges = pool.ranges(reader, &mut prefixes);
            pools.push(PoolConfig {
                name,
                ranges: ranges.iter().map(|range| range.value).collect(),
                next,
            });
            all.extend(ranges);
        }
        all.sort_by_key(|range| range.value);
        overlaps(reader, &all);
        let size: u64 = all.iter().map(|range| range.value.size()).sum();
        if let Some(span) = whole
            && size > MAX_ADDRESSES
        {
            reader.fault(
                &span,
                format!("the pools have {size} addresses"),
                format!("write at most {MAX_ADDRESSES}: each one costs memory at start"),
            );
        }
        for range in all
            .iter()
            .filter(|range| range.value.contains(server.value))
        {
            reader.fault(
                &range.span,
                format!(
                    "the pool {} holds server_address {}",
                    range.value, server.value
                ),
                format!("leave it out: {}", without(range.value, server.value)),
            );
        }
        let first = pools.first().map_or(&[][..], |pool| &pool.ranges);
        let choice = self.choice.map(|choice| choice_of(reader, choice, first));
        PoolsAt {
            rest: self.rest,
            choice: choice.unwrap_or_default(),
            ranges: all,
            prefixes: Ipv4Net::aggregate(&prefixes),
            pools,
        }
    }
}

impl Pool {
    /// The addresses of a pool, and those that are excluded.
    #[expect(
        clippy::type_complexity,
        reason = "two lists as they stand in the file"
    )]
    fn read(
        reader: &mut Reader<'_>,
        section: &mut Section<'_>,
        key: &'static str,
        (what, instead): (&'static str, &'static str),
        broken: bool,
    ) -> Option<(At<Vec<At<Block>>>, Vec<At<Block>>)> {
        let has = section.has(key);
        let blocks = section.texts(reader, key, BLOCK, block);
        let blocks = must(reader, blocks, has, broken, section.span(), what, instead);
        let exclude = section.texts(reader, "exclude", PART, block);
        let exclude = exclude.map(|exclude| exclude.value).unwrap_or_default();
        Some((blocks?, exclude))
    }

    /// Its ranges, sorted, without what is excluded; the prefixes that cover them go to `prefixes`.
    fn ranges(self, reader: &mut Reader<'_>, prefixes: &mut Vec<Ipv4Net>) -> Vec<At<Range>> {
        let faults = reader.faults.len();
        let mut ranges: Vec<At<Range>> = Vec::new();
        for At { value, span } in self.blocks.value {
            let Some((value, covered)) = value.resolve(reader, &span, self.what) else {
                continue;
            };
            prefixes.extend(covered);
            ranges.push(At { value, span });
        }
        if ranges.is_empty() && reader.faults.len() == faults {
            reader.fault(
                &self.blocks.span,
                format!("{} is empty", self.what),
                "write a range \"10.20.0.10-10.20.0.250\" or a prefix \"10.21.0.0/24\"",
            );
        }
        let mut excluded = Vec::new();
        for At { value, span } in self.exclude {
            // Of a prefix all addresses, not hosts alone.
            let value = match value {
                Block::Prefix(prefix) => Range::new(prefix.network(), prefix.broadcast()),
                other => other
                    .resolve(reader, &span, "`exclude`")
                    .map(|(range, _)| range),
            };
            let Some(value) = value else { continue };
            if !ranges.iter().any(|range| range.value.overlaps(value)) {
                reader.fault(
                    &span,
                    format!("`exclude` names {value}, which is not in this pool"),
                    "name addresses of the pool that nobody is to get, or leave it out",
                );
            }
            excluded.push(value);
        }
        let excluded = merged(excluded);
        ranges.sort_by_key(|range| range.value);
        let left = ranges.iter().flat_map(|range| {
            let left = range.value.without(&excluded).into_iter();
            left.map(|value| At {
                value,
                span: range.span.clone(),
            })
        });
        left.collect()
    }
}

/// The place of the pool after each.
fn chain_of(reader: &mut Reader<'_>, pools: &[Pool]) -> Vec<Option<usize>> {
    let place = |name: &str| pools.iter().position(|pool| *pool.name.value == *name);
    let mut nexts = Vec::new();
    for (index, pool) in pools.iter().enumerate() {
        if place(&pool.name.value).is_some_and(|first| first < index) {
            reader.fault(
                &pool.name.span,
                format!("the pool {:?} is there twice", &*pool.name.value),
                format!("give it another name; {DEFAULT:?} is the one of [network]"),
            );
        }
        let next = pool.next.as_ref().and_then(|next| {
            let found = place(&next.value);
            if found.is_none() {
                reader.fault(
                    &next.span,
                    format!(
                        "`next` in [[pool]] names {:?}, which there is not",
                        next.value
                    ),
                    format!("name another [[pool]], or {DEFAULT:?} for the one of [network]"),
                );
            }
            found
        });
        nexts.push(next);
    }
    for (index, pool) in pools.iter().enumerate() {
        let after = core::iter::successors(nexts[index], |next| nexts[*next]);
        // As many steps as there are pools without an end: a circle.
        if after.take(pools.len()).count() == pools.len()
            && let Some(next) = &pool.next
        {
            reader.fault(
                &next.span,
                format!(
                    "the pools after {:?} lead round in a circle",
                    &*pool.name.value
                ),
                "leave out one `next` of them",
            );
        }
    }
    nexts
}

fn overlaps(reader: &mut Reader<'_>, ranges: &[At<Range>]) {
    let mut highest: Option<Range> = None;
    for range in ranges {
        if let Some(before) = highest
            && before.overlaps(range.value)
        {
            reader.fault(
                &range.span,
                format!("the pools {before} and {} overlap", range.value),
                "write each address once",
            );
        }
        if highest.is_none_or(|before| before.last() < range.value.last()) {
            highest = Some(range.value);
        }
    }
}

/// A pool's name, which RADIUS carries as well.
pub(super) fn pool_name(text: &str) -> Option<String> {
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// What stands in a pool: a prefix, of which hosts are used, or a range.
enum Block {
    Prefix(Ipv4Net),
    Range(Range),
    /// Names addresses that no host can have, or a prefix with host bits; holds what to write instead.
    Unusable(String),
}

impl Block {
    /// The addresses, and the prefixes that cover them; `None` with a fault when it cannot be used.
    fn resolve(
        self,
        reader: &mut Reader<'_>,
        span: &core::ops::Range<usize>,
        what: &str,
    ) -> Option<(Range, Vec<Ipv4Net>)> {
        match self {
            Self::Prefix(prefix) => Some((Range::hosts(prefix), vec![prefix])),
            Self::Range(range) => {
                let covered = Ipv4Subnets::new(range.first(), range.last(), 0);
                Some((range, covered.collect()))
            }
            Self::Unusable(instead) => {
                reader.fault(span, format!("{what} cannot be this"), instead);
                None
            }
        }
    }
}

fn block(text: &str) -> Option<Block> {
    if let Some((first, last)) = text.split_once('-') {
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let last: Ipv4Addr = last.trim().parse().ok()?;
        return Some(match Range::new(first, last) {
            None => Block::Unusable(format!(
                "the lower address stands first: \"{last}-{first}\""
            )),
            Some(range) if !range.is_unicast() => Block::Unusable(NOT_UNICAST.to_owned()),
            Some(range) => Block::Range(range),
        });
    }
    if text.contains('/') {
        let prefix: Ipv4Net = text.trim().parse().ok()?;
        return Some(if prefix.trunc() != prefix {
            Block::Unusable(format!(
                "the prefix is \"{}\"; a range is written \"first-last\"",
                prefix.trunc()
            ))
        } else if !Range::hosts(prefix).is_unicast() {
            Block::Unusable(NOT_UNICAST.to_owned())
        } else {
            Block::Prefix(prefix)
        });
    }
    let address = host_address(text.trim())?;
    Some(Block::Range(Range::single(address)))
}

const NOT_UNICAST: &str = "use addresses that hosts can have: not 0.x, 127.x or 224.x and above; private ones are 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16";

/// What clients may ask for: parts of the pool.
fn choice_of(reader: &mut Reader<'_>, choice: At<Vec<At<Block>>>, pool: &[Range]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for At { value, span } in choice.value {
        let what = "`client_choice` in [network]";
        let Some((range, _)) = value.resolve(reader, &span, what) else {
            continue;
        };
        let held = pool
            .iter()
            .any(|part| part.contains(range.first()) && part.contains(range.last()));
        if held {
            ranges.push(range);
        } else {
            reader.fault(
                &span,
                format!("`client_choice` in [network] names {range}, which is not in one part of the pool"),
                "name what `pool` has: clients may only ask for addresses that could be theirs anyway",
            );
        }
    }
    ranges
}

/// How to write `range` without `address`, which is in it.
fn without(range: Range, address: Ipv4Addr) -> String {
    let address = u32::from(address);
    let below = address
        .checked_sub(1)
        .and_then(|last| Range::new(range.first(), last.into()));
    let above = address
        .checked_add(1)
        .and_then(|first| Range::new(first.into(), range.last()));
    let parts: Vec<_> = [below, above]
        .into_iter()
        .flatten()
        .map(|part| format!("\"{part}\""))
        .collect();
    match parts.is_empty() {
        true => "write another range".to_owned(),
        false => parts.join(", "),
    }
}
