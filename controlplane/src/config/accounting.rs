//! `[accounting]`.

use core::time::Duration;
use std::path::PathBuf;

use super::Accounting;
use super::read::{Reader, Section};
use crate::accounting::{NasPort, Stations, Template};

/// The ledger where nobody says otherwise.
pub const DEFAULT_LEDGER: &str = "/var/lib/turnpike/accounting.sqlite";

/// Where nothing is said: long enough for a question that comes with a monthly bill, and the next.
const KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const CHECKPOINT: Duration = Duration::from_secs(60);

const PLACES: &str = "write a text of at most 64 visible ASCII characters, in which {client}, {server}, {call} and {name} \
                      are filled in: \"{client}\"";

/// What `keep` says.
#[derive(Clone, Copy)]
enum Keep {
    For(Duration),
    Forever,
}

pub(super) fn accounting_of(
    reader: &mut Reader<'_>,
    section: Option<Section<'_>>,
) -> Option<Accounting> {
    let mut section = section?;
    let seconds = Duration::from_secs;
    let day = seconds(24 * 60 * 60);
    let file = section.text(
        reader,
        "file",
        &format!("write the name of a file, such as \"{DEFAULT_LEDGER}\""),
        |text| (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text)),
    );
    let keep = section.text(
        reader,
        "keep",
        "write how long sessions are kept after their end, from \"1h\" to \"100years\", such as \"90days\", or \"forever\"",
        |text| match text {
            "forever" => Some(Keep::Forever),
            text => {
                let keep = humantime::parse_duration(text).ok()?;
                (day / 24..=day * 36_525)
                    .contains(&keep)
                    .then_some(Keep::For(keep))
            }
        },
    );
    // No longer: a session is taken for dead that shows no sign of life.
    let checkpoint = section.duration(reader, "checkpoint", seconds(1)..=seconds(300), "60s");
    // RFC 2869 §5.16: not below 60 seconds.
    let interim = section.duration(reader, "interim", seconds(60)..=day, "10m");
    let failures = section.flag(
        reader,
        "failures",
        "write true or false: whether calls that never came up are written down",
    );
    let mandatory = section.flag(
        reader,
        "mandatory",
        "write true or false: whether there must be no call that cannot be written down",
    );
    let radius = section.flag(
        reader,
        "radius",
        "write true or false: whether records are delivered to the servers of [radius]",
    );
    let nas_port = section.choice(
        reader,
        "nas_port",
        &[("call", NasPort::Call), ("none", NasPort::None)],
    );
    let mut template = |key| section.text(reader, key, PLACES, Template::new);
    let (nas_port_id, calling, called) = (
        template("nas_port_id"),
        template("calling_station_id"),
        template("called_station_id"),
    );
    section.finish(reader);
    let usual = Stations::default();
    let stations = Stations {
        nas_port: nas_port.map_or(usual.nas_port, |port| port.value),
        nas_port_id: nas_port_id.map_or(usual.nas_port_id, |text| text.value),
        calling: calling.map_or(usual.calling, |text| text.value),
        called: called.map_or(usual.called, |text| text.value),
    };
    Some(Accounting {
        file: file.map_or_else(|| PathBuf::from(DEFAULT_LEDGER), |file| file.value),
        keep: match keep.map(|keep| keep.value) {
            Some(Keep::For(keep)) => Some(keep),
            Some(Keep::Forever) => None,
            None => Some(KEEP),
        },
        checkpoint: checkpoint.map_or(CHECKPOINT, |found| found.value),
        interim: interim.map(|found| found.value),
        failures: failures.unwrap_or(false),
        mandatory: mandatory.unwrap_or(false),
        radius: radius.unwrap_or(true),
        stations,
    })
}
